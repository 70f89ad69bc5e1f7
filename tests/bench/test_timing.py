"""Timing on a make-believe device: what a CUDA graph holds, and when calls are timed without one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bingo.bench.timing import (
    CudaTimer,
    Timed,
    interleave,
)


class FakeGraph:
    """Remembers what is called between its beginning and its end, and calls it again on replay, in place."""

    active: "FakeGraph | None" = None

    def __init__(self) -> None:
        self.work: list[Callable[[], Any]] = []

    def replay(self) -> None:
        for work in self.work:
            work()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> CudaTimer:
    """`CudaTimer` on a make-believe device: its logic runs, nothing is measured."""
    import contextlib
    from types import SimpleNamespace
    from unittest.mock import MagicMock

    @contextlib.contextmanager
    def capturing(graph: FakeGraph, stream: Any) -> Any:
        FakeGraph.active = graph
        try:
            yield
        finally:
            FakeGraph.active = None

    event = MagicMock(
        side_effect=lambda enable_timing: SimpleNamespace(record=MagicMock(), elapsed_time=lambda end: 0.1)
    )
    fakes = {"Event": event, "Stream": MagicMock(), "current_stream": MagicMock(), "synchronize": MagicMock()}
    fakes |= {"stream": lambda stream: contextlib.nullcontext(), "set_stream": MagicMock(), "CUDAGraph": FakeGraph}
    fakes |= {"graph": capturing, "get_device_properties": lambda device: SimpleNamespace(L2_cache_size=5)}
    fakes |= {"memory_allocated": lambda device: 100, "max_memory_allocated": lambda device: 350}
    fakes |= {"reset_peak_memory_stats": MagicMock(), "default_generators": [MagicMock()]}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr("bingo.bench.timing.torch.Generator", MagicMock())
    return CudaTimer("cuda:0")


def captured_call(log: list[int], replays: bool = True) -> Callable[[int], tuple[Tensor]]:
    """A call that notes its queue and, when captured, leaves work in the graph that writes its answer."""

    def call(i: int) -> tuple[Tensor]:
        log.append(i)
        answer = torch.full((3,), float(i))
        if FakeGraph.active and replays:
            FakeGraph.active.work.append(lambda: answer.fill_(i))
        return (answer,)

    return call


def test_graphs_hold_whole_passes_over_the_queues(cuda: CudaTimer) -> None:
    log: list[int] = []
    timed = cuda.prepare(captured_call(log), 3)
    assert (timed.method, timed.calls, timed.note) == ("CUDA graph", 24, "")
    assert timed.samples(2) == [pytest.approx(1e-4 / 24)] * 2
    assert [log.count(i) for i in (1, 2)] == [9, 9], "one each in the capture's warm-up and in the check"
    assert cuda.l2_bytes == 5
    assert cuda.extra_bytes(captured_call(log)) == 250
    assert len(cuda.host_seconds(captured_call(log), 3)) == 7


def test_a_graph_that_does_not_write_is_not_timed(cuda: CudaTimer) -> None:
    timed = cuda.prepare(captured_call([], replays=False), 3)
    assert timed.method == "events"
    assert timed.note == "graph capture failed: a replay gives another answer than an eager call"
    torch.cuda.default_generators[0].graphsafe_set_state.assert_called_once()  # type: ignore[attr-defined]


def test_calls_without_a_graph(cuda: CudaTimer, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[int] = []
    timed = cuda.prepare(captured_call(log), 3, "it waits for the device inside")
    log.clear()
    assert (timed.method, timed.calls, timed.note) == ("events", 3, "it waits for the device inside")
    assert len(timed.samples(2)) == 2
    assert log == [0, 1, 2, 0, 1, 2]

    def refuse(i: int) -> tuple[Tensor]:
        if FakeGraph.active:
            raise RuntimeError("operation not permitted when stream is capturing")
        return (torch.ones(1),)

    assert "not permitted" in cuda.prepare(refuse, 3).note
    monkeypatch.setattr("bingo.bench.timing.LONG_CALL", 1e-5)
    assert cuda.prepare(captured_call(log), 3).note.startswith("over ")


def test_slow_variants_get_fewer_samples() -> None:
    def timed(seconds: float) -> Timed:
        return Timed("wall clock", 2, lambda count: [seconds] * count)

    samples = interleave({"fast": timed(1e-4), "slow": timed(1.0)}, rounds=3, most=5, visit_seconds=0.01)
    assert (len(samples["fast"]), len(samples["slow"])) == (30, 6)
