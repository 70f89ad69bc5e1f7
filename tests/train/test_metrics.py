"""metrics.jsonl: each step once, whole lines only, and a loss that is not finite."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bingo.config import DistillConfig
from bingo.config_parts import Optimiser, Runtime
from bingo.distributed import World
from bingo.errors import TransientError, UserError
from bingo.stages import Stage, run_stage
from bingo.train.metrics import Metrics, read_metrics

ALONE = World(0, 1, torch.device("cpu"), 1)


def test_a_loss_that_is_not_finite_stops_the_run_naming_the_step(config: DistillConfig) -> None:
    wild = replace(config, optim=Optimiser(epochs=2, batch=64, lr=1e30), runtime=Runtime(threads=1, log_every=1))
    with pytest.raises(UserError, match=r"the loss is (nan|inf|-inf) at step \d+; lower --optim.lr"):
        run_stage(Stage("wild", "distill", wild))
    assert not (config.out / "model.pt").exists()


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_losses_are_written_when_flushed(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", ALONE, 0)
    metrics.step(torch.tensor(2.0, requires_grad=True), {"step": 0, "epoch": 0})
    metrics.step(torch.tensor(3.0), {"step": 1, "epoch": 0}, torch.tensor([0.25, 0.5]))
    assert metrics.path.read_text() == ""
    size = metrics.flush()
    assert size == metrics.path.stat().st_size
    assert lines(metrics.path) == [
        {"kind": "train", "step": 0, "epoch": 0, "loss": 2.0},
        {"kind": "train", "step": 1, "epoch": 0, "top1": 0.25, "top5": 0.5, "loss": 3.0},
    ]
    assert metrics.flush() == size, "each line once"


def test_what_is_behind_the_checkpoint_goes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    kept = '{"kind": "train", "step": 0}\n'
    path.write_text(kept + '{"kind": "train", "step": 1}\n{"kind": "tr')
    Metrics(path, ALONE, len(kept)).write({"kind": "eval", "step": 1})
    assert lines(path) == [{"kind": "train", "step": 0}, {"kind": "eval", "step": 1}]


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path, "train") == []
    path.write_text('{"kind": "train", "step": 0}\n{"kind": "eval", "step": 0}\n{"kind": "train", "st')
    assert read_metrics(path, "train") == [{"kind": "train", "step": 0}]


def test_a_full_disk_may_mend_itself(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", ALONE, 0)
    metrics.path = Path("/dev/full")
    with pytest.raises(TransientError, match="cannot write /dev/full: No space left on device; free space"):
        metrics.write({"kind": "eval"})
