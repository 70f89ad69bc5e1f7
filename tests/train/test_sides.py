"""A number that is not finite is planted in one side of a step; the sentence names that side and the step."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bingo.config import DistillConfig, PretrainConfig
from bingo.config_parts import Augmentation, Contrast, Optimiser, Runtime
from bingo.errors import UserError
from bingo.features.keys import CachedKeys
from bingo.stages import Stage, run_stage
from bingo.train import loop
from bingo.train.sides import weight_norm
from tests.support.cached_keys import keys_config

AT, LAST = 5, 15
"""The step before which something is planted; the run's last one. Lines are flushed at the end."""
Plant = Callable[[Any], None]


def planting(monkeypatch: pytest.MonkeyPatch, plant: Plant, at: int = AT) -> None:
    """Have `plant` change the method before a step."""
    real = loop.make_step

    def make(config: Any, method: Any, optimiser: Any, world: Any) -> Callable[..., Any]:
        step, numbers = real(config, method, optimiser, world), itertools.count()

        def call(*given: Any, **named: Any) -> Any:
            if next(numbers) == at:
                plant(method)
            return step(*given, **named)

        return call

    monkeypatch.setattr(loop, "make_step", make)


def break_weights(network: torch.nn.Module) -> None:
    with torch.no_grad():
        next(network.parameters())[0] = torch.nan


def break_one_key(method: Any) -> None:
    """Of one image, in one step: the queue has forgotten it long before the lines are flushed."""

    def once(network: Any, given: Any, keys: torch.Tensor) -> torch.Tensor:
        handle.remove()
        keys[3, 2] = torch.inf
        return keys

    handle = method.keys_from.register_forward_hook(once, prepend=True)


def break_both(method: Any) -> None:
    break_weights(method.encoder)
    break_weights(method.keys_from)


def break_queue(method: Any) -> None:
    method.queue.keys_KC[int(method.queue.cursor[0]) - 1, 1] = torch.nan  # the last to be written over


SIDES: dict[str, tuple[Plant, str]] = {
    "teacher": (lambda m: break_weights(m.keys_from), "the teacher's keys are not finite"),
    "one key": (break_one_key, "the teacher's keys are not finite"),
    "student": (lambda m: break_weights(m.encoder), "the student's queries are not finite"),
    "both": (break_both, "the student's queries and the teacher's keys are not finite"),
    "queue": (break_queue, "the keys in the queue are not finite"),
}


@pytest.mark.parametrize("side", SIDES)
def test_the_side_is_named_with_the_step(config: DistillConfig, monkeypatch: pytest.MonkeyPatch, side: str) -> None:
    plant, said = SIDES[side]
    planting(monkeypatch, plant)
    large = replace(config, contrast=replace(config.contrast, queue=1000) if side == "queue" else config.contrast)
    with pytest.raises(
        UserError, match=rf"^{said}: the loss is (nan|inf) at step {AT}; .* start again in a new --out$"
    ):
        run_stage(Stage("run", "distill", large))
    assert not (config.out / "model.pt").exists()


@pytest.mark.parametrize("side", ["teacher", "one key", "student"])
def test_a_teacher_whose_lengths_count(config: DistillConfig, monkeypatch: pytest.MonkeyPatch, side: str) -> None:
    plant, said = SIDES[side]
    planting(monkeypatch, plant)
    with pytest.raises(UserError, match=rf"^{said}: the loss is (nan|inf) at step {AT}; "):
        run_stage(Stage("run", "distill", replace(config, objective="coss", bags=None)))


def test_at_the_first_step_nothing_was_learned_yet(config: DistillConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    planting(monkeypatch, lambda method: break_weights(method.encoder), at=0)
    said = "^the student's queries are not finite: the loss is nan at step 0; look at the network and the images"
    with pytest.raises(UserError, match=said):
        run_stage(Stage("run", "distill", config))


def test_weights_that_break_in_the_last_step(config: DistillConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """No loss shows it: the network that would be saved is broken."""

    def gradient(method: Any) -> None:
        weight = next(method.encoder.parameters())
        weight.register_hook(lambda grad: torch.full_like(grad, torch.inf))

    planting(monkeypatch, gradient, at=LAST)
    with pytest.raises(UserError, match=rf"the student's weights are not finite after step {LAST}, whose loss is \d"):
        run_stage(Stage("run", "distill", config))
    assert not (config.out / "model.pt").exists()


def test_cached_keys(config: DistillConfig, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is looked through when it is opened; a disk may fail afterwards."""
    assert config.teacher is not None
    run_stage(Stage("keys", "keys", keys_config(digits, config.teacher, tmp_path / "keys")))
    real = CachedKeys.read

    def broken(cache: CachedKeys, images: np.ndarray, views: np.ndarray) -> torch.Tensor:
        keys = real(cache, images, views)
        keys[1, 0] = torch.nan
        return keys

    planting(monkeypatch, lambda method: monkeypatch.setattr(CachedKeys, "read", broken))
    said = rf"^the cached keys are not finite: the loss is nan at step {AT}; make them again with `bingo keys`"
    with pytest.raises(UserError, match=said):
        run_stage(Stage("run", "distill", replace(config, teacher=None, keys=tmp_path / "keys")))


@pytest.mark.parametrize(
    ("of", "said"),
    [("key_encoder", "the key encoder's keys"), ("encoder", "the student's queries")],
)
def test_pre_training(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str, said: str) -> None:
    planting(monkeypatch, lambda method: break_weights(getattr(method, of)))
    config = PretrainConfig(
        data=digits / "train", out=tmp_path / "run", model="tiny", contrast=Contrast(dim=16, hidden=32, queue=100),
        augment=Augmentation(size=8), optim=Optimiser(epochs=1, batch=64), runtime=Runtime(threads=1),
    )  # fmt: skip
    with pytest.raises(UserError, match=rf"^{said} are not finite: the loss is nan at step {AT}; lower --optim.lr"):
        run_stage(Stage("run", "pretrain", config))


@pytest.mark.parametrize("values", [[3.0, 4.0], [1e30, 1e38], [1.0, float("nan")]])
def test_the_length_of_weights_does_not_overflow(values: Sequence[float]) -> None:
    layer = torch.nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(values[0])
        layer.bias.fill_(values[1])
    expected = torch.tensor([layer.weight.item(), layer.bias.item()], dtype=torch.float64).square().sum().sqrt()
    torch.testing.assert_close(weight_norm(layer), expected, equal_nan=True)
