"""`bingo prune`: what goes, what stays and why, and what is left of one that was killed in between."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bingo.cli import main
from bingo.errors import UserError
from bingo.launch.cluster.slurm import Row, Snapshot
from bingo.launch.status import prune as module
from bingo.launch.status.prune import prune, strangers, told
from bingo.launch.submit.submission import Submission, submissions
from tests.support.submissions import attempt, job, staged

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def slurm(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the jobs that a pretended Slurm knows; it gives no answer while there is an empty one."""
    ids: list[str] = []

    def ask(since: float, newer: float, owner: int) -> Snapshot:
        queue = {id_: Row(id_, "RUNNING") for id_ in ids}
        return Snapshot(time.time(), since, None if "" in ids else queue, problems=("squeue gives no answer",))

    monkeypatch.setattr("bingo.launch.submit.send.ask", ask)
    monkeypatch.setattr("bingo.launch.submit.send.PAUSES_S", ())
    return ids


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "r"


def old(root: Path, slurm_id: str = "7", days: float = 7) -> Submission:
    """A submission with all that jobs leave in one, sent some days ago."""
    made = staged(root, job(root, "a"))
    when = time.time() - days * 86_400
    facts = json.loads((made.folder / "submission.json").read_text())
    (made.folder / "submission.json").write_text(json.dumps(facts | {"time": when}))
    (made.folder / "jobs.jsonl").write_text(json.dumps({"job": "a", "slurm_id": slurm_id, "time": when, "repair": 0}))
    for name in ("code", "code-2", ".code-3.staged"):
        (made.folder / name / "bingo" / "train").mkdir(parents=True)
        (made.folder / name / "bingo" / "train" / "loop.py").write_text("x" * 10_000)
    (made.folder / "code" / "bingo" / "launch").symlink_to("../launch")
    for name in ("site.toml", "code.json", "code.diff", "code-2.json", "code-2.diff", "refused", ".refused.h-1.tmp"):
        (made.folder / name).write_text("{}")
    for name in (f"{slurm_id}_0_log.out", f"{slurm_id}_batch.log", "cancelled", ".preflight-c1"):
        (made.job_folder("a") / name).write_text("words\n")
    event = {"time": when, "event": "start", "host": "c1", "pid": 1}
    start = attempt(made, "a", f"{slurm_id}-0", begin={"time": when}, events={0: [event]}, beat=f"3 {when} a")
    for name in ("end.json", "preflight.json", "exclude"):
        (start / name).write_text("{}")
    return made


def snapshot(root: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))}


def test_shown_first_then_deleted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = (old(root, str(n)) for n in (7, 8, 9))
    (root / "a").mkdir()
    (root / "a" / "stage.json").write_text("{}")
    (root / "submissions" / "notes.txt").write_text("mine")
    before = snapshot(root)
    assert prune([str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:3]] == [str(made.folder) for made in (first, second, third)]
    assert [line.split("  ")[-1] for line in lines[:3]] == ["would go", "would go", "stays: the newest"]
    assert f"; next: bingo prune {root} --yes" in lines[3]
    assert snapshot(root) == before, "nothing is written, let alone deleted"
    assert prune([str(root), "--keep", "2", "--yes"]) == 0
    assert submissions(root) == [third.folder, second.folder]
    assert prune([str(root), "--yes"]) == 0
    capsys.readouterr()
    gone = {path for path in before if path.is_relative_to(first.folder) or path.is_relative_to(second.folder)}
    after = {path: data for path, data in snapshot(root).items() if path.name != ".lock"}
    assert after == {path: data for path, data in before.items() if path not in gone}
    assert prune([str(root), "--keep", "5"]) == 0
    assert capsys.readouterr().out.endswith("stays: the newest\nnothing to delete\n")


def _alive(made: Submission, ids: list[str]) -> None:
    ids.append("7")


def _notes(made: Submission, ids: list[str]) -> None:
    (made.job_folder("a") / "notes.txt").write_text("mine")


def _in_the_code(made: Submission, ids: list[str]) -> None:
    (made.folder / "code" / "notes.txt").write_text("mine")


def _link(made: Submission, ids: list[str]) -> None:
    (made.folder / "data").symlink_to(made.root)


def _moved_to_another_disk(made: Submission, ids: list[str]) -> None:
    there = made.root.parent / "disk"
    shutil.move(made.folder, there)
    made.folder.symlink_to(there)


def _renamed(made: Submission, ids: list[str]) -> None:
    made.folder.rename(made.folder.with_name("1-paper"))


def _damaged(made: Submission, ids: list[str]) -> None:
    (made.folder / "submission.json").write_text('{"time": ')


def _repaired(made: Submission, ids: list[str]) -> None:
    made.record("a", "17", [0], 1)


