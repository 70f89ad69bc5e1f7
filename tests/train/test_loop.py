"""The loop of both methods: what it measures, warns about and sends, and one writer of a run at a time."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bingo.config import DistillConfig
from bingo.config_parts import Monitor, Runtime
from bingo.distributed import World
from bingo.errors import TransientError, UserError
from bingo.files import RECORD, write_sealed
from bingo.identity import read_record
from bingo.images.open import open_dataset
from bingo.stages import Stage, run_stage
from bingo.train.checkpoint import checkpoint_path
from bingo.train.lines import read_metrics
from bingo.train.loop import check_run
from tests.support.ranks import COUNT_CALLS, ROOT, finish, start_ranks, wait_for

ALONE = World(0, 1, torch.device("cpu"), 1)


def test_measured_steps_say_more_of_the_loss_and_of_speed(config: DistillConfig) -> None:
    record = run_stage(Stage("run", "distill", replace(config, runtime=Runtime(threads=1, log_every=5))))
    lines = read_metrics(config.out / "metrics.jsonl", "train")
    measured = [line["step"] for line in lines if "top1" in line]
    assert measured == [step for step in range(len(lines)) if (step + 1) % 5 == 0 or step + 1 == len(lines)]
    assert all(0 <= line["top1"] <= line["top5"] <= 1 for line in lines if "top1" in line)
    assert [line["step"] for line in lines if "loader_wait" in line] == measured
    assert all(line["images_per_second"] > 0 and 0 < line["loader_wait"] < 1 for line in lines if "top1" in line)
    figures = record["figures"]
    assert figures["images_per_second"] > 0
    assert 0 < figures["loader_wait"] < 1
    assert "mfu" not in figures, "it took less than a minute"


def test_a_queue_that_holds_most_of_the_dataset_is_warned_about(
    config: DistillConfig, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = open_dataset(config.data)
    for negatives, warned in (("all", 1), ("strangers", 0)):
        caplog.clear()
        large = replace(config.contrast, queue=len(dataset) - 1, negatives=negatives)
        check_run(replace(config, contrast=large), dataset, ALONE)
        assert sum("relatives of each among its negatives" in r.getMessage() for r in caplog.records) == warned


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"student": "resnet18", "optim.batch": 1, "augment.size": 8}, "a single image per rank of 8 pixels"),
        ({"student": "alexnet", "augment.size": 8}, r"alexnet cannot be trained on images of 8 pixels \(.*too small"),
        ({"student": "vit_b_32", "augment.size": 16}, r"vit_b_32 cannot be trained on images of 16 pixels \(Wrong im"),
    ],
)
def test_a_student_that_cannot_take_its_images_is_refused(
    config: DistillConfig, change: dict[str, Any], said: str
) -> None:
    size = replace(config.augment, size=change["augment.size"])
    optim = replace(config.optim, batch=change.get("optim.batch", 64))
    with pytest.raises(UserError, match=said):
        run_stage(Stage("run", "distill", replace(config, student=change["student"], augment=size, optim=optim)))
    assert not config.out.exists()


def test_validation_images_of_other_classes_are_refused_before_the_first_step(
    config: DistillConfig, digits: Path, tmp_path: Path
) -> None:
    """An empty class folder shifts every label behind it: the accuracy would be nonsense."""
    (tmp_path / "val" / "0 empty").mkdir(parents=True)
    for folder in (digits / "images/val").iterdir():
        (tmp_path / "val" / folder.name).symlink_to(folder)
    with pytest.raises(UserError, match=r"only \S+/val has '0 empty' \(empty\)"):
        run_stage(Stage("run", "distill", replace(config, monitor=Monitor(val=tmp_path / "val"))))
    assert not config.out.exists()


def test_figures_of_a_run_whose_metrics_are_lost(config: DistillConfig, digits: Path, teacher: Path) -> None:
    """Killed after its last step: what comes again has the figures, and the weights, of the run before."""
    watched = replace(config, monitor=Monitor(val=digits / "val", every=1))
    first = run_stage(Stage("run", "distill", watched))
    for damage in (b"", b"\xff" * 300, None):
        (config.out / "stage.json").unlink()
        if damage is None:
            (config.out / "metrics.jsonl").unlink()
        else:
            (config.out / "metrics.jsonl").write_bytes(damage)
        again = run_stage(Stage("run", "distill", watched))
        assert again["figures"]["weights"] == first["figures"]["weights"]
        assert again["figures"]["knn"] == first["figures"]["knn"] is not None
        assert b"\0" not in (config.out / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_checkpoints_that_are_not_what_the_run_has_saved(config: DistillConfig, tmp_path: Path) -> None:
    """A folder that lost them, as one that is not mounted, and a step that this run never comes to."""
    stage, folder = Stage("run", "distill", config), config.out / "checkpoints"
    steps = run_stage(stage)["figures"]["steps"]
    record = read_record(config.out)
    write_sealed(config.out / RECORD, {name: record[name] for name in record if name not in ("outputs", "files")})
    folder.rename(tmp_path / "away")
    said = rf"checkpoints holds no checkpoint, although this run saved one at step {steps}: .*delete \S+/saved.json"
    with pytest.raises(TransientError, match=said):
        run_stage(stage)
    (tmp_path / "away").rename(folder)
    state = torch.load(checkpoint_path(folder, steps), weights_only=True)
    torch.save({**state, "step": 500}, checkpoint_path(folder, 500))
    with pytest.raises(UserError, match=rf"holds a checkpoint of step 500, but this run has {steps} steps in all"):
        run_stage(stage)
    checkpoint_path(folder, 500).unlink()
    assert run_stage(stage)["figures"]["resumed_from"] == steps


@pytest.mark.slow
def test_one_gather_per_step_and_no_broadcast(distill_words: Callable[[Path], list[str]], tmp_path: Path) -> None:
    """Counted at torch.distributed: DDP's own gradient reduction runs below it."""
    results = finish(start_ranks(distill_words(tmp_path / "run"), 2, program=["-c", COUNT_CALLS]))
    assert [code for code, _ in results] == [0, 0], results
    counted = [json.loads(out.split("CALLS ")[1]) for _, out in results]
    steps = json.loads((tmp_path / "run" / "stage.json").read_text())["figures"]["steps"]
    for calls in counted:
        assert calls.get("all_gather_single", 0) + calls.get("all_gather_into_tensor", 0) == steps
        assert "broadcast" not in calls
        assert "all_gather" not in calls
        assert calls["all_reduce"] <= steps  # one per flush of the metrics
        assert calls["all_reduce aside"] <= steps + 1  # shall we leave? answered a step later


@pytest.fixture
def distill_words(digits: Path, teacher: Path, bags: Path) -> Callable[[Path], list[str]]:
    def words(out: Path) -> list[str]:
        paths = {"data": digits / "train", "teacher": teacher, "bags": bags, "out": out}
        sizes = {"augment.size": 16, "contrast.dim": 16, "contrast.hidden": 32, "contrast.queue": 100}
        pace = {"optim.batch": 64, "optim.epochs": 2, "student": "tiny", "runtime.threads": 1}
        return ["distill", *(str(w) for k, v in {**paths, **sizes, **pace}.items() for w in (f"--{k}", v))]

    return words


@pytest.mark.slow
def test_a_second_writer_is_refused(distill_words: Callable[[Path], list[str]], tmp_path: Path) -> None:
    words = [*distill_words(tmp_path / "run"), "--optim.epochs", "2000"]
    (first,) = start_ranks(words, 1)
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), first)
    second = subprocess.run(
        [sys.executable, "-m", "bingo", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    first.kill()
    finish([first])
    assert second.returncode == 2
    assert "another process is writing" in second.stderr
