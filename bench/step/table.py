"""The table of `bingo bench step`."""

import numpy as np

from bingo.bench.samples import band, shown, verdict
from bingo.bench.step.record import Figures, Result
from bingo.bench.step.variants import peers

NAME = 56
PARTS = ("augment", "teacher", "student", "loss", "backward", "optimiser", "queue")
AIM = 4.0


def table(found: Result) -> list[str]:
    """Lines for people about what `run` returned."""
    shape, settings = found["shape"], found["settings"]
    clock = "CPU" if shape["device"] == "cpu" else "wall"
    lines = [
        f"distillation step: {shape['student']} from {shape['teacher']}, {shape['size']} px, batch {shape['batch']}, "
        f"K={shape['queue']} C={shape['dim']}, {found['hardware']}, torch {found['torch']}",
        f"{'':{NAME}}{f'{clock} ms':>9}{'95 % interval':>18}{'n':>4}{'samples/s':>11}{'peak GB':>9}"
        f"{'x release fp32':>19}{'x same, ch.-last':>19}{'x that, compiled':>19}",
    ]
    for name, figures in found["variants"].items():
        what = _row(name, figures) if "seconds" in figures else figures.get("error", "not measured")
        lines.append(f"{name:{NAME}}{what}")
    lines.append(f"{'share of step, %':{NAME}}" + "".join(f"{part:>11}" for part in PARTS))
    for name, figures in found["variants"].items():
        if figures.get("parts"):
            medians = [float(np.median(figures["parts"][part])) for part in PARTS]
            lines.append(f"{name:{NAME}}" + "".join(f"{100 * m / sum(medians):>11.1f}" for m in medians))
    tf32 = "may use TF32" if settings["convolutions_may_use_tf32"] else "do not use TF32"
    lines.append(f"fp32: convolutions {tf32}, other products {settings['float32_matmul_precision']};")
    lines.append("x same, ch.-last: release-style steps at the same precision in channels-last memory; that, compiled")
    lines.append("augment holds CutMix and the reading of cached keys")
    lines.append("one process, so the release's all-gathers are absent; loading is not measured")
    return [*lines, _verdict(found)]


def _row(name: str, figures: Figures) -> str:
    whole = figures.get("cpu_seconds") or figures["seconds"]
    peak, faster, over = figures["peak_bytes"], figures.get("over_release"), figures.get("over_peers", {})
    at_its_precision = [shown(over[peer]) if peer in over else "-" for peer in peers(name)]
    memory = "-" if peak is None else f"{peak / 1e9:.2f}"
    gate = figures.get("loss_gate")
    last = "1" if gate is None else f"loss is {100 * gate['error']:.1f} % off"
    if faster:
        last = shown(faster)
    return (
        f"{1000 * whole['median']:>9.2f}{band(whole, 1000):>18}{len(whole['samples']):>4}"
        f"{figures['samples_per_second']:>11.1f}{memory:>9}{last:>19}"
        + "".join(f"{text:>19}" for text in at_its_precision)
    )


def _verdict(found: Result) -> str:
    aim = f"aim: >= {AIM:g}x the release-style step's samples/s"
    if found["shape"]["device"] == "cpu":
        return f"{aim}, on a GPU; not judged here"
    ratios = {name: f["over_release"] for name, f in found["variants"].items() if "over_release" in f}
    if not ratios:
        return f"{aim}: not measured"
    name, best = max(ratios.items(), key=lambda item: item[1]["median"])
    return f"{aim}: {verdict(AIM, best)} ({name}: {best['median']:.2f})"
