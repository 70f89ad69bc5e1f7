"""Killed anywhere, resumed from disk: the weights of an uninterrupted run, every step once."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from tests.support.ranks import finish, start_ranks, wait_for
from tests.support.short_run import EPOCHS, PER_EPOCH, assert_same, command, steps, weights


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "after"), [(1, 21), (0, 42)])
def test_sigkill_of_one_rank_mid_epoch(
    uninterrupted: Path, digits: Path, teacher: Path, bags: Path, tmp_path: Path, victim: int, after: int
) -> None:
    out = tmp_path / "run"
    ranks = start_ranks(command(digits, teacher, bags, out), 2)
    metrics = out / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") > after, *ranks)
    os.kill(ranks[victim].pid, signal.SIGKILL)
    codes = [code for code, _ in finish(ranks)]
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] != 0, "the other rank must not report success"
    assert not (out / "model.pt").exists()
    newest = max((out / "checkpoints").glob("step-*.pt"))
    reached = int(newest.stem.split("-")[1])
    assert 0 < reached < EPOCHS * PER_EPOCH
    results = finish(start_ranks(command(digits, teacher, bags, out), 2))
    assert [code for code, _ in results] == [0, 0], results
    assert_same(weights(out), weights(uninterrupted))
    assert steps(out) == list(range(EPOCHS * PER_EPOCH))
    assert json.loads((out / "stage.json").read_text())["figures"]["resumed_from"] == reached


@pytest.mark.slow
def test_resume_in_the_middle_of_an_epoch_with_a_truncated_newest_checkpoint(
    uninterrupted: Path, digits: Path, teacher: Path, bags: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ranks = start_ranks(command(digits, teacher, bags, out), 2)
    folder = out / "checkpoints"  # 35 = 2 epochs and 3 steps; those before the newest two go once it is there
    wait_for(lambda: (folder / "step-0000000035.pt").exists() and len(list(folder.glob("step-*.pt"))) == 2, *ranks)
    for process in ranks:
        os.kill(process.pid, signal.SIGKILL)
    finish(ranks)
    whole = sorted(folder.glob("step-*.pt"))[-2:]
    whole[-1].write_bytes(whole[-1].read_bytes()[:-1000])
    results = finish(start_ranks(command(digits, teacher, bags, out), 2))
    assert [code for code, _ in results] == [0, 0], results
    assert "truncated or damaged; falling back to the one before it" in results[0][1]
    assert json.loads((out / "stage.json").read_text())["figures"]["resumed_from"] == int(whole[0].stem.split("-")[1])
    assert_same(weights(out), weights(uninterrupted))
    assert steps(out) == list(range(EPOCHS * PER_EPOCH))


@pytest.mark.slow
def test_a_finished_run_is_recognised(uninterrupted: Path, digits: Path, teacher: Path, bags: Path) -> None:
    before = (uninterrupted / "model.pt").stat().st_mtime_ns
    results = finish(start_ranks(command(digits, teacher, bags, uninterrupted), 2))
    assert [code for code, _ in results] == [0, 0]
    assert "already done" in results[0][1]
    assert (uninterrupted / "model.pt").stat().st_mtime_ns == before


def test_other_settings_do_not_touch_a_run(uninterrupted: Path, digits: Path, teacher: Path, bags: Path) -> None:
    before = weights(uninterrupted)
    results = finish(start_ranks([*command(digits, teacher, bags, uninterrupted), "--contrast.temperature", 0.1], 1))
    assert results[0][0] == 2
    assert "made with contrast.temperature=0.2, not 0.1; choose another --out" in results[0][1]
    assert_same(weights(uninterrupted), before)


@pytest.mark.slow
def test_pretraining_resumes_exactly_too(digits: Path, tmp_path: Path) -> None:
    """Both encoders, the queue and the averaged batch-norm statistics come back."""

    def words(out: Path) -> list[object]:
        small = ["--augment.size", 16, "--contrast.dim", 16, "--contrast.hidden", 32, "--contrast.queue", 100]
        pace = ["--optim.batch", 64, "--optim.epochs", EPOCHS, "--key-momentum", 0.9, "--runtime.threads", 1]
        saves = ["--runtime.checkpoint-every", 5, "--runtime.log-every", 1, "--monitor.val", digits / "val"]
        paths = ["--data", digits / "train", "--out", out, "--model", "tiny"]
        return ["pretrain", *paths, *small, *pace, *saves, "--monitor.every", 1]

    assert [code for code, _ in finish(start_ranks(words(tmp_path / "whole"), 2))] == [0, 0]
    ranks = start_ranks(words(tmp_path / "run"), 2)
    wait_for(lambda: (tmp_path / "run" / "checkpoints" / "step-0000000025.pt").exists(), *ranks)  # mid-epoch: 16 + 9
    for process in ranks:
        os.kill(process.pid, signal.SIGKILL)
    finish(ranks)
    assert not (tmp_path / "run" / "model.pt").exists()
    assert [code for code, _ in finish(start_ranks(words(tmp_path / "run"), 2))] == [0, 0]
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert steps(tmp_path / "run") == list(range(EPOCHS * PER_EPOCH))
    whole, resumed = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "run")
    )
    assert [x["knn"] for x in resumed if x["kind"] == "eval"] == [x["knn"] for x in whole if x["kind"] == "eval"]
    assert [x["loss"] for x in resumed if x["kind"] == "train"] == [x["loss"] for x in whole if x["kind"] == "train"]


@pytest.mark.slow
def test_the_queue_is_the_same_for_one_and_two_ranks(
    uninterrupted: Path, digits: Path, teacher: Path, bags: Path, tmp_path: Path
) -> None:
    """Keys enter in the order of the global batch, with the ids that the plan knows for all ranks."""
    (result,) = finish(start_ranks(command(digits, teacher, bags, tmp_path / "run"), 1))
    assert result[0] == 0, result
    queues = [
        torch.load(sorted((run / "checkpoints").glob("step-*.pt"))[-1], weights_only=True)["queue"]
        for run in (uninterrupted, tmp_path / "run")
    ]
    assert torch.equal(queues[0]["ids"], queues[1]["ids"])
    assert queues[0]["pointer"] == queues[1]["pointer"]
    torch.testing.assert_close(queues[0]["keys"], queues[1]["keys"], rtol=0, atol=1e-6)
