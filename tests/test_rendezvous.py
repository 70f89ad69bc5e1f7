"""Ranks that wait for each other: they leave when asked to, and say in one sentence why they cannot begin."""

import os
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

from tests.support.ranks import ROOT, wait_for

# One rank, which waits argv[1] seconds at most. It says when it begins to wait, and how that ended.
RANK = """
import sys
from bingo.rendezvous import meet
from bingo.variables import place
from bingo.errors import UserError
from bingo.watch import Leaving, Watch
watch = Watch()
watch.event = lambda name, **facts: print("EVENT", name, facts)
watch.listen()
print("WAITS", flush=True)
try:
    store = meet(place(), watch, float(sys.argv[1]))
    store.add("met", 1)
    while store.add("met", 0) < place().size:
        pass
    print("MET")
except (UserError, Leaving) as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


Rank = subprocess.Popen[str]


def start(log: Path, port: int, rank: int, size: int, seconds: float = 900, address: str = "127.0.0.1") -> Rank:
    """A rank whose output goes to a file."""
    variables = {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": address, "MASTER_PORT": str(port)}
    with open(log, "w") as file:
        command = [sys.executable, "-c", RANK, str(seconds)]
        return subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=file, stderr=subprocess.STDOUT, text=True, cwd=ROOT
        )


def end(*ranks: Rank) -> None:
    for rank in ranks:
        rank.wait(900)


def told(log: Path) -> str:
    """All that a rank said after it had begun to wait."""
    return log.read_text().removeprefix("WAITS\n").rstrip()


def waits(log: Path, rank: Rank) -> None:
    wait_for(lambda: "WAITS" in log.read_text(), rank)


def have_come(port: int, *ranks: Rank) -> None:
    """Wait until so many ranks have reached rank 0."""
    store = dist.TCPStore("127.0.0.1", port, None, False, timedelta(seconds=900), wait_for_workers=False)
    wait_for(lambda: dist.PrefixStore("bingo/0", store).add("come", 0) == len(ranks), *ranks)


@pytest.fixture
def log(tmp_path: Path) -> list[Path]:
    return [tmp_path / f"{at}.log" for at in range(3)]


def test_all_come(log: list[Path], port: int) -> None:
    end(*(start(log[rank], port, rank, 3) for rank in (2, 1, 0)))
    assert [told(path) for path in log] == ["MET"] * 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_rank_leaves_that_never_reached_another(log: list[Path], port: int, number: signal.Signals) -> None:
    rank = start(log[1], port, 1, 4)
    waits(log[1], rank)
    rank.send_signal(number)
    end(rank)
    assert told(log[1]).splitlines() == [
        f"EVENT left {{'step': None, 'signal': '{number.name}'}}",
        f"Leaving left before it had started because of {number.name}",
    ]


@pytest.mark.parametrize("asked", [0, 1])
def test_a_rank_that_leaves_takes_the_others_with_it(log: list[Path], port: int, asked: int) -> None:
    ranks = [start(log[rank], port, rank, 3) for rank in range(2)]
    have_come(port, *ranks)
    ranks[asked].send_signal(signal.SIGUSR2)
    end(*ranks)
    assert [told(path).splitlines()[-1] for path in log[:2]] == [
        "Leaving left before it had started because of SIGUSR2"
    ] * 2


def test_ranks_that_do_not_come_are_named(log: list[Path], port: int) -> None:
    end(*(start(log[rank], port, rank, 3, seconds=5) for rank in (0, 2)))
    first, last = told(log[0]), told(log[2])
    assert first == last
    assert first.startswith("PeerError timed out: after ")
    assert f"2 of 3 ranks have come to 127.0.0.1:{port}, not RANK=1; start these too" in first


def test_nobody_listens(log: list[Path], port: int) -> None:
    end(start(log[1], port, 1, 2, seconds=1))
    assert told(log[1]).startswith(
        f"PeerError RANK=1 timed out: RANK=0 at MASTER_ADDR=127.0.0.1, MASTER_PORT={port} did"
    )
    assert "(connection refused); start it, or correct MASTER_ADDR and MASTER_PORT" in told(log[1])


def test_another_program_has_the_port(log: list[Path]) -> None:
    """It accepts and never answers: torch would wait for it without end."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        end(start(log[0], other.getsockname()[1], 0, 2), start(log[1], other.getsockname()[1], 1, 2, seconds=2))
    assert "TransientError RANK=0 cannot listen on MASTER_PORT=" in told(log[0])
    assert "address already in use; end the program that has it" in told(log[0])
    assert "did not answer (another program listens there)" in told(log[1])


@pytest.mark.parametrize("address", ["no such host", "x" * 80])
def test_an_address_that_is_none(log: list[Path], port: int, address: str) -> None:
    end(start(log[0], port, 0, 2, address=address), start(log[1], port, 1, 2, address=address))
    for path in log[:2]:
        assert f"Error MASTER_ADDR={address!r} cannot be found (" in told(path)
        assert "Traceback" not in told(path)


def test_two_ranks_of_one_number(log: list[Path], port: int) -> None:
    end(*(start(log[at], port, rank, 3) for at, rank in enumerate((0, 1, 1))))
    sentence = "UserError two processes are RANK=1 of WORLD_SIZE=3; give each a number of its own"
    assert {told(path) for path in log} == {sentence}


def test_ranks_that_disagree(log: list[Path], port: int) -> None:
    end(start(log[0], port, 0, 3), start(log[1], port, 1, 2))
    assert told(log[0]) == told(log[1])
    assert "UserError the ranks do not agree: WORLD_SIZE=" in told(log[0])


def test_rank_0_is_killed(log: list[Path], port: int) -> None:
    ranks = [start(log[rank], port, rank, 3) for rank in range(2)]
    have_come(port, *ranks)
    ranks[0].kill()
    end(*ranks)
    place = f"RANK=0 at MASTER_ADDR=127.0.0.1, MASTER_PORT={port}"
    last = told(log[1]).splitlines()[-1]  # torch warns by itself before
    assert last.startswith(f"PeerError lost {place} before all 3 ranks had come: ")
