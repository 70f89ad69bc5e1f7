"""A student that collapses or diverges without a NaN is warned of once; a healthy one never."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from bingo.config import PretrainConfig
from bingo.config_parts import Augmentation, Contrast, Optimiser, Runtime
from bingo.stages import Stage, run_stage
from bingo.train.health import Health

GUESS = math.log(257)


@pytest.mark.parametrize(
    ("epochs", "said"),
    [
        ([(5.18, 0.03), (5.5, 0.011), (5.5, 0.0107), (5.49, 0.02), (5.4, 0.1)], ""),  # the demo's students
        ([(5.2, 0.0002), (5.5, 0.0002), (5.5, 0.0002)], ""),  # two epochs may pass
        ([(5.5, 0.0002), (5.5, 0.002), (5.5, 0.0002), (5.5, 0.0002)], ""),  # not in a row
        ([(5.5, 0.0002)] * 5, "has collapsed, seen after epoch 3: its queries"),
        ([(3.0, 0.0002)] * 5, ""),  # equal rows that tell images apart all the same
        ([(7.5, 0.3), (11.0, 0.3), (12.0, 0.3)], "diverges, seen after epoch 3: its loss is 12, and 5.55 is"),
        ([(8.0, 0.9), (5.0, 0.9), (8.1, 0.9)], ""),  # starts high at a low temperature
    ],
)
def test_what_is_said_of_losses_and_spreads(
    epochs: list[tuple[float, float]], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    health = Health(GUESS)
    for epoch, (loss, spread) in enumerate(epochs):
        health.look(epoch, loss, spread)
    assert len(caplog.records) == bool(said)
    assert said in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(("lr", "collapses"), [(0.06, False), (100.0, True)])
def test_a_learning_rate_that_is_far_too_high(
    digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, lr: float, collapses: bool
) -> None:
    """The weights are finite and the run ends: without the warning nothing would show."""
    config = PretrainConfig(
        data=digits / "train", out=tmp_path / "run", model="tiny", contrast=Contrast(dim=32, hidden=64, queue=256),
        augment=Augmentation(size=8), optim=Optimiser(epochs=4, batch=64, lr=0.06, schedule="step"),
        runtime=Runtime(threads=1),
    )  # fmt: skip
    run_stage(Stage("run", "pretrain", replace(config, optim=replace(config.optim, lr=lr))))
    assert ("has collapsed" in caplog.text) is collapses
