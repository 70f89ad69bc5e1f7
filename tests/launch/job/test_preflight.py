"""The pre-flight: two real ranks, one of them slowed down; what it says where nobody can take its place."""

import json
import os
from pathlib import Path

import pytest

from bingo.launch.job import preflight
from bingo.launch.job.spec import JobSpec
from tests.support.ranks import finish, start_ranks

GOOD = {"matmul": 10.0, "memory": 20.0, "write": 1.0, "read": 2.0}
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


def test_a_faulty_node_is_excluded_with_the_reason_in_words(tmp_path: Path) -> None:
    JobSpec("train", ((),), parallel=True, nodes=2, preflight=True).write(tmp_path)
    attempt = tmp_path / "attempts" / "local-0"
    attempt.mkdir(parents=True)
    measured = [
        {"node": "c1", "rank": 0, **GOOD, "faults": []},
        {"node": "c2", "rank": 1, **GOOD, "faults": ["GPU 3: x"]},
    ]
    measured.append({"node": "c2", "rank": 2, **GOOD})  # only a node's first rank looks
    assert preflight.conclude(tmp_path, attempt, measured, 3, {("c1", "c2"): 1.0}, 0.0) == 76
    assert (attempt / "exclude").read_text() == "c2\n"
    told = json.loads((attempt / "preflight.json").read_text())
    assert told["slow"] == {"c2": ["GPU 3: x"]}
    assert told["nodes"]["c2"] == GOOD


def test_one_that_breaks_never_stops_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "preflight", lambda *_: 1 / 0)
    monkeypatch.setattr(preflight.faulthandler, "dump_traceback_later", lambda *_, **__: None)
    assert preflight.main(tmp_path) == 0
    assert "ZeroDivisionError" in next(tmp_path.glob("attempts/*/rank-0.jsonl")).read_text()


def test_what_is_damaged_excludes_no_node(tmp_path: Path) -> None:
    """Zeros after a power cut, half a line, a folder, a pipe that nobody writes."""
    damages = {"7-0": b"c1,c-2.x\n", "7-1": bytes(4096), "7-2": b"c3\n\0\0\0", "7-3": b"c4;,\n", "7-4": b"\xff\n",
               "7-5": b"", "71-0": b"c5\n"}  # fmt: skip
    for name, data in damages.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "exclude").write_bytes(data)
    (tmp_path / "7-6" / "exclude").mkdir(parents=True)
    (tmp_path / "7-7").mkdir()
    os.mkfifo(tmp_path / "7-7" / "exclude")
    assert preflight.earlier_excluded(tmp_path / "7-8") == ("c-2.x", "c1", "c3")
    assert preflight.earlier_excluded(tmp_path / "nowhere" / "7-0") == ()


def test_a_task_asks_about_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One task has the array's own number, by which Slurm shows all tasks."""
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(preflight, "_words", lambda *words: asked.append(words) or ["JobId=12", "Features=(null)"])
    for name, value in {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(name, value)
    assert preflight.job_row() == {"JobId": "12", "Features": "(null)"}
    assert asked == [("scontrol", "show", "job", "-o", "12_3")]
