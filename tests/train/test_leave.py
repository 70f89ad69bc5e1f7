"""Asked to leave: all ranks at the same step boundary, with everything on disk; the same command goes on from there."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from bingo.config import FeaturesConfig
from bingo.config_parts import Augmentation
from bingo.distributed import World
from bingo.stages import Stage, run_stage
from bingo.watch import Leaving, Watch
from tests.support.blocks import BLOCKS, fill
from tests.support.ranks import finish, start_ranks, wait_for
from tests.support.short_run import EPOCHS, PER_EPOCH, assert_same, command, steps, weights


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "number"), [(1, signal.SIGUSR2), (0, signal.SIGTERM)])
def test_one_rank_is_asked_mid_epoch_and_all_leave_together(
    uninterrupted: Path, digits: Path, teacher: Path, bags: Path, tmp_path: Path, asked: int, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    ranks = start_ranks(command(digits, teacher, bags, out), 2)
    metrics = out / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") > 21, *ranks)
    os.kill(ranks[asked].pid, number)
    results = finish(ranks)
    assert [code for code, _ in results] == [75, 75], results
    at = int(max((out / "checkpoints").glob("step-*.pt")).stem.split("-")[1])
    assert 21 < at < EPOCHS * PER_EPOCH
    for _, said in results:
        assert f"left at step {at} because of {number.name}; run the same command again to resume" in said
    assert steps(out) == list(range(at)), "metrics end where the checkpoint does"
    results = finish(start_ranks(command(digits, teacher, bags, out), 2))
    assert [code for code, _ in results] == [0, 0], results
    assert json.loads((out / "stage.json").read_text())["figures"]["resumed_from"] == at
    assert steps(out) == list(range(EPOCHS * PER_EPOCH))
    assert_same(weights(out), weights(uninterrupted))


class Asked(Watch):
    """Asked from the start, or after `blocks` blocks; remembers what it was told."""

    def __init__(self, blocks: int = 0) -> None:
        super().__init__()
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.blocks = blocks
        self.beat(0)

    def event(self, name: str, /, **facts: Any) -> None:
        self.told.append((name, facts))

    def beat(self, step: int) -> None:
        if step == self.blocks:
            self.asked = "SIGUSR2"


def features(digits: Path, teacher: Path, out: Path) -> Stage:
    config = FeaturesConfig(digits / "train", teacher, out, augment=Augmentation(size=16), batch=4096)
    return Stage("features", "features", config)


def test_a_stage_is_not_begun_and_a_finished_one_is_only_skipped(digits: Path, teacher: Path, tmp_path: Path) -> None:
    stage = features(digits, teacher, tmp_path / "features")
    watch = Asked()
    with pytest.raises(Leaving, match="left before the stage features because of SIGUSR2"):
        run_stage(stage, watch=watch)
    assert watch.told == [("joined", {"rank": 0, "size": 1}), ("left", {"step": 0, "signal": "SIGUSR2"})]
    assert not stage.out.exists()
    run_stage(stage)
    watch = Asked()
    assert run_stage(stage, watch=watch)["skipped"]
    assert watch.told == [("finished", {"name": "features", "skipped": True})]


def test_blocks_are_left_between_two_and_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    watch = Asked(blocks=2)
    with pytest.raises(Leaving, match="left after 2 of 6 blocks because of SIGUSR2"):
        fill(path, World(0, 1, torch.device("cpu"), 1, watch=watch))
    assert watch.told == [("left", {"step": 2, "signal": "SIGUSR2"})]
    assert not path.exists()
    assert len(fill(path)) == BLOCKS - 2


# Rank 1 is asked while it works on its second block; rank 0, which nobody asked, does its share first.
LEAVE_BLOCKS = """
import os, signal, sys
from pathlib import Path
from bingo.config_parts import Runtime
from bingo.distributed import world
from bingo.watch import Leaving, Watch
from tests.support import blocks
watch = Watch()
watch.listen()
with world(Runtime(device="cpu", threads=1), watch) as peers:
    def values(first, last, real=blocks.values):
        if peers.rank == 1 and first == 16:
            os.kill(os.getpid(), signal.SIGUSR2)
        return real(first, last)
    blocks.values = values
    try:
        blocks.fill(Path(sys.argv[1]), peers)
    except Leaving as leaving:
        print(leaving)
"""


def test_ranks_leave_blocks_together(tmp_path: Path) -> None:
    results = finish(start_ranks([tmp_path / "rows.npy"], 2, ["-c", LEAVE_BLOCKS]))
    assert [code for code, _ in results] == [0, 0], results
    said = [out.splitlines()[-1] for _, out in results]
    assert said == [f"left after {count} of 3 blocks because of SIGUSR2" for count in (3, 2)]
    assert len(fill(tmp_path / "rows.npy")) == 1