def _writes(made: Submission, ids: list[str]) -> None:
    attempt(made, "a", "7-1", begin={"time": time.time()})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_alive, "its jobs may still run: a (7)"),
        (_notes, "it holds jobs/a/notes.txt, which bingo did not write"),
        (_in_the_code, "it holds code/notes.txt, "),
        (_link, "it holds data, "),
        (_moved_to_another_disk, "a link, or another user's"),
        (_renamed, "it was given another name"),
        (_damaged, "is not valid JSON"),
        (_repaired, "sent 0 s ago"),
        (_writes, "a job of it wrote there 0 s ago"),
    ],
)
def test_what_stays(
    root: Path, slurm: list[str], change: Callable[[Submission, list[str]], None], why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    first, last = old(root), old(root, "8")
    change(first, slurm)
    os.utime(last.folder)
    before = snapshot(root)
    assert prune([str(root), "--older-than", "3", "--yes"]) == 0
    assert why in capsys.readouterr().out
    assert {path: data for path, data in snapshot(root).items() if path.name != ".lock"} == before


def test_another_users(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the folder's mode would allow it: what is another's is theirs to delete."""
    first, _ = old(root), old(root, "8")
    monkeypatch.setattr(os, "getuid", lambda: first.folder.stat().st_uid + 1)
    assert prune([str(root), "--yes"]) == 0
    assert "another user's" in capsys.readouterr().out
    assert first.folder.exists()


def test_younger_ones_stay(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, _ = old(root, "7", days=9), old(root, "8", days=2), old(root, "9", days=1)
    assert prune([str(root), "--older-than", "3", "--yes"]) == 0
    assert "stays: sent 2.0 days ago" in capsys.readouterr().out
    assert (first.folder.exists(), second.folder.exists()) == (False, True)


@pytest.mark.parametrize("words", [[], ["--yes"]])
def test_no_answer_of_slurm(root: Path, slurm: list[str], words: list[str]) -> None:
    first, _ = old(root), old(root, "8")
    slurm.append("")
    with pytest.raises(UserError, match="gives no answer"):
        prune([str(root), *words])
    assert first.folder.exists()


def test_killed_in_between(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is half deleted is no submission any more; the next call deletes the rest."""
    first, second = old(root), old(root, "8")

    def killed(path: Path) -> None:
        (path / "jobs.jsonl").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prune([str(root), "--yes"])
    assert submissions(root) == [second.folder]
    hidden = first.folder.with_name(f".{first.id}.pruned")
    assert hidden.exists()
    (root / "submissions" / ".20261101-101010-3.staged").mkdir()
    (root / "submissions" / ".mine.staged").mkdir()
    capsys.readouterr()
    assert prune([str(root), "--yes"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:3]] == ["rest", "rest", "submission"]
    assert sorted(os.listdir(root / "submissions")) == [".lock", ".mine.staged", second.id]


def test_results_that_were_moved_aside(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Listed, and deleted on request; folders that only look like these are not."""
    old(root)
    names = ("a.replaced-20260101-101010", "a.replaced-20260101-101010-2", ".a.replaced-20260101-101011.pruned")
    others = ("b.replaced-20260101-101010", "a.replaced-20269999-101010", "a.replaced-mine", "a")
    for name in (*names, *others):
        (root / name).mkdir()
        (root / name / "digits.json").write_text("{}")
    others = (*others, "a.replaced-20260101-101010-3")
    shutil.copytree(root / names[0], root / others[-1])
    (root / others[-1] / "notes.txt").write_text("mine")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    (root / f"a.replaced-{stamp}").mkdir()
    assert prune([str(root), "--yes"]) == 0
    assert capsys.readouterr().out.count("stays: results of before; --replaced deletes them") == 4
    assert {path.name for path in root.iterdir()} == {*names[:2], *others, f"a.replaced-{stamp}", "submissions"}
    assert prune([str(root), "--replaced", "--older-than", "1"]) == 0
    said = capsys.readouterr().out
    assert said.count("  would go") == 2
    assert "-3  " in said
    assert "stays: it holds notes.txt, which bingo did not write" in said
    assert prune([str(root), "--replaced", "--older-than", "1", "--yes"]) == 0
    assert {path.name for path in root.iterdir()} == {*others, f"a.replaced-{stamp}", "submissions"}


def test_a_folder_that_cannot_be_deleted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old(root)
    old(root, "8")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path / "code"))

    monkeypatch.setattr(module.shutil, "rmtree", refuse)
    with pytest.raises(UserError, match="pruned/code: Permission denied; mend that, then run the same command again"):
        prune([str(root), "--yes"])


def test_every_root_below_runs(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(root.parent)
    for name in ("one", "two"):
        old(Path("runs") / name)
        old(Path("runs") / name, "8")
    assert main(["prune"]) == 0
    assert capsys.readouterr().out.count("would go\n") == 2
    assert main(["prune", "runs/none", "--yes"]) == 2
    assert not (root.parent / "runs" / "none").exists()


def test_sizes_for_people() -> None:
    assert [told(n) for n in (0, 2048, 3 << 20, 5 << 29)] == ["0 bytes", "2.0 KiB", "3.0 MiB", "2.5 GiB"]


def test_all_that_the_suite_writes_is_known(root: Path) -> None:
    assert list(strangers(old(root).folder)) == []
