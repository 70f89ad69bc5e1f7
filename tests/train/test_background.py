"""Work beside the training: one piece at a time, errors told at the next call, copies that nobody changes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from bingo.errors import TransientError
from bingo.train.background import Background, on_cpu, snapshot


def fails() -> None:
    raise TransientError("the disk is full")


def test_pieces_run_one_after_the_other_beside_the_caller() -> None:
    found: list[int] = []
    gate = threading.Event()

    def work(number: int) -> None:
        assert threading.current_thread() is not threading.main_thread()
        gate.wait(60)
        found.append(number)

    with Background() as background:
        background.start(work, 1)
        background.look()
        assert found == [], "nobody has waited"
        gate.set()
        background.start(work, 2)
        assert 1 in found
    assert found == [1, 2]


@pytest.mark.parametrize("then", [Background.wait, lambda background: background.start(print), lambda _: None])
def test_an_error_is_raised_at_the_next_call(then: Callable[[Background], None]) -> None:
    """The end of the context is one, too."""

    def use() -> None:
        with Background() as background:
            background.start(fails)
            then(background)

    with pytest.raises(TransientError, match="the disk is full"):
        use()


def test_a_look_raises_once_the_work_has_ended() -> None:
    background = Background()
    background.start(fails)
    background._pool.shutdown()
    with pytest.raises(TransientError):
        background.look()
    background.look()


def test_another_error_waits_for_the_work_and_wins() -> None:
    found: list[int] = []
    gate = threading.Event()

    def work() -> None:
        gate.wait(60)
        found.append(1)
        raise TransientError("the disk is full")

    def use() -> None:
        with Background() as background:
            background.start(work)
            gate.set()
            raise KeyError("x")

    with pytest.raises(KeyError):
        use()
    assert found == [1]


def test_copies_are_apart_and_the_same_bit_for_bit() -> None:
    layer = torch.nn.BatchNorm1d(3)
    image = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    state = {"net": layer.state_dict(), "list": [image, 1], "pair": (torch.tensor(float("nan")), "x"), "step": 7}
    copied = on_cpu(state)
    with torch.no_grad():
        layer.weight.fill_(9)
        image.zero_()
    assert copied["net"]["weight"].tolist() == [1, 1, 1]
    assert copied["list"][0].is_contiguous(memory_format=torch.channels_last)
    assert float(copied["list"][0].sum()) > 0
    assert isinstance(copied["net"], OrderedDict)
    assert copied["net"]._metadata == state["net"]._metadata
    assert (copied["step"], copied["pair"][1], type(copied["pair"])) == (7, "x", tuple)
    assert copied["pair"][0].isnan()


def test_a_snapshot_is_of_now_and_apart() -> None:
    state = {"x": torch.zeros(3), "step": 1}
    fetch = snapshot(state, torch.device("cpu"))
    state["x"] += 1  # type: ignore[operator]
    state["step"] = 2
    assert (fetch()["x"].tolist(), fetch()["step"]) == ([0, 0, 0], 1)


def test_a_gpus_snapshot_waits_for_its_copy_when_it_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for events and streams note what is called in which order; tensors are the CPU's."""
    said: list[str] = []

    class Event:
        def record(self) -> None:
            said.append("event behind the copy")

    class Stream:
        def __init__(self, device: torch.device) -> None:
            pass

        def wait_event(self, event: Event) -> None:
            said.append("side waits for it")

        def synchronize(self) -> None:
            said.append("host waits for side")

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        said.append("on side")
        yield
        said.append("off side")

    def pinned(tensor: torch.Tensor) -> torch.Tensor:
        said.append("to the host")
        return tensor

    for name, stand_in in (("Event", Event), ("Stream", Stream), ("stream", on)):
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr("bingo.train.background._pinned", pinned)
    weights = torch.zeros(3)
    fetch = snapshot({"x": weights}, torch.device("cuda"))
    assert said == ["event behind the copy"]
    weights += 1
    assert fetch()["x"].tolist() == [0, 0, 0]
    assert said[1:] == ["on side", "side waits for it", "to the host", "off side", "host waits for side"]


def test_a_gpu_without_room_for_a_copy_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensor: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    weights = torch.zeros(3)
    monkeypatch.setattr(torch.Tensor, "clone", full)
    fetch = snapshot({"x": weights}, torch.device("cuda"))
    weights += 1
    assert fetch()["x"].tolist() == [0, 0, 0]
