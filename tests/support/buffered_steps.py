"""Trainings whose steps are taken on buffers that stay, as a CUDA graph's are, on a CPU."""

from typing import Any

import torch

from bingo.distributed import World
from bingo.stages import Stage, run_stage
from bingo.train import loop
from bingo.train.graph import CallRecorder, EagerStep, GraphedStep


def run_on_buffers(stage: Stage) -> None:
    """A stage in this process, which is a rank and does nothing else; its later steps must be replays."""
    made: list[GraphedStep] = []

    def on_buffers(config: Any, method: Any, optimiser: torch.optim.Optimizer, world: World) -> GraphedStep:
        made.append(GraphedStep(EagerStep(method, optimiser, world.device), CallRecorder(), world, auto=False))
        return made[-1]

    loop.make_step = on_buffers
    run_stage(stage)
    assert [step.held is not None and not step.given_up for step in made] == [True]
