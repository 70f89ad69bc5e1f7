"""Captured steps are eager steps: whole trainings on buffers that stay, and what becomes of a step that no graph holds.

On a CPU a captured step is the same function called again on the same buffers; `bingo bench gpu` has the graphs.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bingo.config import DistillConfig, PretrainConfig
from bingo.config_parts import Augmentation, Contrast, Optimiser, Runtime
from bingo.distributed import World
from bingo.errors import UserError
from bingo.stages import Stage, run_stage
from bingo.train import graph
from bingo.train.graph import WARM_UP, CallRecorder, CudaRecorder, EagerStep, GraphedStep
from bingo.train.inputs import Buffers, Feed
from bingo.watch import Leaving
from tests.support.buffered_steps import run_on_buffers
from tests.support.cached_keys import keys_config
from tests.support.forked_ranks import checkpoints, run_ranks
from tests.support.short_run import assert_same, weights

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU, 1)


class Steps:
    """Stands for `make_step`: steps on buffers, which leave once after `leave` of them."""

    def __init__(self, leave: int) -> None:
        self.leave = leave
        self.replays = 0

    def __call__(self, config: Any, method: Any, optimiser: Any, world: World) -> Callable[..., Any]:
        step = GraphedStep(EagerStep(method, optimiser, CPU), self._recorder(), world, auto=False)

        def take(*arguments: Any, **options: Any) -> Any:
            self.leave -= 1
            if self.leave == 0:
                world.watch.asked = "SIGTERM"
            return step(*arguments, **options)

        return take

    def _recorder(self) -> CallRecorder:
        steps = self

        class Counted(CallRecorder):
            def replay(self) -> None:
                steps.replays += 1
                super().replay()

        return Counted()


def trained(config: Any, kind: str) -> dict[str, torch.Tensor]:
    run_stage(Stage("run", kind, config))
    return left_by(config.out)


def left_by(out: Path) -> dict[str, torch.Tensor]:
    """The weights and the queue of a run that has ended."""
    state = torch.load(checkpoints(out)[-1], weights_only=True)
    return weights(out) | {f"queue {name}": torch.as_tensor(value) for name, value in state["queue"].items()}


def assert_equal_trainings(config: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager without a stop, against steps on buffers that were stopped in the middle of an epoch and went on."""
    expected = trained(replace(config, out=tmp_path / "eager"), kind)
    steps = Steps(leave=7)
    monkeypatch.setattr("bingo.train.loop.make_step", steps)
    other = replace(config, out=tmp_path / "buffers")
    with pytest.raises(Leaving):
        run_stage(Stage("run", kind, other))
    assert not (other.out / "model.pt").exists()
    assert_same(trained(other, kind), expected)
    assert steps.replays >= 5


@pytest.fixture
def short(config: DistillConfig) -> DistillConfig:
    """Two epochs, the second after the warm ones; some steps are measured."""
    optim = replace(config.optim, epochs=2, batch=128, schedule="step")
    return replace(config, optim=optim, warm_epochs=1, runtime=Runtime(threads=1, log_every=6))


