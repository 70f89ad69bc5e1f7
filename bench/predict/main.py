"""`bingo bench predict`: a step as asked for, the ladder from a release-style step to it, hours to train."""

import argparse
import json
from dataclasses import replace

from bingo.bench.predict import calibration, cards, fit, page, score, table
from bingo.bench.predict.gpus import Machine, machine
from bingo.bench.predict.ladder import LADDER, chosen
from bingo.bench.predict.step import Job, Step, predict
from bingo.bench.record import Row, write_result
from bingo.bench.samples import band
from bingo.errors import UserError
from bingo.models import check_name

NOTE = "predicted by arithmetic; nothing ran"


def main(options: argparse.Namespace) -> int:
    """Print what is asked for; `--json FILE` keeps it in the form of every result."""
    if options.score:
        if len(options.score) < 2:
            raise UserError("--score needs a prediction and a measurement; add the file of a measurement after it")
        print("\n".join(score.lines(score.scores(options.score[0], options.score[1:]))))
        return 0
    if options.calibration:
        print("\n".join(calibration.lines()))
        return 0
    if options.table:
        print("\n".join(page.lines()))
        return 0
    if options.recipes:
        print(json.dumps(cards.all_hours(machine_of(options)), indent=1))
        return 0
    if options.ranks:
        return _ranks(options)
    job, found = job_of(options), machine_of(options)
    steps = steps_of(job, found, options)
    print("\n".join(table.lines(job, found, steps, options.images, options.epochs)))
    if options.json:
        write_result(options.json, "predict", rows_of(job, found, steps), {"machine": vars(found)})
    return 0


def job_of(options: argparse.Namespace) -> Job:
    """What the flags describe; `UserError` for networks that are none and a batch that does not divide."""
    for name in (options.student, options.teacher):
        check_name(name)
    gpus = options.nodes * options.gpus_per_node
    if options.batch % gpus:
        raise UserError(
            f"--batch {options.batch} does not divide among {gpus} GPUs (--nodes {options.nodes} --gpus-per-node "
            f"{options.gpus_per_node}); set --batch to a multiple of {gpus}"
        )
    if options.images < options.batch:
        raise UserError(
            f"--images {options.images} are fewer than one step's --batch {options.batch}; set --batch to at most that"
        )
    if options.cached and options.engine:
        raise UserError(f"--engine {options.engine} is about a live teacher, and --cached has none: leave one out")
    return Job(
        options.student, options.teacher, options.size, options.batch // gpus, options.objective, options.queue,
        options.dim, options.hidden, options.nodes, options.gpus_per_node,
    )  # fmt: skip


def machine_of(options: argparse.Namespace) -> Machine:
    """The kind of the table, with what was measured in place of its numbers."""
    found = fit.fitted(machine(options.gpu), options.fit)
    return found if options.host_us is None else replace(found, host_s=options.host_us / 1e6)


def steps_of(job: Job, found: Machine, options: argparse.Namespace) -> list[Step]:
    """The step as asked for, and the rungs of the ladder."""
    asked = chosen(options.engine or "compiled", options.compile, cached=options.cached, graph=options.graph == "yes")
    step = predict(job, asked, found, cores=options.cores)
    if options.graph == "auto" and job.gpus == 1 and step.host_s > step.gpu_s:  # the code captures no others
        step = predict(job, replace(asked, graph=True), found, cores=options.cores)
    return [step, *(predict(job, variant, found, cores=options.cores) for variant in LADDER)]


def case_of(job: Job, found: Machine, precision: str) -> str:
    """As `bingo bench scaling` names its cases, with the kind of GPU at the end."""
    size = f"{job.nodes} nodes x {job.per_node} ranks"
    networks = f"{job.student} from {job.teacher}, {job.size} px"
    return f"{size}, {job.rows} per rank, {networks}, {precision}, {job.objective}, {found.name}"


def rows_of(job: Job, found: Machine, steps: list[Step]) -> list[Row]:
    """Images per second of the step as asked for, and seconds per step of all."""
    asked = steps[0]
    rate: Row = {
        "case": case_of(job, found, "bf16"), "variant": asked.variant.name, "metric": "images per second",
        "better": "higher", "clock": "none", "processes": [[asked.images_per_second]], "notes": [NOTE],
    }  # fmt: skip
    return [rate, *(_row(job, found, step) for step in steps)]


def _row(job: Job, found: Machine, step: Step) -> Row:
    notes = [NOTE, f"without the loader, which takes {step.loader_s:.4g} s", *filter(None, [step.variant.note])]
    return {
        "case": case_of(job, found, step.variant.precision), "variant": step.variant.name, "better": "lower",
        "metric": "seconds per step", "clock": "none", "processes": [[step.seconds]], "notes": notes,
        "work": {"images": float(step.rows * step.gpus), "launches": float(step.launches)},
    }  # fmt: skip


def _ranks(options: argparse.Namespace) -> int:
    """Ranks on this machine, from a result of `bench scaling`."""
    found = fit.more_ranks(options.fit, options.ranks)
    print("\n".join(table.rank_lines(found)))
    if options.json:
        rows = [_ranks_row(prediction) for prediction in found]
        write_result(options.json, "predict", rows)
    return 0


def _ranks_row(found: fit.RanksPrediction) -> Row:
    return {
        "case": found.case.replace("N ranks", f"{found.ranks} ranks"), "variant": "ours", "metric": fit.CPU,
        "better": "lower", "clock": "none", "processes": [[found.predicted["median"]]],
        "notes": [NOTE, f"95 % interval {band(found.predicted, form='.6f')} s"],
    }  # fmt: skip
