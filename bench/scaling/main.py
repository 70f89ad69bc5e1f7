"""`bingo bench scaling`: throughput of a distillation step over numbers of nodes, as real jobs of a cluster or here.

One folder holds everything: settings.json, the measured stages (`points/`), the result (scaling.json, scaling.svg), and
what was sent (`submissions/`), so that `bingo status`, `logs`, `cancel` and `history` know it. Jobs run one after
another and do not disturb each other. What is measured is a stage that is recognised when it is done: the same command
goes on after a kill, and with more numbers in the same folder only those are measured.
"""

import argparse
import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from bingo.bench.record import write_result
from bingo.bench.scaling.cluster import check_cluster, measure_there
from bingo.bench.scaling.picture import save_picture
from bingo.bench.scaling.plan import Plan, Point, plan_of
from bingo.bench.scaling.rows import Measured, detail_of, rows_of
from bingo.bench.scaling.samples import read_samples
from bingo.bench.scaling.table import Band, lines, predicted
from bingo.errors import UserError
from bingo.files import LOCK, folder_lock, make_folder, read_object, write_json
from bingo.launch.here import visible_gpus
from bingo.launch.local import Chain, Job, run_chain
from bingo.launch.submit.graph import done_stage
from bingo.paths import quoted
from bingo.stages import Stage

log = logging.getLogger(__name__)
SETTINGS, RESULT, PICTURE = "settings.json", "scaling.json", "scaling.svg"


def main(options: argparse.Namespace) -> int:
    """Measure what is not measured yet, and show all of it; 1 if a job failed. Raises `UserError`."""
    gpus = visible_gpus("auto")
    plan = plan_of(options, gpus > 0)
    band = predicted(options.predicted, plan.points[0].step)
    if plan.cluster:
        check_cluster(plan)
    places = [plan.out / RESULT, *([options.json] if options.json else [])]
    problems: dict[str, str] = {}
    with held(plan):
        for stage, problem in measure_there(plan) if plan.cluster else measure_here(plan, gpus):
            if problem:
                problems[stage.name] = problem
            save(plan, problems, places, partial=True)
        found = save(plan, problems, places, partial=False)
        show(plan, found, band)
    return int(any(measured.problems for measured in found))


@contextlib.contextmanager
def held(plan: Plan) -> Iterator[None]:
    """Hold the folder for this measurement; one that was refused leaves no new folder.

    `UserError` for a folder of others, or of a measurement with other settings.
    """
    fresh = not plan.out.exists()
    make_folder(plan.out)
    with folder_lock(plan.out):
        try:
            _check_folder(plan)
            write_json(plan.out / SETTINGS, plan.settings)
            yield
        except UserError:
            if fresh and {path.name for path in plan.out.iterdir()} <= {LOCK, SETTINGS, RESULT}:
                for name in (SETTINGS, RESULT, LOCK):
                    (plan.out / name).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    plan.out.rmdir()
            raise


def _check_folder(plan: Plan) -> None:
    other = "choose a new or empty folder for --out"
    names = sorted(path.name for path in plan.out.iterdir() if path.name[0] != ".")
    if names and SETTINGS not in names:
        raise UserError(f"{plan.out} holds {names[0]!r} and no measurement of scaling; {other}")
    if not names:
        return
    known = read_object(plan.out / SETTINGS, remedy=other)
    if known.get("measurement") != "scaling":
        raise UserError(f"{plan.out / SETTINGS} is not what bingo writes under that name; {other}")
    if not any(plan.out.glob("points/*/stage.json")):  # nothing is measured with other settings
        return
    for name in {**plan.settings, **known}:
        before, value = known.get(name), plan.settings.get(name)
        if before != value:
            raise UserError(
                f"{plan.out} holds a measurement with {name}={before}, not {value}; give the same flags, or choose "
                "another --out"
            )


def measure_here(plan: Plan, gpus: int) -> Iterator[tuple[Stage, str]]:
    """Run every stage that is not done as ranks of this machine; each as it is done."""
    ranks = {stage.name: point.ranks for point in plan.points for stage in point.stages}
    for stage in plan.stages:
        run_chain(Chain(plan.out, (Job((stage,), ranks[stage.name]),)), gpus=gpus, say=log.info)
        yield stage, ""


def save(plan: Plan, problems: dict[str, str], places: list[Path], *, partial: bool) -> list[Measured]:
    """Collect what is done, and write it as a result; returns it by point. A result that lacks a job is partial."""
    found = [collect(point, problems) for point in plan.points]
    partial = partial or any(measured.problems for measured in found)
    rows = [row for measured in found for row in rows_of(measured)]
    for path in places:
        write_result(path, "scaling", rows, detail_of(found, plan.settings), partial=partial)
    return found


def collect(point: Point, problems: dict[str, str]) -> Measured:
    """What the jobs of a point have left so far."""
    jobs, commits, missing, size = [], [], [], 0
    for stage in point.stages:
        if done_stage(stage) is None:
            missing.append(f"{stage.name}: {problems.get(stage.name, 'not measured yet')}")
            continue
        ranks, size = read_samples(stage.out)
        jobs.append(ranks)
        commits.append(str(read_object(stage.out / "environment.json").get("git")))
    return Measured(point, tuple(jobs), tuple(missing), size, tuple(commits))


def show(plan: Plan, found: list[Measured], band: Band) -> None:
    """Print the tables, where the result is, and what may be typed next; draw the picture."""
    print("\n".join(lines(found)))
    print(f"\nresult: {plan.out / RESULT}")
    print(save_picture(found, band, plan.out / PICTURE))
    if plan.cluster and any(measured.problems for measured in found):
        print(f"see `bingo status {quoted(plan.out)}`; the same command sends again what failed")
