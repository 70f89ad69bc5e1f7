"""The anatomy of a step, from made-up traces whose every figure is known."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from bingo.bench.profile.anatomy import EXPOSED, GAPS, OTHER, WHOLE, anatomy
from bingo.bench.profile.trace import Event, clipped, outside, read_trace, self_times, union
from bingo.errors import UserError

MAIN, OWN = 1, 2
"""Threads: the training's and autograd's."""


def spans(*found: tuple[str, float, float]) -> list[Event]:
    """Ranges of the training by name, start, end."""
    return [Event(f"bingo: {name}", "user_annotation", start, end, MAIN, -1) for name, start, end in found]


def operation(name: str, start: float, end: float, thread: int = MAIN) -> Event:
    return Event(name, "cpu_op", start, end, thread, -1)


def kernel(name: str, launch: float, start: float, end: float, number: int, thread: int = MAIN) -> list[Event]:
    return [
        Event("cudaLaunchKernel", "cuda_runtime", launch, launch + 1, thread, number),
        Event(name, "kernel", start, end, "stream 7", number),
    ]


def ordered(*events: Event) -> list[Event]:
    return sorted(events, key=lambda event: (event.start, -event.end))


STEP = spans(
    ("step 3", 0, 1000), ("data wait", 0, 100), ("augment", 100, 150), ("teacher", 150, 300), ("loss", 300, 600),
    ("student forward", 320, 520), ("backward", 600, 900), ("optimiser", 900, 950),
)  # fmt: skip


def micro(found: dict[str, list[float]]) -> dict[str, list[int]]:
    """What is not zero, in microseconds."""
    return {name: [round(1e6 * value) for value in values] for name, values in found.items() if any(values)}


def test_on_a_cpu_parts_do_not_hold_each_other() -> None:
    work = [operation("aten::mm", 330, 500), operation("aten::addmm", 150, 300), operation("aten::mm", 160, 200)]
    wait = [operation("gloo:all_reduce", 480, 560, OWN)]  # 20 of it beside a product, 60 alone
    asked = [operation("gloo:all_reduce", 960, 990, OWN)]  # in the background: nobody waits for it here
    found = anatomy(ordered(*STEP, *work, *wait, *asked))
    assert micro(found.host) == {
        "data wait": [100], "augment": [50], "teacher": [150], "student forward": [200], "loss": [100],
        "backward": [300], "optimiser": [50], OTHER: [50], EXPOSED: [60], WHOLE: [1000],
    }  # fmt: skip
    assert found.gpu == {}
    top = [(name, round(1e6 * seconds), calls) for name, seconds, calls in found.top]
    assert top == [("aten::mm", 210, 2), ("aten::addmm", 110, 1), ("gloo:all_reduce", 110, 2)]


def test_on_a_gpu_kernels_belong_to_the_part_that_launched_them() -> None:
    events = [
        *kernel("conv", 160, 200, 700, 1),
        *kernel("conv", 330, 700, 900, 2),
        *kernel("wgrad", 650, 950, 1200, 3, thread=OWN),
        *kernel("ncclAllReduce", 880, 1100, 1500, 4),
        *kernel("later", 5000, 5100, 5200, 5),
    ]
    found = anatomy(ordered(*STEP, *events))
    assert micro(found.gpu) == {
        "teacher": [500], "student forward": [200], "backward": [250], EXPOSED: [300], GAPS: [50], WHOLE: [1300],
    }  # fmt: skip
    assert EXPOSED not in found.host
    assert [name for name, *_ in found.top] == ["conv", "ncclAllReduce", "wgrad", "later"]


def test_a_value_for_each_step() -> None:
    second = spans(("step 4", 1000, 1400), ("backward", 1100, 1200))
    found = anatomy(ordered(*STEP, *second))
    assert micro(found.host)["backward"] == [300, 100]
    assert micro(found.host)[WHOLE] == [1000, 400]


def test_intervals() -> None:
    assert union([(5, 6), (0, 2), (1, 3), (3, 4)]) == [(0, 4), (5, 6)]
    assert outside([(0, 4), (3, 8)], [(2, 5), (7, 9)]) == 4
    assert clipped([(0, 4), (6, 8)], [(1, 2), (3, 7)]) == [(1, 2), (3, 4), (6, 7)]
    nested = ordered(operation("a", 0, 10), operation("b", 1, 4), operation("c", 2, 3), operation("d", 5, 6))
    assert [own for _, own in self_times(nested)] == [6, 2, 1, 1]


def test_a_trace_without_a_step_is_refused() -> None:
    with pytest.raises(UserError, match="holds no step of a training"):
        anatomy([operation("aten::mm", 0, 1)])


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"traceEvents": [{"ph": "X", "dur": 1}]}', b'{"traceEvents": 3}']
)
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    plain, packed = tmp_path / "trace-rank0.json", tmp_path / "trace-rank0.json.gz"
    plain.write_bytes(content)
    packed.write_bytes(gzip.compress(content)[:-3])
    for path in (plain, packed):
        with pytest.raises(UserError, match=r"is damaged, or no trace of torch\.profiler; profile again"):
            read_trace(path)
    with pytest.raises(UserError, match=r"cannot read .*: No such file"):
        read_trace(tmp_path / "absent.json")


def test_a_trace_is_read_in_order(tmp_path: Path) -> None:
    def event(name: str, ts: float, dur: float, **more: Any) -> dict[str, Any]:
        return {"ph": "X", "cat": "kernel", "name": name, "ts": ts, "dur": dur, "tid": 7, **more}

    events = [event("b", 5, 1, args={"correlation": 9}), {"ph": "M", "name": "process_name"}, event("a", 1, 2)]
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": events}))
    assert read_trace(path) == [Event("a", "kernel", 1, 3, 7, -1), Event("b", "kernel", 5, 6, 7, 9)]
