"""The tables of `bingo bench predict`."""

from collections.abc import Sequence

from bingo.bench.predict.fit import RanksPrediction
from bingo.bench.predict.gpus import Machine
from bingo.bench.predict.step import PARTS, Job, Step
from bingo.bench.samples import Estimate, shown

WIDTH = 36


def lines(job: Job, machine: Machine, steps: Sequence[Step], images: int, epochs: int) -> list[str]:
    """The step as asked for first, then the ladder; ratios are against the ladder's first rung, without the loader."""
    asked, *ladder = steps
    base = ladder[0].seconds
    head = (
        f"{job.student} from {job.teacher}, {job.size} px, {job.objective}: {job.gpus} x {machine.name}, "
        f"{job.rows} images each; predicted, nothing ran"
    )
    columns = f"{'':{WIDTH}}{'ms/step':>9}{'x release':>11}{'images/s':>11}{'hours':>8}  bound"
    told = [head, columns, *(_line(step, base, images, epochs) for step in (asked, *ladder))]
    told += [
        "",
        f"{'ms per step of':{WIDTH}}" + "".join(f"{part:>11}" for part in (*PARTS, "host", "exposed", "loader")),
    ]
    told += [_parts(step) for step in (asked, *ladder)]
    return [*told, *_notes(asked, machine, images, epochs)]


def _line(step: Step, base: float, images: int, epochs: int) -> str:
    note = f"  ({step.variant.note})" if step.variant.note else ""
    return (
        f"{step.variant.name:{WIDTH}}{1000 * step.seconds:>9.2f}{base / step.seconds:>11.2f}"
        f"{step.images_per_second:>11,.0f}{step.hours(images, epochs):>8.1f}  {step.bound}{note}"
    )


def _parts(step: Step) -> str:
    values = [*(step.parts[part] for part in PARTS), step.host_s, step.exposed_s, step.loader_s]
    return f"{step.variant.name:{WIDTH}}" + "".join(f"{1000 * value:>11.2f}" for value in values)


def _notes(asked: Step, machine: Machine, images: int, epochs: int) -> list[str]:
    decoded = 2 * asked.rows / asked.seconds
    return [
        "",
        f"ms/step and ratio leave the loader out, images/s and hours ({epochs} epochs of {images:,} images) do not;",
        f"to keep up, the loader of each GPU must decode {decoded:,.0f} images a second",
        f"{asked.launches} launches at {1e6 * machine.host_s:.3g} us each are the host's; a CUDA graph has one",
        f"rates: {machine.bf16 / 1e12:.0f} TFLOP/s bf16, {machine.tf32 / 1e12:.0f} TF32, {machine.memory / 1e12:.2f} "
        f"TB/s, shortest kernel {1e6 * machine.kernel_s:.3g} us; `--calibration` shows how far off such figures were",
    ]


def rank_lines(found: Sequence[RanksPrediction]) -> list[str]:
    """CPU milliseconds per step and rank, predicted from 1 and 2 ranks, and measured where they were."""
    told = []
    for each in found:
        line = f"{each.case}, N={each.ranks}: predicted {_ms(each.predicted)} CPU ms per step and rank"
        if each.measured is not None and each.error is not None:
            line += f", measured {_ms(each.measured)}, error {100 * each.error:+.1f} %"
        told.append(line)
    return told


def _ms(found: Estimate) -> str:
    return shown(found, 1000)
