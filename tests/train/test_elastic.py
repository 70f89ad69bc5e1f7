"""A run keeps its ranks for life: interrupted, it goes on with fewer processes, or more, as if nothing had happened."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from bingo.config import KeysConfig
from bingo.config_parts import Augmentation, Runtime
from bingo.objectives import OBJECTIVES
from bingo.stages import Stage, run_stage
from bingo.train.lines import read_metrics
from tests.support.elastic import EPOCHS, LEFT, PER_EPOCH, SAVED
from tests.support.ranks import finish, start_ranks


class Runs:
    """Starts the program, by some number of processes."""

    def __init__(self, *paths: Path) -> None:
        self.paths = paths

    def __call__(self, out: Path, kinds: list[str], processes: int, how: str = "whole") -> list[tuple[int, str]]:
        return finish(start_ranks([*self.paths, out, " ".join(kinds), how], processes, ["-m", "tests.support.elastic"]))

    def interrupted(self, out: Path, kinds: list[str], processes: int, then: int) -> str:
        """What rank 0 says when `then` processes end what `processes` began."""
        results = self(out, kinds, processes, "cut")
        assert -signal.SIGKILL in [code for code, _ in results], results
        assert results[0][1].count(f"left at step {LEFT + 1} because of SIGUSR2") == len(kinds) - 1, results
        assert not list(out.glob("*/model.pt"))
        results = self(out, kinds, then)
        assert [code for code, _ in results] == [0] * then, results
        return results[0][1]


@pytest.fixture(scope="module")
def runs(digits: Path, teacher: Path, bags: Path) -> Runs:
    small = Runtime(device="cpu", threads=1)
    keys = KeysConfig(
        digits / "train", teacher, bags.parent / "keys", views=2, augment=Augmentation(size=16), runtime=small
    )
    run_stage(Stage("keys", "keys", keys))
    return Runs(digits, teacher, bags)


def state(run: Path) -> dict[str, torch.Tensor]:
    """Everything that training leaves behind: modules, momenta, queue."""
    saved = torch.load(max((run / "checkpoints").glob("step-*.pt")), weights_only=True)
    assert saved["step"] == EPOCHS * PER_EPOCH
    found = {f"{name}.{key}": value for name, part in saved["modules"].items() for key, value in part.items()}
    found |= {f"momentum.{k}": value["momentum_buffer"] for k, value in saved["optimiser"]["state"].items()}
    queues = [part for part in ("queue", "own_queue") if part in saved]
    return found | {f"{part} {name}": saved[part][name] for part in queues for name in ("keys", "ids")}


CLOCKS = ("time", "images_per_second", "loader_wait")
"""What two runs of one training need not have in common."""


def lines(run: Path) -> list[dict[str, Any]]:
    found = read_metrics(run / "metrics.jsonl", "train")
    assert [line["step"] for line in found] == list(range(EPOCHS * PER_EPOCH)), "every step once"
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in found]


def record(run: Path) -> tuple[int, int]:
    found = json.loads((run / "stage.json").read_text())
    return found["ranks"], found["figures"]["resumed_from"]


def assert_equal(run: Path, whole: Path) -> None:
    ours, theirs = state(run), state(whole)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert lines(run) == lines(whole)


@pytest.mark.slow
def test_two_ranks_go_on_in_one_process_to_the_same_bits(runs: Runs, tmp_path: Path) -> None:
    kinds = ["pretrain", "keys", "teacher"]
    assert [code for code, _ in runs(tmp_path / "whole", kinds, 2)] == [0, 0]
    runs.interrupted(tmp_path / "cut", kinds, 2, then=1)
    for kind in kinds:
        assert record(tmp_path / "cut" / kind) == (2, SAVED if kind == kinds[-1] else LEFT + 1)
        assert_equal(tmp_path / "cut" / kind, tmp_path / "whole" / kind)


@pytest.mark.slow
@pytest.mark.sampled(2, group="other ranks")
def test_every_objective_goes_on_to_the_same_bits(runs: Runs, tmp_path: Path) -> None:
    """After a signal, and the last after a kill; with a second queue, a momentum student and an average too."""
    kinds = [*(name for name in OBJECTIVES if name not in ("release", "paper")), "disco@keys", "seed@keys"]
    assert [code for code, _ in runs(tmp_path / "whole", kinds, 2)] == [0, 0]
    runs.interrupted(tmp_path / "cut", kinds, 2, then=1)
    for kind in kinds:
        assert_equal(tmp_path / "cut" / kind, tmp_path / "whole" / kind)


@pytest.mark.slow
@pytest.mark.sampled(3)
@pytest.mark.parametrize(("ranks", "then"), [(1, 1), (2, 1), (4, 4)])
@pytest.mark.parametrize("kind", [*OBJECTIVES, "disco@keys", "seed@keys"])
def test_a_killed_objective_goes_on_to_the_same_bits(
    kind: str, ranks: int, then: int, runs: Runs, tmp_path: Path
) -> None:
    assert [code for code, _ in runs(tmp_path / "whole", [kind], ranks)] == [0] * ranks
    runs.interrupted(tmp_path / "cut", [kind], ranks, then)
    assert record(tmp_path / "cut" / kind) == (ranks, SAVED)
    assert_equal(tmp_path / "cut" / kind, tmp_path / "whole" / kind)


@pytest.mark.slow
@pytest.mark.sampled(2, group="other ranks")
def test_keys_of_shuffled_blocks_are_those_of_any_number_of_ranks(runs: Runs, tmp_path: Path) -> None:
    """After a signal and a kill the bits of two ranks; and the teacher's keys, which no student changes, those of one.

    A momentum encoder's keys follow the student, whose batch norm differs between 1 rank and 2.
    """
    assert [code for code, _ in runs(tmp_path / "whole", ["batch", "shuffle"], 2)] == [0, 0]
    runs.interrupted(tmp_path / "cut", ["shuffle", "batch"], 2, then=1)
    for kind in ("batch", "shuffle"):
        assert_equal(tmp_path / "cut" / kind, tmp_path / "whole" / kind)
    assert [code for code, _ in runs(tmp_path / "one", ["batch", "shuffle"], 1)] == [0]
    one, two = state(tmp_path / "one" / "batch"), state(tmp_path / "whole" / "batch")
    assert torch.equal(one["queue keys"], two["queue keys"])
    assert not torch.equal(one["encoder.head.0.weight"], two["encoder.head.0.weight"])


@pytest.mark.slow
@pytest.mark.sampled(2, group="other ranks")
def test_three_ranks_resume_to_the_same_bits(runs: Runs, tmp_path: Path) -> None:
    kinds = ["pretrain", "teacher"]
    assert [code for code, _ in runs(tmp_path / "whole", kinds, 3)] == [0, 0, 0]
    runs.interrupted(tmp_path / "cut", kinds, 3, then=3)
    for kind in kinds:
        assert_equal(tmp_path / "cut" / kind, tmp_path / "whole" / kind)


@pytest.mark.slow
@pytest.mark.sampled(2, group="other ranks")
def test_four_ranks_go_on_in_two_processes(runs: Runs, tmp_path: Path) -> None:
    """Sums in another order: close. The queue's ids are those of the global batch, so they are the same."""
    kinds = ["pretrain", "keys", "teacher"]
    assert [code for code, _ in runs(tmp_path / "whole", kinds, 4)] == [0] * 4
    runs.interrupted(tmp_path / "cut", kinds, 4, then=2)
    for kind in kinds:
        assert record(tmp_path / "cut" / kind)[0] == 4
        ours, theirs = state(tmp_path / "cut" / kind), state(tmp_path / "whole" / kind)
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-4)
        assert torch.equal(ours["queue ids"], theirs["queue ids"])
        pairs = zip(lines(tmp_path / "cut" / kind), lines(tmp_path / "whole" / kind), strict=True)
        assert max(abs(a["loss"] - b["loss"]) for a, b in pairs) < 1e-3


@pytest.mark.slow
@pytest.mark.sampled(2, group="other ranks")
def test_more_processes_than_ranks_go_on_with_other_shares(runs: Runs, tmp_path: Path) -> None:
    said = runs.interrupted(tmp_path, ["teacher"], 2, then=4)
    assert "a run of 2 ranks does not divide among 4 processes: it goes on with 4" in said
    assert record(tmp_path / "teacher") == (4, SAVED)
    assert len(lines(tmp_path / "teacher")) == EPOCHS * PER_EPOCH
