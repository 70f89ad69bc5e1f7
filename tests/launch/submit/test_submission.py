"""The folder of a submission: never shared, nothing half-made, a record that survives a torn line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.launch.job.spec import JobSpec
from bingo.launch.submit.submission import newest, stage
from tests.support.ranks import ROOT
from tests.support.submissions import staged

STAGER = """
import sys, time, pathlib
from bingo.launch.submit import submission
from bingo.launch.job.spec import JobSpec
root, gate, who = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
fill = lambda staged, final: (staged / "who").write_text(f"{who} {final}")
pathlib.Path(f"{gate}-{who}").touch()
while not gate.exists(): time.sleep(0.0005)
for _ in range(15): print(submission.stage(root, {}, [JobSpec("a b", ())], fill).folder)
"""


def test_submissions_of_the_same_instant_never_share_a_folder(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = [sys.executable, "-c", STAGER, str(tmp_path / "root"), str(gate)]
    processes = [
        subprocess.Popen([*command, str(who)], stdout=subprocess.PIPE, text=True, cwd=ROOT) for who in range(6)
    ]
    while len(list(tmp_path.glob("gate-*"))) < 6:
        assert all(p.poll() is None for p in processes)
    gate.touch()
    folders = {}
    for who, process in enumerate(processes):
        lines = process.communicate(timeout=900)[0].splitlines()
        assert process.returncode == 0
        folders |= dict.fromkeys(lines, who)
    assert len(folders) == 90
    for folder, who in folders.items():
        assert (Path(folder) / "who").read_text() == f"{who} {folder}", "a folder holds what its owner wrote"
        assert json.loads((Path(folder) / "submission.json").read_text())["id"] == Path(folder).name
        assert (Path(folder) / "jobs" / "a-b" / "job.json").exists()
    left = [p for p in (tmp_path / "root" / "submissions").iterdir() if str(p) not in folders]
    assert left == [], "nothing half-made is left"


def test_a_submission_that_cannot_be_staged_leaves_nothing(tmp_path: Path) -> None:
    def fail(staged: Path, final: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write .*submissions: No space left on device; choose another --out"):
        stage(tmp_path, {}, [], fail)
    assert list((tmp_path / "submissions").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --out"):
        stage(tmp_path / "file", {}, [], fail)


def test_the_record_survives_a_torn_line(tmp_path: Path) -> None:
    submission = staged(tmp_path, JobSpec("a", ((),)), JobSpec("b", ((), (), ()), array=True))
    submission.record("a", "1", [0], 0)
    submission.record("b", "2", [0, 1, 2], 0)
    with open(submission.folder / "jobs.jsonl", "a") as file:
        file.write('{"job": "b", "slurm_i')
    submission.record("b", "3", [1], 1)
    again = newest(tmp_path)
    assert again is not None
    assert [line.slurm_id for line in again.sent()] == ["1", "2", "3"]
    assert {task: line.slurm_id for (job, task), line in again.newest().items() if job == "b"} == {
        0: "2",
        1: "3",
        2: "2",
    }
