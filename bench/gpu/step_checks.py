"""Whole training steps as CUDA graphs, and the copies that checkpoints are written from, while training goes on."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from bingo.bench.gpu.checks import Outcome, Setting, T, allowed
from bingo.bench.gpu.runtime_checks import SLEEP_CYCLES, toy_shape
from bingo.bench.step import main as bench_step
from bingo.bench.step.variants import Changes
from bingo.distributed import World
from bingo.train.background import on_cpu, snapshot
from bingo.train.distill import Distillation
from bingo.train.graph import CallRecorder, CudaRecorder, EagerStep, GraphedStep
from bingo.views.loader import Batch
from bingo.views.plan import Plan

QUICK_STEPS, STEPS = 6, 20
MEASURED = 4
"""A step among the replays that is eager, as all measured ones are."""


class Trainer:
    """A method with an optimiser as `bingo.train.loop` makes it, and the batches that it goes through in turn."""

    def __init__(self, s: Setting, changes: Changes, data: tuple[Plan, list[Batch]], *, graphed: bool) -> None:
        plan, batches = data
        runner = bench_step.build("ours", changes, toy_shape(s), batches, plan)
        assert isinstance(runner.method, Distillation)
        self.method, self.batches = runner.method, runner.batches
        gpu = s.device.type == "cuda"
        self.optimiser = torch.optim.SGD(
            self.method.model.parameters(), lr=1.0, momentum=0.9, weight_decay=1e-4, fused=gpu or None
        )
        step: Any = EagerStep(self.method, self.optimiser, s.device)
        if graphed:
            step = GraphedStep(
                step, CudaRecorder(s.device) if gpu else CallRecorder(), World(0, 1, s.device, 1), auto=False
            )
        self.step, self.taken = step, 0

    def take(self) -> Tensor:
        """The loss of one more step, each with its own batch and learning rate."""
        batch, number = self.batches[self.taken % len(self.batches)], self.taken
        self.taken += 1
        return self.step([batch], 0.03 / (1 + number), number, measure=number == MEASURED)[0]

    def state(self) -> dict[str, Any]:
        """All that a step changes."""
        return {
            "network": self.method.encoder.state_dict(),
            "optimiser": [part["momentum_buffer"] for part in self.optimiser.state.values()],
            "queue": [self.method.queue.keys_KC, self.method.queue.ids_K],
            "cursor": self.method.queue.cursor,
        }


def make_data(s: Setting) -> tuple[Plan, list[Batch]]:
    """A plan and batches with other crops each: those of the bench share theirs."""
    shape = toy_shape(s)
    plan, batches = bench_step.make_batches(shape, bench_step.make_config(shape, Changes()))
    return plan, [
        Batch(batch.plan, [[(crop + 37 * number).contiguous() for crop in group] for group in batch.crops])
        for number, batch in enumerate(batches)
    ]


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """cuDNN's convolutions give equal bits for equal inputs."""
    old, torch.backends.cudnn.deterministic = torch.backends.cudnn.deterministic, True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = old


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors of nested dicts and lists, in their order."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [tensor for part in parts for tensor in tensors_of(part)]


def differing(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The parts of two states that are not equal to the last bit."""
    pairs = {name: zip(tensors_of(found[name]), tensors_of(expected[name]), strict=True) for name in expected}
    return [name for name, tensors in pairs.items() if not all(torch.equal(a, b) for a, b in tensors)]


def graphed_steps(s: Setting, changes: Changes) -> Outcome:
    """Captured steps on changing batches and rates, a measured one among them, equal eager steps bit for bit."""
    with repeatable(), allowed(s, toy_shape(s).queue, toy_shape(s).dim, T):
        data = make_data(s)
        eager, graphed = (Trainer(s, changes, data, graphed=graphed) for graphed in (False, True))
        losses = [(graphed.take(), eager.take()) for _ in range(QUICK_STEPS if s.quick else STEPS)]
        wrong = [f"loss of step {number}" for number, (a, b) in enumerate(losses) if not torch.equal(a, b)]
        wrong += differing(graphed.state(), eager.state())
    assert not graphed.step.given_up, "the graph was given up: the log says why"
    assert graphed.step.held is not None, "no step was captured"
    return Outcome(len(wrong), 0, f"differ from eager: {', '.join(wrong)}" if wrong else "bitwise equal to eager")


def snapshot_while_training(s: Setting, changes: Changes) -> Outcome:
    """A copy that is fetched after later steps equals one that was waited for, on a device that is behind."""
    with allowed(s, toy_shape(s).queue, toy_shape(s).dim, T):
        trainer = Trainer(s, changes, make_data(s), graphed=True)
        for _ in range(3):
            trainer.take()
        expected = on_cpu(trainer.state())
        if s.device.type == "cuda":
            torch.cuda._sleep(SLEEP_CYCLES)  # the copy is asked for now and made later
        fetch: Callable[[], Any] = snapshot(trainer.state(), s.device)
        for _ in range(2):
            trainer.take()
        wrong = differing(fetch(), expected)
    assert differing(on_cpu(trainer.state()), expected), "the steps after the copy changed nothing"
    return Outcome(len(wrong), 0, f"differ: {', '.join(wrong)}" if wrong else "bitwise equal to a synchronous copy")
