"""Ranks tell each other what they read: what only some see is no user error, and nobody waits for one that failed."""

import pytest
import torch

from bingo.distributed import Said, compare
from bingo.errors import PeerError, TransientError, UserError
from tests.support.ranks import finish, start_ranks

# One rank of two: a line for what each call gave or raised, and at the end that both are still together.
PROGRAM = """
import os
os.environ["SLURMD_NODENAME"] = f"c{os.environ['RANK']}"
from bingo.config_parts import Runtime
from bingo.distributed import world
from bingo.errors import TransientError, UserError

def told(call):
    try:
        print(call())
    except Exception as error:
        print(f"{type(error).__name__}: {error}")

def fails(error):
    raise error

with world(Runtime(device="cpu", threads=1)) as peers:
    second = peers.rank == 1
    told(lambda: peers.together(lambda: 5, lambda found: {"a": found}))
    told(lambda: peers.together(lambda: fails(UserError("no such file"))))
    told(lambda: peers.together(lambda: fails(UserError("no such file")) if second else 5))
    told(lambda: peers.together(lambda: fails(UserError(f"sentence {peers.rank}"))))
    told(lambda: peers.together(lambda: fails(MemoryError("used up")) if second else 5))
    told(lambda: peers.agree("the step", 3 + peers.rank))
    told(lambda: peers.by_main(lambda: fails(ValueError) if second else {"step": 7}))
    told(lambda: peers.by_main(lambda: fails(TransientError("disk full"))))
    told(lambda: peers.by_main(lambda: fails(KeyError("x"))))
    print(peers.everyone(peers.rank))
"""
DIFFER = (
    "TransientError: the ranks do not see the same: the step is 3 on rank 0 on c0, 4 on rank 1 on c1; a node may see "
    "old files or another disk: compare what it has mounted there"
)


def test_two_ranks_and_every_kind_of_end() -> None:
    results = finish(start_ranks([], 2, ["-c", PROGRAM]))
    assert [code for code, _ in results] == [0, 0], results
    first, second = (out.splitlines()[-10:] for _, out in results)
    alike = {
        0: "5",
        1: "UserError: no such file",
        2: "TransientError: rank 1 on c1: no such file; the other ranks do not see that",
        3: "TransientError: rank 0 on c0: sentence 0; rank 1 on c1: sentence 1",
        5: DIFFER,
        6: "{'step': 7}",
        7: "TransientError: disk full",
        9: "[0, 1]",
    }
    for place, line in alike.items():
        assert (first[place], second[place]) == (line, line)
    assert (first[4], second[4]) == ("PeerError: rank 1 on c1: MemoryError: used up", "MemoryError: used up")
    assert (first[8], second[8]) == ("KeyError: 'x'", "PeerError: rank 0 on c0: KeyError: 'x'")


# One rank of two, of which the second one dies.
DIES = """
import os
from bingo.config_parts import Runtime
from bingo.distributed import world
from bingo.errors import PeerError
try:
    with world(Runtime(device="cpu", threads=1)) as peers:
        if peers.rank == 1:
            os._exit(9)
        peers.barrier()
except PeerError as error:
    print(error)
"""


def test_a_peer_that_dies_is_a_sentence() -> None:
    """By hand, too: its own output says why."""
    (code, said), (died, _) = finish(start_ranks([], 2, ["-c", DIES]))
    assert (code, died) == (0, 9), said
    assert said.splitlines()[-1].startswith("lost another rank, whose own output says why: ")


# One rank of two, each told another device: one that is not there, or that only it would take.
DEVICES = """
import os, sys
os.environ["SLURMD_NODENAME"] = f"c{os.environ['RANK']}"
import torch
from bingo import distributed
from bingo.config_parts import Runtime
wanted = sys.argv[1 + int(os.environ["RANK"])]
if wanted == "pretended":
    distributed.pick_device = lambda *_: torch.device("cuda", 0)
try:
    with distributed.world(Runtime(device=wanted if wanted == "cuda" else "cpu", threads=1), timeout_s=60):
        print("joined")
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""
NO_GPU = "runtime.device=cuda was asked for but torch sees no GPU; set --runtime.device cpu, or see `bingo doctor`"


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (["cpu", "cuda"], f"TransientError: rank 1 on c1: {NO_GPU}; the other ranks do not see that"),
        (["cuda", "cuda"], f"UserError: {NO_GPU}"),
        (["pretended", "cpu"], "TransientError: the ranks do not see the same: the device is 'cuda' on rank 0 on c0"),
    ],
)
def test_a_node_that_has_lost_its_gpu(devices: list[str], said: str) -> None:
    """Told before there is a group, in which each would wait for ranks of its own kind."""
    results = finish(start_ranks(devices, 2, ["-c", DEVICES]))
    assert [code for code, _ in results] == [0, 0], results
    assert all(out.splitlines()[-1].startswith(said) for _, out in results), results


def test_many_ranks_in_few_words() -> None:
    said = [Said(f"c{rank // 2}", {"the content of data": "new" if rank == 5 else "old"}) for rank in range(8)]
    with pytest.raises(TransientError, match="is 'old' on rank 0 on c0 and 6 more, 'new' on rank 5 on c2;"):
        compare(said, 0)
    long = [Said("c", {"it": "x" * 200 + str(rank)}) for rank in range(2)]
    with pytest.raises(TransientError, match=r"it is 'x+\.\.\. on rank 0 on c, 'x+\.\.\. on rank 1 on c;"):
        compare(long, 1)
    several = [Said("c", {str(name): rank for name in range(5)}) for rank in range(2)]
    with pytest.raises(TransientError, match=r"2 is 0 on .*; and 2 more; a node"):
        compare(several, 1)


def test_a_fact_that_one_rank_does_not_have() -> None:
    with pytest.raises(TransientError, match="runtime is 1 on rank 0 on c0, missing on rank 1 on c1"):
        compare([Said("c0", {"runtime": 1}), Said("c1")], 0)


def test_an_error_of_the_program_is_raised_where_it_is() -> None:
    said = [Said("c0", error="no such file"), Said("c1", error="OSError: gone", own=True), Said("c2")]
    compare(said, 1)
    for rank in (0, 2):
        with pytest.raises(PeerError, match=r"^rank 1 on c1: OSError: gone$"):
            compare(said, rank)
    compare([Said("c0", error="the same"), Said("c1", error="the same")], 0)
    assert issubclass(PeerError, UserError)
