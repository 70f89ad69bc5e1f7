"""`bingo bench profile`: run a training up to the last step of the window, and print what its traces say."""

import argparse
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bingo.bench.keeper import Keeper
from bingo.bench.profile.anatomy import WHOLE, Anatomy, anatomy
from bingo.bench.profile.flags import check_profile
from bingo.bench.profile.trace import read_trace
from bingo.bench.record import Clock, Row
from bingo.bench.samples import median_interval, shown
from bingo.errors import UserError
from bingo.files import PROFILE, make_folder
from bingo.watch import Leaving, Watch

TRACE = re.compile(r"trace-rank(\d+)\.json(\.gz)?")


class Until(Watch):
    """Asks the run to leave once it has done more than `past` steps; signals are heard as ever."""

    def __init__(self, past: int) -> None:
        super().__init__()
        self.past = past
        self.listen()

    def beat(self, step: int) -> None:
        if step > self.past and self.asked is None:
            self.asked = "SIGTERM"


def main(options: argparse.Namespace) -> int:
    """`bingo bench profile`: of a run of this process, or of traces that a run of any number of ranks has left."""
    check_profile(options)
    keeper = Keeper(options.json, "profile")
    if options.of:
        folder, what = options.of / PROFILE, str(options.of)
    else:
        what = " ".join(options.training[:1])
        folder = profiled(options)
    traces = traces_in(folder, options.ranks)
    found = {rank: anatomy(read_trace(path)) for rank, path in traces.items()}
    for rank, path in traces.items():
        print("\n".join([f"rank {rank}: {path}, to open in Perfetto", *table(found[rank], options.top), ""]))
    case = f"{what}, {len(next(iter(found.values())).host[WHOLE])} steps"
    rows = [row for rank, each in found.items() for row in rows_of(each, case, rank)]
    top = {str(rank): each.top[:100] for rank, each in found.items()}
    return keeper.finish(rows, {"traces": {str(rank): str(path) for rank, path in traces.items()}, "top": top})


def profiled(options: argparse.Namespace) -> Path:
    """Run the training up to the end of the window; the folder with its trace."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # before torch is loaded: it says on stderr that there is no GPU
    from bingo.flags import stage_of
    from bingo.stages import run_stage

    run = options.out / "run"
    verb, *flags = options.training
    stage = stage_of(verb, [*flags, "--out", str(run)])
    ranks = ",".join(map(str, options.ranks))
    runtime = replace(stage.config.runtime, profile=f"{options.steps}@{ranks}")
    make_folder(options.out)
    logging.getLogger("bingo.train.profile").setLevel(logging.WARNING)  # its path is not where the trace ends up
    try:
        run_stage(
            replace(stage, config=replace(stage.config, runtime=runtime)),
            watch=Until(int(options.steps.partition(":")[2])),
        )
    except Leaving:
        if not (run / PROFILE).is_dir():  # by a signal, before the window
            raise
    except UserError:
        if not any(options.out.iterdir()):
            options.out.rmdir()
        raise
    for trace in (run / PROFILE).iterdir():
        shutil.move(trace, options.out / trace.name)
    shutil.rmtree(run)
    return Path(options.out)


def traces_in(folder: Path, ranks: Sequence[int] | None = None) -> dict[int, Path]:
    """Rank -> its trace, of some ranks or all; `UserError` where there is none."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    found = {int(name[1]): path for path in paths if (name := TRACE.fullmatch(path.name))}
    if not found:
        raise UserError(f"{folder} holds no trace; add --runtime.profile 10:15 to the run's flags, or give another run")
    if absent := [rank for rank in ranks or () if rank not in found]:
        there = ", ".join(map(str, sorted(found)))
        raise UserError(f"{folder} holds no trace of rank {absent[0]}; set --ranks to some of {there}")
    return {rank: found[rank] for rank in sorted(ranks or found)}


def table(found: Anatomy, top: int) -> Iterator[str]:
    """Milliseconds per step and share of the step, on the host and on a GPU; then the longest operations."""
    steps = len(found.host[WHOLE])
    for where, parts in (("host", found.host), ("GPU", found.gpu)):
        if parts:
            whole = median_interval(parts[WHOLE])["median"] or 1.0
            yield f"{f'{where}, median of {steps} steps':44}{'ms':>10}{'share':>9}   95 % interval, ms"
            for name, values in parts.items():
                middle = median_interval([1e3 * value for value in values])
                share = f"{middle['median'] / whole / 10:.1f} %"
                yield f"  {name:42}{middle['median']:>10.3f}{share:>9}   {shown(middle)}"
    kind = "kernels" if found.gpu else "operations, without those inside them"
    yield f"longest {kind}: ms per step, calls per step"
    for name, seconds, calls in found.top[:top]:
        yield f"  {name[:62]:62}{1e3 * seconds:>10.3f}{calls:>9.1f}"


def rows_of(found: Anatomy, case: str, rank: int) -> Iterator[Row]:
    """A row per part, a sample per step."""
    sides: list[tuple[str, Clock, dict[str, list[float]]]] = [("host", "wall", found.host), ("GPU", "cuda", found.gpu)]
    for where, clock, parts in sides:
        for name, seconds in parts.items():
            yield {
                "case": case, "variant": f"rank {rank}", "metric": f"{where} seconds per step: {name}",
                "better": "lower", "clock": clock, "processes": [seconds],
                "order": "steps of one run, one after the other, under the profiler",
            }  # fmt: skip