@pytest.mark.parametrize("change", ["release", "paper"])
def test_a_training_with_a_live_teacher_is_the_same(
    short: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    config = replace(short, contrast=replace(short.contrast, negatives="strangers"), cutmix_block=32)
    if change == "paper":
        config = replace(short, objective="paper", key_view="same")
    assert_equal_trainings(config, "distill", tmp_path, monkeypatch)


@pytest.mark.parametrize("negatives", ["queue", "cache"])
def test_a_training_with_cached_keys_is_the_same(
    short: DistillConfig, digits: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, negatives: str
) -> None:
    run_stage(Stage("keys", "keys", keys_config(digits, teacher, tmp_path / "keys")))
    config = replace(short, teacher=None, keys=tmp_path / "keys", cached_negatives=negatives)  # type: ignore[arg-type]
    assert_equal_trainings(config, "distill", tmp_path, monkeypatch)


def test_a_pretraining_is_the_same(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = PretrainConfig(
        data=digits / "train", out=tmp_path, model="tiny", contrast=Contrast(dim=16, hidden=32, queue=100),
        augment=Augmentation(size=16), optim=Optimiser(epochs=2, batch=128), runtime=Runtime(threads=1),
    )  # fmt: skip
    assert_equal_trainings(config, "pretrain", tmp_path, monkeypatch)


@pytest.mark.parametrize("kind", ["distill", "pretrain"])
def test_two_ranks_are_the_same(short: DistillConfig, digits: Path, tmp_path: Path, kind: str) -> None:
    """Keys gathered, gradients averaged and the queue written outside of what is held: no bit differs."""
    config: Any = replace(short, optim=replace(short.optim, epochs=1))
    if kind == "pretrain":
        config = PretrainConfig(
            data=config.data, out=tmp_path, model="tiny", contrast=config.contrast, augment=config.augment,
            optim=config.optim, runtime=config.runtime,
        )  # fmt: skip
    found = []
    for name, run in (("eager", run_stage), ("buffers", run_on_buffers)):
        stage = Stage("run", kind, replace(config, out=tmp_path / name))
        run_ranks(stage, 2, tmp_path / "logs" / name, run)
        found.append(left_by(stage.out))
    assert_same(*found)


class Toy:
    """A method whose inputs are rows; it stands for a network without images."""

    averages_statistics = False
    uncaptured = ""
    gather = staticmethod(ALONE.gather_rows)

    def __init__(self, dropout: float = 0.0) -> None:
        torch.manual_seed(0)
        self.encoder = self.model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(dropout), nn.Linear(4, 1))
        self.feed = Feed(Augmentation(), torch.float32, CPU)

    def modules(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder}

    def prepare(self, shares: Any, feed: Feed) -> list[Any]:
        return [feed.tensor("rows", share.rows) for share in shares]

    def losses_of(self, shares: Any, *, measure: bool = False) -> Iterator[Any]:
        return ((self.model(rows).square().mean(), None) for rows in shares)

    def losses(self, shares: Any, *, measure: bool = False) -> Iterator[Any]:
        return self.losses_of(self.prepare(shares, self.feed), measure=measure)

    def after_step(self) -> None:
        pass


class Failing(CallRecorder):
    """As a driver that refuses to hold the step."""

    def capture(self, work: Callable[[], None]) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


class Timed(CallRecorder):
    """A step that takes as long as it is told; counts captures."""

    def __init__(self, host: float = 1.0, device: float = 1.0) -> None:
        super().__init__()
        self.host, self.device, self.captures = host, device, 0

    def host_seconds(self, work: Callable[[], None]) -> float:
        work()
        return self.host

    def device_seconds(self, work: Callable[[], None], ahead: float) -> float:
        assert ahead == 2 * self.host
        work()
        return self.device

    def capture(self, work: Callable[[], None]) -> None:
        self.captures += 1
        super().capture(work)


def toy_steps(
    count: int, recorder: CallRecorder | None, *, dropout: float = 0.0, auto: bool = False
) -> tuple[list[torch.Tensor], Any]:
    """Losses and weights after `count` steps; without a recorder eager ones."""
    method = Toy(dropout)
    optimiser = torch.optim.SGD(method.model.parameters(), lr=1.0, momentum=0.9)
    eager = EagerStep(method, optimiser, CPU)  # type: ignore[arg-type]
    step = eager if recorder is None else GraphedStep(eager, recorder, ALONE, auto=auto)
    draw = torch.Generator().manual_seed(3)
    losses = []
    for number in range(count):
        share: Any = SimpleNamespace(rows=torch.randn(8, 4, generator=draw), plan=SimpleNamespace(rank=0))
        losses.append(step([share], 0.1 / (1 + number), number, measure=number == 4)[0])
    return [*losses, *method.model.parameters()], step


def assert_equal(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_steps_that_are_held_are_eager_ones() -> None:
    recorder = Timed()
    found, _ = toy_steps(9, recorder)
    assert_equal(found, toy_steps(9, None)[0])
    assert recorder.captures == 1


def test_a_network_that_draws_random_numbers_runs_eagerly(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Timed()
    found, step = toy_steps(6, recorder, dropout=0.5)
    assert_equal(found, toy_steps(6, None, dropout=0.5)[0])
    assert (recorder.captures, step.given_up) == (0, True)
    assert caplog.text.count("the network draws random numbers (dropout)") == 1


def test_a_step_that_cannot_be_captured_runs_eagerly(caplog: pytest.LogCaptureFixture) -> None:
    found, _ = toy_steps(8, Failing())
    assert_equal(found, toy_steps(8, None)[0])
    assert caplog.text.count("is no CUDA graph: operation not permitted when stream is capturing; steps run") == 1


@pytest.mark.parametrize(("host", "device", "captures"), [(9e-3, 5e-3, 1), (5e-3, 5e-3, 0), (5e-3, 9e-3, 0)])
def test_auto_captures_where_launches_take_longer(
    caplog: pytest.LogCaptureFixture, host: float, device: float, captures: int
) -> None:
    recorder = Timed(host, device)
    with caplog.at_level(logging.INFO):
        found, _ = toy_steps(8, recorder, auto=True)
    assert recorder.captures == captures
    assert f"{1000 * host:.1f} ms to launch a step, {1000 * device:.1f} ms on the device" in caplog.text
    assert_equal(found, toy_steps(8, None)[0])


def test_weights_that_have_moved_are_captured_again() -> None:
    recorder = Timed()
    _, step = toy_steps(WARM_UP + 1, recorder)
    layer = step.method.encoder[0]
    layer.weight.data = layer.weight.data.clone()
    share: Any = SimpleNamespace(rows=torch.ones(8, 4), plan=SimpleNamespace(rank=0))
    for _ in range(2):
        step([share], 0.1, 0, measure=False)
    assert recorder.captures == 2


def test_buffers_stay_where_they_are_and_keep_their_shape() -> None:
    buffers = Buffers(Augmentation(), torch.float32, CPU)
    first = buffers.tensor("x", torch.zeros(3))
    assert buffers.tensor("x", torch.ones(3)) is first
    assert first.tolist() == [1, 1, 1]
    with pytest.raises(RuntimeError, match=r"x of a step is \(1,\) torch.float32, not \(3,\)"):
        buffers.tensor("x", torch.ones(1))


def test_a_warm_up_is_ordered_between_what_comes_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for streams that notes who waits for whom."""
    said: list[str] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: "Stream") -> None:
            said.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        said.append(f"on {stream.name}")
        yield

    main = Stream("main")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: main)
    monkeypatch.setattr(torch.cuda, "stream", on)
    CudaRecorder(CPU).warm(lambda: said.append("work"))
    assert said == ["side waits for main", "on side", "work", "main waits for side"]


@pytest.mark.parametrize(
    ("device", "size", "uncaptured", "why"),
    [
        ("cpu", 1, "", "it needs a GPU"),
        ("cuda", 1, "--teacher-bn batch shuffles images as the host says", "--teacher-bn batch shuffles"),
    ],
)
def test_a_graph_that_cannot_be_is_refused(device: str, size: int, uncaptured: str, why: str) -> None:
    method: Any = SimpleNamespace(uncaptured=uncaptured)
    world = World(0, size, torch.device(device), 1)
    config: Any = SimpleNamespace(runtime=Runtime(graph="yes"))
    with pytest.raises(UserError, match=f"runtime.graph=yes cannot be here: {why}.*; leave --runtime.graph out"):
        graph.check_graph(config, method, world)
    optimiser = torch.optim.SGD(Toy().model.parameters())
    for choice in ("auto", "no"):
        config.runtime = Runtime(graph=choice)  # type: ignore[arg-type]
        assert isinstance(graph.make_step(config, method, optimiser, world), EagerStep)
