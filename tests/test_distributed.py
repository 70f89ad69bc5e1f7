"""Ranks: whom they are, how they share rows, and what they agree on."""

import pytest
import torch

from bingo.config_parts import Runtime
from bingo.distributed import World, pick_device, shard
from bingo.errors import UserError
from tests.support.ranks import finish, start_ranks

# One rank of several that hears signals: answers of `leaving` at each call, and what was left in flight.
AGREE = """
import os, signal, sys, time
from bingo.config_parts import Runtime
from bingo.distributed import world
from bingo.watch import Watch
watch = Watch()
watch.listen()
with world(Runtime(device="cpu", threads=1), watch) as peers:
    answers = []
    for step in range(6):
        if step == 2 and peers.rank == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGUSR2)
        answers.append(peers.leaving())
    peers.settle()
    answers.append(peers.leaving(now=True))
    print(answers, watch.asked)
"""


def test_all_ranks_hear_of_it_at_the_same_call() -> None:
    results = finish(start_ranks([1], 2, ["-c", AGREE]))
    assert [code for code, _ in results] == [0, 0], results
    assert len({out.splitlines()[-1] for _, out in results}) == 1
    assert results[0][1].splitlines()[-1] == "[False, False, False, True, False, True, True] SIGUSR2"


def test_nobody_was_asked() -> None:
    results = finish(start_ranks([-1], 2, ["-c", AGREE]))
    assert [out.splitlines()[-1] for _, out in results] == [f"{[False] * 7} None"] * 2


@pytest.mark.parametrize(("count", "world"), [(0, 3), (2, 3), (10, 4), (1078, 7)])
def test_shards_are_contiguous_and_alike(count: int, world: int) -> None:
    bounds = [shard(count, rank, world) for rank in range(world)]
    assert [0, *(hi for _, hi in bounds)] == [*(lo for lo, _ in bounds), count]
    assert max(hi - lo for lo, hi in bounds) - min(hi - lo for lo, hi in bounds) <= 1


def test_processes_play_the_ranks_of_a_run(caplog: pytest.LogCaptureFixture) -> None:
    two = World(1, 2, torch.device("cpu"), 1)
    assert (two.ranks, two.shares, two.first_share, two.main) == (2, 1, 1, False)
    six = two.counting_as(6)
    assert (six.ranks, six.shares, six.first_share) == (6, 3, 3)
    assert World(0, 2, torch.device("cpu"), 1).counting_as(3).ranks == 2
    assert "a run of 3 ranks does not divide among 2 processes: it goes on with 2" in caplog.text


def test_one_process_needs_no_peers() -> None:
    alone, rows = World(0, 1, torch.device("cpu"), 1), torch.rand(3, 2)
    assert alone.gather_rows(rows)() is rows
    assert alone.gather_shards(rows, 3) is rows
    assert alone.gather_lists([1, 2]) == [1, 2]
    before = rows.clone()
    alone.average([rows])
    alone.broadcast([rows])
    alone.barrier()
    assert torch.equal(rows, before)


def test_devices() -> None:
    assert pick_device(Runtime(device="cpu")) == torch.device("cpu")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert pick_device(Runtime()) == torch.device("cpu")
    with pytest.raises(UserError, match=r"runtime\.device=cuda was asked for but torch sees no GPU"):
        pick_device(Runtime(device="cuda"))
