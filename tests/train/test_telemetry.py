"""What a training says of its speed: a clock that is set by hand, and what a real run writes."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bingo.bench.report.results import student_views
from bingo.config import DistillConfig
from bingo.config_json import to_json
from bingo.distributed import World
from bingo.models import Encoder, seeded_encoder
from bingo.models.costs import forward_flops
from bingo.recipes import CARDS
from bingo.roof import MatmulRoof
from bingo.train import telemetry
from bingo.train.distill import Distillation
from bingo.train.lines import newest_line, speed_words
from bingo.train.metrics import Metrics
from bingo.train.telemetry import MFU_AFTER_S, Speed, of_every_rank
from bingo.views.plan import Local, Plan

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU, 1)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def batches(clock: Clock) -> Iterator[int]:
    """Each takes half a second to come."""

    def each() -> Iterator[int]:
        for number in range(100):
            clock.now += 0.5
            yield number

    return each()


def test_rates_and_waits_since_the_last_line(clock: Clock, batches: Iterator[int]) -> None:
    speed = Speed(32, ALONE, clock)
    for _ in range(4):
        assert len(speed.take(batches, 2)) == 2
        clock.now += 1
    assert speed.figures() == {"images_per_second": 16.0, "loader_wait": 0.5}
    speed.take(batches, 1)
    clock.now += 1.5
    assert speed.figures() == {"images_per_second": 16.0, "loader_wait": 0.25}


def test_an_evaluation_is_no_training(clock: Clock, batches: Iterator[int]) -> None:
    speed = Speed(32, ALONE, clock)
    speed.take(batches, 1)
    with speed.aside():
        clock.now += 1000
    clock.now += 0.5
    assert speed.figures() == {"images_per_second": 32.0, "loader_wait": 0.5}
    assert speed.whole([], 32, "fp32") == {"images_per_second": 32.0, "loader_wait": 0.5}


@pytest.fixture
def network() -> Encoder:
    return seeded_encoder("tiny-4", dim=16, hidden=16, seed=0)


def test_use_of_the_arithmetic_after_a_minute(
    clock: Clock, batches: Iterator[int], network: Encoder, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """9 passes of a student and 2 of a teacher per image, on each of two devices half of the images."""
    caplog.set_level(logging.INFO)
    roof = MatmulRoof(1e9, [1.0], 8, torch.bfloat16, False)
    asked = []
    monkeypatch.setattr(telemetry, "matmul_roof", lambda *given: asked.append(given) or roof)
    speed = Speed(64, World(0, 2, CPU, 1), clock)
    speed.take(batches, 1)
    clock.now += MFU_AFTER_S - 0.5
    found = speed.whole([(network, 9), (network, 2)], 32, "bf16")
    assert asked == [(CPU, torch.bfloat16)]
    flops = 11 * forward_flops(network, 32)
    assert found["model_flops_per_image"] == flops > 0
    assert found["mfu"] == pytest.approx(flops * 64 / MFU_AFTER_S / 2 / 1e9, rel=1e-3)
    assert "% of what matrix products reach here (MFU)" in caplog.text
    short = Speed(64, ALONE, clock)
    short.take(batches, 1)
    assert "mfu" not in short.whole([(network, 9)], 32, "bf16")


def test_a_full_gpu_has_no_mfu(
    clock: Clock, batches: Iterator[int], network: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(telemetry, "matmul_roof", full)
    speed = Speed(64, ALONE, clock)
    speed.take(batches, 1)
    clock.now += MFU_AFTER_S
    assert speed.whole([(network, 9)], 32, "fp32").keys() == {"images_per_second", "loader_wait"}


def test_the_slowest_rank_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait of every rank rides on the one collective of a flush."""
    world, sent = World(0, 3, CPU, 1), []

    def average(_: World, tensors: list[torch.Tensor]) -> None:
        """The other ranks' parts are added as they would be: 0.4 and 0.1."""
        sent.append(len(tensors))
        others = [of_every_rank([wait], World(rank, 3, CPU, 1), CPU) for rank, wait in ((1, 0.4), (2, 0.1))]
        tensors[-1].copy_((tensors[-1] + others[0] + others[1]) / 3)

    monkeypatch.setattr(World, "average", average)
    metrics = Metrics(tmp_path / "metrics.jsonl", world)
    line = {"step": 0, "epoch": 0, "images_per_second": 10.0, "loader_wait": 0.2}
    metrics.step(torch.tensor(1.0), line)
    metrics.flush()
    (written,) = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert (written["images_per_second"], written["loader_wait"], sent) == (10.0, 0.4, [2])
    assert metrics.newest["loader_wait"] == 0.4


def test_the_newest_line_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [{"kind": "train", "step": step, "epoch": 0, "loss": 1.0} for step in range(3)]
    lines[1] |= {"images_per_second": 1234.4, "loader_wait": 0.031}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = newest_line(path, having="images_per_second")
    assert found is not None
    assert found["step"] == 1
    assert speed_words(found) == ["1234 images/s", "3 % waiting for images"]
    assert speed_words(lines[2]) == []
    assert speed_words({"images_per_second": 0.52, "loader_wait": 0.004}) == ["0.52 images/s"]


@pytest.mark.parametrize(("objective", "passes"), [("release", [9, 2]), ("paper", [6, 1])])
def test_a_distillation_knows_its_work(config: DistillConfig, objective: Any, passes: list[int]) -> None:
    """The teacher's as it came, though an engine with bf16 weights makes its keys."""
    runtime = replace(config.runtime, engine="folded", precision="bf16")
    source = seeded_encoder("tiny-8", dim=16, hidden=16, seed=0)
    plan = Plan(np.full((200, 2), 16), 64, config.augment, 0, views=(2, 2), bags=np.zeros((200, 2), np.int32))
    flops = forward_flops(source, 16)
    work = list(Distillation(replace(config, objective=objective, runtime=runtime), source, plan, ALONE).work())
    assert [number for _, number in work] == passes
    assert [forward_flops(network, 16) for network, _ in work][1] == flops > 0
    assert forward_flops(work[0][0], 16) > 0


def test_a_local_crop_is_the_part_of_a_view_that_its_pixels_are(config: DistillConfig) -> None:
    """Four crops of half the sides: one view more, for the trainer, its report and its card."""
    few = replace(config, objective="seed", bags=None, local_crops=4, local_size=config.augment.size // 2)
    source = seeded_encoder("tiny-8", dim=16, hidden=16, seed=0)
    plan = Plan(np.full((200, 2), 16), 64, few.augment, 0, views=(1,), local=Local(4, few.local))
    assert [number for _, number in Distillation(few, source, plan, ALONE).work()] == [3 * 2, 1]
    assert student_views("distill", to_json(few)) == 2
    assert CARDS["resnet18-dinov2b-local"].passes == pytest.approx(200 * (1 + 4 * (96 / 224) ** 2))
