"""The table of `bingo bench loader`."""

from typing import Literal, NamedTuple

from bingo.bench.loader.record import Gate, Gpu, Result, Row
from bingo.bench.loader.rivals import OWN
from bingo.bench.loader.variants import OURS, STAGES
from bingo.bench.samples import band, shown, verdict


class Aim(NamedTuple):
    """At least how many times the release-style loader's images per CPU second our stage makes; what: in words."""

    stage: str
    ratio: Literal["over_release", "over_release_whole"]
    least: float
    what: str


# The first is what each leaves to the CPU where there is a GPU: ours cuts crops and the GPU does the rest, the
# release's does everything.
AIMS = (
    Aim("crop", "over_release_whole", 3.0, "our decode and two crops against the release-style loader's whole chain"),
    Aim("augment", "over_release", 2.0, "the whole chain against the release-style loader's"),
)


def table(found: Result) -> list[str]:
    """Lines for people about what `run` returned."""
    shape, images, hardware = found["shape"], found["images"], found["hardware"]
    width, height = images["median_width_height"]
    lines = [
        f"{images['images']} images, mean {images['mean_bytes'] / 1e3:.0f} kB, median {width:.0f}x{height:.0f}; "
        f"{hardware['gpu'] or hardware['cpu']}, {shape['threads']} thread(s), batch {shape['batch']}; "
        "per decoded image, two views each",
        f"{'':42}{'up to':>9}{'CPU ms':>9}{'95 % interval':>18}{'n':>4}{'A/A %':>7}{'per CPU s':>11}{'per s':>9}"
        f"{'x release':>20}{'time / ours':>19}",
    ]
    right = sound(found["gate"])
    lines += [f"{row['variant']:42}{row['stage']:>9}{_figures(row, right)}" for row in found["rows"]]
    lines += ["split of the CPU time, ms: " + "; ".join(_splits(found["rows"]))]
    if any(row.get("numerics") == OWN for row in found["rows"]):
        lines += ["*: its pixels are its own, not torchvision's"]
    lines += [_gate(found["gate"])]
    lines += [_aim(found["rows"], right, aim) for aim in AIMS] + _gpu(found["gpu"])
    return lines


def sound(gate: Gate) -> bool:
    """Whether crops and colours are right."""
    return gate["crops"]["ok"] and gate["colours"]["ok"]


def _figures(row: Row, right: bool) -> str:
    if "error" in row:
        return f"  {row['error']}"
    cpu, faster = row["cpu_seconds"], row.get("over_release")
    noise = "-" if cpu["aa_noise"] is None else f"{100 * cpu['aa_noise']:.1f}"
    last = "1"
    if faster:
        last = shown(faster)
    if faster and row["variant"].startswith("ours") and not right:
        last = "wrong pixels"
    return (
        f"{1e3 * cpu['median']:>9.2f}{band(cpu, 1e3):>18}{cpu['n']:>4}{noise:>7}"
        f"{row['images_per_cpu_second']:>11.1f}{row['images_per_second']:>9.1f}{last:>20}"
        f"{_over_ours(row, right):>19}"
    )


def _over_ours(row: Row, right: bool) -> str:
    """Beside a rival with other pixels the ratio has a mark."""
    if "over_ours" not in row or not right:
        return "-"
    return shown(row["over_ours"]) + ("*" if row.get("numerics") == OWN else "")


def _splits(rows: list[Row]) -> list[str]:
    by_name: dict[str, dict[str, float]] = {}
    for row in rows:
        if "cpu_seconds" in row:
            by_name.setdefault(row["variant"], {})[row["stage"]] = 1e3 * row["cpu_seconds"]["median"]
    found = []
    for name, stages in by_name.items():
        if len(stages) == len(STAGES):
            decode, crop, augment = (stages[stage] for stage in STAGES)
            found.append(f"{name} {decode:.1f} + {crop - decode:.1f} + {augment - crop:.1f}")
    return found


def _gate(gate: Gate) -> str:
    crops, colours = gate["crops"], gate["colours"]
    return (
        f"gate: worst crop {crops['worst_mean_levels']:.2f} levels from torchvision's (bound {crops['bound']:g}), "
        f"{100 * colours['share_equal']:.3f} % of finished values equal (bound {100 * colours['bound']:g})"
        + ("" if sound(gate) else ": FAILED")
    )


def _aim(rows: list[Row], right: bool, aim: Aim) -> str:
    text = f"aim: {aim.what}, images per CPU second: >= {aim.least:g}x"
    ours = [row for row in rows if row["variant"] == OURS and row["stage"] == aim.stage]
    mine = [row[aim.ratio] for row in ours if aim.ratio in row]
    if not mine or not right:
        return f"{text}: not measured"
    return f"{text}: {verdict(aim.least, mine[0])} ({shown(mine[0])})"


def _gpu(gpu: Gpu) -> list[str]:
    if "absent" in gpu:
        return [f"GPU decoder: {gpu['absent']}"]
    lines = [f"GPU decoder: {gpu['decoder']}"]
    for row in gpu["sweep"]:
        rate = f"{row['images_per_second']:.0f} images/s" if "images_per_second" in row else row.get("error", "-")
        lines.append(f"  {row['name']:40}{rate:>20}")
    for pixels in gpu["pixels"]:
        kind = "fancy" if pixels["fancy"] else "plain"
        lines.append(
            f"  against the CPU, {kind} upsampling: {100 * pixels['share_equal']:.2f} % equal, "
            f"mean {pixels['mean_levels']:.3f}, largest {pixels['largest_levels']} levels"
        )
    memory = gpu["memory"]
    return [*lines, f"  memory, second half of {memory['marks'][-1][0]:.0f} s: {memory['growth_bytes'] / 1e6:+.1f} MB"]
