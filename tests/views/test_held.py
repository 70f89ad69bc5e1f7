"""DALI's GPU buffers are used again only behind the copies that read them: a stand-in device that is always late."""

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from bingo.bench.gpu.checks import Setting, perform
from bingo.bench.gpu.loader_checks import behind_work
from bingo.config_parts import Loader
from bingo.views import held, loader
from bingo.views.decode_failures import Failures
from bingo.views.held import MOST, Held
from bingo.views.loader import CropStream, Sent

GPU = torch.device("cuda", 0)
COUNT = 7


class Device:
    """A stream that does nothing until it is waited for, and a log of what was asked of it, in order."""

    def __init__(self) -> None:
        self.queue = deque[Callable[[], None]]()
        self.log: list[str] = []
        self.done = self.marks = 0

    def event(self, _: torch.device) -> "Event":
        self.marks += 1
        self.log.append(f"mark {self.marks}")
        self.queue.append(self._pass)
        return Event(self, self.marks)

    def _pass(self) -> None:
        self.done += 1

    def run_until(self, mark: int) -> None:
        while self.done < mark:
            self.queue.popleft()()


class Event:
    def __init__(self, device: Device, number: int) -> None:
        self.device, self.number = device, number

    def query(self) -> bool:
        return self.device.done >= self.number

    def synchronize(self) -> None:
        self.device.log.append(f"wait {self.number}")
        self.device.run_until(self.number)


class Output:
    """A DALI output: its buffer is overwritten as soon as nobody refers to it."""

    def __init__(self, device: Device, value: int) -> None:
        self.device, self.buffer = device, [value]
        weakref.finalize(self, self._reuse, self.buffer)

    @staticmethod
    def _reuse(buffer: list[int]) -> None:
        buffer[0] = -1

    def clone(self) -> list[int]:
        """What is filled in when the device comes to it."""
        copy: list[int] = []
        buffer, log = self.buffer, self.device.log
        log.append(f"copy {buffer[0]}")
        self.device.queue.append(lambda: copy.append(buffer[0]))
        return copy


class Pipeline:
    """Stands for DALI's: it keeps its newest output only, as DALI's does."""

    def __init__(self, device: Device) -> None:
        self.device, self.runs = device, 0

    def run(self) -> tuple[Output, ...]:
        self.runs += 1
        self.device.log.append(f"run {self.runs}")
        return (Output(self.device, self.runs),)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    found = Device()
    monkeypatch.setattr(held, "view", lambda output, _: output)
    monkeypatch.setattr(loader, "Held", lambda where: Held(where, found.event))
    return found


class NoImages:
    """All that a stream asks of a dataset before DALI does."""

    sizes = np.ones((1, 2), np.int32)
    path = "nowhere"

    def __len__(self) -> int:
        return 1


def stream(device: Device, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    sent = deque(Sent([], []) for _ in range(COUNT))
    monkeypatch.setattr(CropStream, "_start", lambda *_: (Pipeline(device), sent))
    data: Any = NoImages()
    crops = CropStream(
        data, lambda _: [], COUNT, [[8]], Failures(data), batch=1, device=GPU, threads=1, settings=Loader()
    )
    return iter(crops)


def test_a_late_device_reads_what_it_was_given(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = list(stream(device, monkeypatch))
    assert [copy for (copy,) in batches] == [[number] for number in range(1, COUNT + 1)]
    assert not device.queue, "at the end all is done"


def test_the_order_of_calls(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy, event, and no wait before as many batches are held as may be; then for the oldest alone."""
    list(stream(device, monkeypatch))
    expected = [f"{word} {n}" for n in range(1, MOST + 1) for word in ("run", "copy", "mark")]
    for n in range(MOST + 1, COUNT + 1):
        expected += [f"run {n}", f"copy {n}", f"mark {n}", f"wait {n - MOST}"]
    assert device.log == expected + [f"wait {n}" for n in range(COUNT + 1 - MOST, COUNT + 1)]


def test_a_quick_device_is_never_waited_for(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, _ in enumerate(stream(device, monkeypatch), 1):
        device.run_until(number)
        assert not [entry for entry in device.log if entry.startswith("wait")]


def test_a_reader_that_stops_leaves_nothing_behind(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: Any = stream(device, monkeypatch)
    taken = [next(batches), next(batches)]
    assert taken == [[[]], [[]]], "nothing has run yet"
    batches.close()
    assert taken == [[[1]], [[2]]]


def test_without_holding_the_stand_in_loses_what_it_copies(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The danger is real in the stand-in, so the tests above can fail."""

    class Loose(Held):
        def _let_go(self, most: int) -> None:
            self._held.clear()

    monkeypatch.setattr(loader, "Held", lambda where: Loose(where, device.event))
    batches = list(stream(device, monkeypatch))
    device.run_until(COUNT)
    assert [copy for (copy,) in batches] == [[-1]] * COUNT


def test_the_check_on_a_gpu_is_skipped_without_one() -> None:
    found = perform("loader", "crops", lambda: behind_work(Setting(torch.device("cpu"), "", torch.float32, True), 2.0))
    assert (found["status"], found["note"]) == ("skipped", "needs a CUDA device")
