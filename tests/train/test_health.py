"""A student that collapses or diverges without a NaN is warned of once, with the step; a healthy one never."""

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bingo.config import PretrainConfig
from bingo.config_parts import Augmentation, Contrast, Optimiser, Runtime
from bingo.stages import Stage, run_stage
from bingo.train.health import Health

GUESS, PER_EPOCH, LENGTH = math.log(257), 20, 30.0


def lines(epochs: list[tuple[float, float]], length: float) -> Iterator[dict[str, Any]]:
    """Steps of epochs with this loss each, measured at their ends: spread and length of the weights."""
    for epoch, (loss, spread) in enumerate(epochs):
        for number in range(PER_EPOCH):
            measured = {"spread": spread, "weight_norm": length} if number == PER_EPOCH - 1 else {}
            yield {"kind": "train", "step": epoch * PER_EPOCH + number, "loss": loss, **measured}
        yield {"kind": "eval", "step": (epoch + 1) * PER_EPOCH, "knn": 0.5}


@pytest.mark.parametrize(
    ("epochs", "guess", "length", "said"),
    [
        # the demo's students
        ([(5.18, 0.03), (5.5, 0.011), (5.5, 0.0107), (5.49, 0.02), (5.4, 0.1)], GUESS, 31, ""),
        ([(5.2, 0.0002), (5.5, 0.0002), (5.5, 0.0002)], GUESS, 31, ""),  # two looks may pass
        ([(5.5, 0.0002), (5.5, 0.002), (5.5, 0.0002), (5.5, 0.0002)], GUESS, 31, ""),  # not in a row
        ([(5.5, 0.0002)] * 5, GUESS, 31, "has collapsed, seen at step 59: its queries have been nearly equal since"),
        ([(3.0, 0.0002)] * 5, GUESS, 31, ""),  # equal rows that tell images apart all the same
        ([(3.0, 0.0002)] * 5, None, 31, "has collapsed, seen at step 59: its queries"),  # the queries alone
        ([(7.5, 0.3), (11.0, 0.3), (12.0, 0.3)], GUESS, 31, "diverges, seen at step 44: its loss is 11.3 over 16"),
        ([(8.0, 0.9), (5.0, 0.9), (8.1, 0.9)], GUESS, 31, ""),  # starts high at a low temperature
        ([(2.0, 0.9), (2.9, 0.9)], None, 31, ""),  # an objective without a loss of guessing
        ([(2.0, 0.9), (3.2, 0.9)], None, 31, "over 16 steps, and was 2 at the start"),
        ([(-0.1, 0.9), (-0.9, 0.9), (-0.05, 0.9)], None, 31, ""),  # times of a loss below 0 mean nothing
        ([(5.5, 0.3)], GUESS, 299, ""),
        ([(5.5, 0.3)], GUESS, 310, "diverges, seen at step 19: its weights are 10.3 times as long as at the start"),
    ],
)
def test_what_is_said_of_losses_spreads_and_weights(
    epochs: list[tuple[float, float]], guess: float | None, length: float, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    health = Health(guess, PER_EPOCH, LENGTH)
    for line in lines(epochs, length):  # flushed one by one
        health.look([line])
    assert len(caplog.records) == bool(said), caplog.text
    assert said in caplog.text


@pytest.mark.parametrize(
    ("losses", "filled", "warned"),
    [
        ([1.0] * 30 + [1.8] * 40, 30, False),  # the queue's random directions are easy to tell from a key
        ([1.0] * 30 + [1.8] * 40, 0, True),
        ([1.0] * 30 + [1.8] * 40 + [2.8] * 20, 30, True),
        ([0.06, -0.04] * 8 + [0.03] * 40, 0, False),  # three times of what is noise
        ([0.06, -0.04] * 8 + [0.6] * 40, 0, True),
    ],
)
def test_a_loss_without_a_guess(
    losses: list[float], filled: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    health = Health(None, PER_EPOCH, LENGTH, filled)
    health.look([{"kind": "train", "step": step, "loss": loss} for step, loss in enumerate(losses)])
    assert ("diverges" in caplog.text) is warned


def test_where_epochs_are_long_a_collapse_is_told_within_one(caplog: pytest.LogCaptureFixture) -> None:
    health = Health(GUESS, 5000, LENGTH)
    health.look([
        {"kind": "train", "step": step, "loss": 5.55, **({"spread": 0.0002} if step % 50 == 49 else {})}
        for step in range(2000)
    ])  # fmt: skip
    assert "has collapsed, seen at step 1049: its queries have been nearly equal since step 49" in caplog.text


@pytest.mark.parametrize(("lr", "diverges"), [(0.06, False), (1e3, True)])
def test_a_learning_rate_that_is_far_too_high(
    digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, lr: float, diverges: bool
) -> None:
    """All losses are finite and the run ends: without the warning nothing would show. It comes in the first epoch."""
    config = PretrainConfig(
        data=digits / "train", out=tmp_path / "run", model="tiny", contrast=Contrast(dim=32, hidden=64, queue=256),
        augment=Augmentation(size=8), optim=Optimiser(epochs=1, batch=64, lr=0.06, schedule="step"),
        runtime=Runtime(threads=1),
    )  # fmt: skip
    run_stage(Stage("run", "pretrain", replace(config, optim=replace(config.optim, lr=lr))))
    assert ("the student diverges, seen at step 15: its weights are" in caplog.text) is diverges
    assert sum(record.levelno >= logging.WARNING for record in caplog.records) == diverges, caplog.text
