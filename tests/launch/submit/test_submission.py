"""The folder of a submission: never shared, nothing half-made, a record that survives a torn line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.launch.job.spec import JobSpec
from bingo.launch.submit.submission import cluster_of, newest, read, stage
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
    assert "has 1 damaged line: " in (again.lost() or "")
    assert [line.slurm_id for line in again.sent()] == ["1", "2", "3"]
    assert {task: line.slurm_id for (job, task), line in again.newest().items() if job == "b"} == {
        0: "2",
        1: "3",
        2: "2",
    }


def test_what_flags_replaced_is_read_again(tmp_path: Path) -> None:
    """Also of an older submission, which has fewer of them or none."""
    made = staged(tmp_path, JobSpec("a", ((),)))
    (made.folder / "site.toml").write_text("nodes = 4\npartition = 'gpu'\n")
    facts = json.loads((made.folder / "submission.json").read_text())
    for overrides, nodes, partition in (
        (None, 4, "gpu"),
        ({"nodes": 2, "ranks_per_node": None}, 2, "gpu"),
        ({"nodes": None, "partition": "fast"}, 4, "fast"),
    ):
        facts = {name: value for name, value in facts.items() if name != "overrides"}
        facts |= {} if overrides is None else {"overrides": overrides}
        (made.folder / "submission.json").write_text(json.dumps(facts))
        cluster = cluster_of(read(made.folder))
        assert (cluster.jobs.nodes, cluster.jobs.partition) == (nodes, partition)
    for wrong in ([], {"nodes": "2"}, {"partition": 2}, {"frob": 1}, {"nodes": True}):
        (made.folder / "submission.json").write_text(json.dumps(facts | {"overrides": wrong}))
        with pytest.raises(UserError, match=r"'overrides' is .* which does not belong there"):
            read(made.folder)


WRONG = (
    "\0" * 40,
    "[]",
    "7",
    '"x"',
    "{}",
    '{"job": "a", "slurm_id": "2"',
    '{"job": "z", "slurm_id": "2", "time": 5, "repair": 0}',
    '{"job": "a", "slurm_id": "../2", "time": 5, "repair": 0}',
    '{"job": "a", "slurm_id": "2", "time": NaN, "repair": 0}',
    '{"job": "a", "slurm_id": "2", "time": 1e400, "repair": 0}',
    '{"job": "a", "slurm_id": "2", "time": true, "repair": 0}',
    '{"job": "a", "slurm_id": "2", "time": -1, "repair": 0}',
    '{"job": "a", "slurm_id": "2", "time": 5, "repair": "x"}',
    '{"job": "a", "slurm_id": "2", "time": 5, "repair": 0, "tasks": [7]}',
    "{" * 100_000,
    "\udcff\udcfe",
    "",
    '{"job": "a", "slurm_id": "2", "time": 5, "repair": 0, "tasks": 3}',
)


@pytest.mark.parametrize("at", range(len(WRONG)))
def test_a_damaged_line_hides_no_other_and_is_told_of(tmp_path: Path, at: int) -> None:
    """And what has started left a folder that tells of it: the line of job b is lost, its first task ran."""
    submission = staged(tmp_path, JobSpec("a", ((),)), JobSpec("b", ((), (), ()), array=True))
    submission.record("a", "1", [0], 0)
    assert submission.lost() is None
    with open(submission.folder / "jobs.jsonl", "ab") as file:
        file.write(WRONG[at].encode(errors="surrogateescape") + b"\n")
    submission.record("a", "4", [0], 1)
    (submission.job_folder("b") / "attempts" / "3_1-0").mkdir(parents=True)
    (submission.job_folder("b") / "attempts" / "3_9-0").mkdir()
    assert submission.lost() == (
        f"{submission.folder / 'jobs.jsonl'} has 1 damaged line: a job that was handed to Slurm may be missing here"
    )
    assert [(line.slurm_id, line.tasks) for line in submission.sent()] == [("1", (0,)), ("3", (1,)), ("4", (0,))]


def test_a_submission_without_its_description_is_not_passed_over(tmp_path: Path) -> None:
    """Jobs of it may run: the one before it is not the newest."""
    staged(tmp_path, JobSpec("a", ((),)))
    second = staged(tmp_path, JobSpec("a", ((),)))
    path = second.folder / "submission.json"
    whole = path.read_text()
    for time in ("Infinity", "NaN", "-1", "1e400"):
        path.write_text(re.sub('"time": [^,]*', f'"time": {time}', whole))
        with pytest.raises(UserError, match=r"submission.json: 'time' is .*, which is no time; restore it"):
            newest(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"submission.json does not exist"):
        newest(tmp_path)
    path.symlink_to(path)
    with pytest.raises(UserError, match=r"submission.json: Too many levels of symbolic links"):
        newest(tmp_path)
