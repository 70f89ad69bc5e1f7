"""The measured job: its bursts with messages and without."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.distributed as dist

from bingo.bench.scaling.job import Alone, Runner, distillation, random_batches, run
from bingo.bench.scaling.samples import read_samples
from bingo.config_parts import Augmentation, Contrast, Runtime
from bingo.config_scaling import ScalingConfig
from bingo.distributed import World
from bingo.errors import UserError
from bingo.models import seeded_encoder
from bingo.stages import Stage, run_stage
from bingo.train.distill import Distillation

CPU = torch.device("cpu")
CONFIG = ScalingConfig(
    out=Path("o"), ranks=2, batch=4, student="tiny-2", teacher="tiny-2", steps=3, rounds=2,
    contrast=Contrast(8, 16, 64), augment=Augmentation(size=16), runtime=Runtime(device="cpu", threads=1),
)  # fmt: skip


class Half(World):
    """One of two ranks, whose messages reach itself alone; it counts those that it sends from Python."""

    sent: ClassVar[Counter[str]] = Counter()

    def gather_rows(self, rows: torch.Tensor) -> Callable[[], torch.Tensor]:
        self.sent["keys"] += 1
        return lambda: torch.cat([rows, rows])

    def broadcast(self, tensors: list[torch.Tensor]) -> None:
        self.sent["weights"] += len(tensors)


@pytest.fixture
def two() -> Iterator[World]:
    Half.sent.clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield Half(0, 2, CPU, 1)
    dist.destroy_process_group()
    torch.set_num_threads(threads)


@pytest.fixture
def runner(two: World) -> Runner:
    settings = distillation(CONFIG)
    plan, batches = random_batches(CONFIG, settings, two)
    return Runner(
        CONFIG, Distillation(settings, seeded_encoder("tiny-2", dim=8, hidden=16, seed=1), plan, two), batches, two
    )


def test_only_bursts_with_messages_send_any(runner: Runner) -> None:
    """Each step gathers keys once and sums gradients once, or does neither; then weights are made alike."""

    def hook(sent: Counter[str], bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        sent["gradients"] += 1
        done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    runner.method.model.register_comm_hook(Half.sent, hook)  # type: ignore[operator]
    parameters = len(list(runner.method.encoder.parameters()))
    told = []
    for alone in (False, True, False):
        runner.burst(alone=alone)
        told.append(dict(Half.sent))
        Half.sent.clear()
    assert told == [{"keys": 3, "gradients": 3}, {"weights": parameters}, {"keys": 3, "gradients": 3}]
    assert runner.done == 9
    assert type(runner.method.world) is Half


def test_samples_take_turns_and_are_told_apart(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[bool] = []
    burst = runner.burst
    monkeypatch.setattr(runner, "burst", lambda *, alone: turns.append(alone) or burst(alone=alone))
    found = runner.measure()
    assert turns == [True, False, False, True, True, False], "the first of each kind is warm-up"
    assert [len(found["together"]), len(found["alone"])] == [2, 2]
    assert all(0 < b["loader"] < b["seconds"] and b["cpu"] > 0 for b in found["together"] + found["alone"])


def test_a_rank_alone_has_as_many_keys() -> None:
    rows = torch.arange(6.0).view(3, 2)
    gathered = Alone(1, 2, CPU, 1).gather_rows(rows)()
    assert torch.equal(gathered, torch.cat([rows, rows]))


def test_another_number_of_ranks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the settings say ranks=2, and 1 take part"):
        run(replace(CONFIG, out=tmp_path), "key", World(0, 1, CPU, 1))


def test_steps_on_images_of_the_loader(digits: Path, tmp_path: Path) -> None:
    """As a stage, with real decoding and cropping; too few images are refused as a training refuses them."""
    config = replace(CONFIG, out=tmp_path / "out", ranks=1, data=digits / "train")
    record = run_stage(Stage("images", "scaling", config))
    assert record["figures"].keys() == {"images_per_second", "cpu_seconds_per_step"}
    ((found,), size) = read_samples(tmp_path / "out")
    assert size == 4 * sum(p.numel() for p in seeded_encoder("tiny-2", dim=8, hidden=16, seed=0).parameters())
    assert all(0 < burst["loader"] < burst["seconds"] for burst in found["together"])
    assert run_stage(Stage("images", "scaling", config))["skipped"]
    with pytest.raises(UserError, match=r"the global batch of 5000 is larger than the \d+ images .* lower --batch$"):
        run_stage(Stage("images", "scaling", replace(config, out=tmp_path / "more", batch=5000)))
