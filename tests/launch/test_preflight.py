"""The pre-flight: which nodes count as slow, tables of figures; and two real ranks, one of them slowed down."""

import json
from pathlib import Path

import pytest

from bingo.launch.job import preflight
from bingo.launch.job.slow_nodes import decide, most_excluded, tournament
from bingo.launch.job.spec import JobSpec
from tests.support.ranks import finish, start_ranks

GOOD = {"matmul": 10.0, "memory": 20.0, "write": 1.0, "read": 2.0}


def rows(**matmul: float) -> dict[str, dict[str, float]]:
    return {node: {**GOOD, "matmul": rate} for node, rate in matmul.items()}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8])
def test_everybody_meets_everybody_once(count: int) -> None:
    players = [f"n{i}" for i in range(count)]
    rounds = tournament(players)
    met = [frozenset(pair) for pairs in rounds for pair in pairs]
    assert len(met) == len(set(met)) == count * (count - 1) // 2
    for pairs in rounds:
        seated = [node for pair in pairs for node in pair]
        assert len(seated) == len(set(seated)), "one at a time"


@pytest.mark.parametrize(
    ("figures", "min_nodes", "idle", "slow", "exclude"),
    [
        (rows(a=10, b=9), 1, 0, [], ()),
        (rows(a=10, b=6.9), 1, 0, ["b"], ("b",)),
        (rows(a=10, b=6.9), 2, 0, ["b"], ()),  # needs both, no other node is free
        (rows(a=10, b=6.9), 2, 1, ["b"], ("b",)),  # a spare takes its place
        (rows(a=10), 1, 5, [], ()),  # nobody to compare with
        (rows(a=10, b=10, c=1), 1, 0, ["c"], ("c",)),
        (rows(a=10, b=10, c=10, d=3, e=2, f=10), 1, 0, ["e", "d"], ("e", "d")),
        (rows(a=10, b=10, c=10, d=10, e=2, f=3, g=1), 1, 0, ["g", "e", "f"], ("g", "e")),  # a third of seven
        (rows(a=10, b=10, c=10, d=3, e=2, f=10), 5, 0, ["e", "d"], ("e",)),  # five must remain
        ({"a": GOOD, "b": {**GOOD, "write": 0.4}}, 1, 0, [], ()),  # shared storage swings
        ({"a": GOOD, "b": {**GOOD, "write": 0.3}}, 1, 0, ["b"], ("b",)),
        ({"a": {**GOOD, "write": 0.0}, "b": {**GOOD, "write": 0.0}}, 1, 0, [], ()),  # a full disk is nobody's fault
        ({"a": {**GOOD, "read": 0.1}, "b": {**GOOD, "matmul": 1.0}}, 1, 0, ["a", "b"], ("a",)),  # never both of two
    ],
)
def test_decision(
    figures: dict[str, dict[str, float]], min_nodes: int, idle: int, slow: list[str], exclude: tuple[str, ...]
) -> None:
    decision = decide(figures, {}, min_nodes=min_nodes, idle=idle)
    assert (list(decision.slow), decision.exclude) == (slow, exclude)
    assert decision.why.startswith(("starts again without", "goes on", "no node is below"))


def test_the_node_common_to_slow_pairs_is_to_blame() -> None:
    pairs = {("a", "b"): 1.0, ("a", "c"): 0.2, ("b", "c"): 0.2}
    decision = decide(rows(a=10, b=10, c=10), pairs)
    assert decision.exclude == ("c",)
    assert decision.slow["c"] == ["all-reduce 0.2 GB/s, 20% of the others' median"]


def test_a_slow_link_alone_blames_nobody() -> None:
    assert decide(rows(a=10, b=10, c=10), {("a", "b"): 1.0, ("a", "c"): 0.2, ("b", "c"): 1.0}).slow == {}
    assert decide(rows(a=10, b=10), {("a", "b"): 0.0}).slow == {}


def test_a_silent_node_is_the_worst() -> None:
    decision = decide(rows(a=10, b=10, c=10, d=2), {}, silent=("e",))
    assert list(decision.slow) == ["e", "d"]
    assert decision.exclude == ("e",)


def test_earlier_attempts_count() -> None:
    assert decide(rows(a=10, b=10, c=10, d=10, e=1), {}, earlier=("x",)).exclude == ("e",)
    assert decide(rows(a=10, b=10, c=1), {}, earlier=("x",)).exclude == ()
    assert decide(rows(a=10), {}, earlier=("b",)).exclude == ()


def test_never_all_nodes() -> None:
    assert [most_excluded(n) for n in range(8)] == [0, 0, 1, 1, 1, 1, 2, 2]


SLOWED = """
import os, sys
from pathlib import Path
import torch
rank = os.environ["RANK"]
os.environ.update(SLURMD_NODENAME="c" + str(int(rank) + 1), LOCAL_RANK="0")
if rank == os.environ.get("SLOW"):
    mm = torch.mm
    torch.mm = lambda a, b: [mm(a, b) for _ in range(8)]
from bingo.launch.job import preflight
from bingo.launch.job.worker import end
end(preflight.main(Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_a_slow_rank_is_excluded_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLOW", "1")
    for name in ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_STEP_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    JobSpec("train", ((),), parallel=True, nodes=2, preflight=True).write(tmp_path)
    ended = finish(start_ranks([tmp_path], 2, ("-c", SLOWED)))
    assert [status for status, _ in ended] == [76, 76], ended
    attempt = tmp_path / "attempts" / "local-0"
    assert (attempt / "exclude").read_text() == "c2\n"
    told = json.loads((attempt / "preflight.json").read_text())
    nodes = told["nodes"]
    assert set(nodes) == {"c1", "c2"}
    assert all(rate > 0 for row in nodes.values() for rate in row.values())
    assert nodes["c2"]["matmul"] < 0.7 * nodes["c1"]["matmul"]
    assert told["pairs"][0]["nodes"] == ["c1", "c2"]
    assert told["pairs"][0]["gb_s"] > 0
    event = json.loads((attempt / "rank-0.jsonl").read_text())
    assert (event["event"], event["excluded"]) == ("preflight", ["c2"])
    assert not list(attempt.glob(".preflight*")), "the measured file is gone"


def test_without_a_spare_it_goes_on_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    JobSpec("train", ((),), parallel=True, nodes=2, min_nodes=2, preflight=True).write(tmp_path)
    attempt = tmp_path / "attempts" / "local-0"
    attempt.mkdir(parents=True)
    measured = [{"node": node, "rank": at, **GOOD, "matmul": 10.0 - 9 * at} for at, node in enumerate(("c1", "c2"))]
    assert preflight.conclude(tmp_path, attempt, measured, 2, {("c1", "c2"): 1.0}, 0.0) == 0
    assert not (attempt / "exclude").exists()
    assert "c2" in json.loads((attempt / "rank-0.jsonl").read_text())["slow"]
    assert "no other node of the partition is free" in capsys.readouterr().out


def test_one_that_breaks_never_stops_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "preflight", lambda *_: 1 / 0)
    monkeypatch.setattr(preflight.faulthandler, "dump_traceback_later", lambda *_, **__: None)
    assert preflight.main(tmp_path) == 0
    assert "ZeroDivisionError" in next(tmp_path.glob("attempts/*/rank-0.jsonl")).read_text()
