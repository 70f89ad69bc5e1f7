"""The snapshot: the code as it was, told apart from its commit, and what a worker imports whatever is edited later."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bingo.config import DemoDataConfig
from bingo.errors import UserError
from bingo.files import hash_file
from bingo.launch.job.spec import JobSpec
from bingo.launch.layout import job_folder
from bingo.launch.submit import snapshot
from bingo.stages import Stage
from tests.support.ranks import ROOT

pytestmark = pytest.mark.quick


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this package under git, with one commit."""
    top = tmp_path / "checkout"
    for name in snapshot.FOLDERS:
        shutil.copytree(ROOT / name, top / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (top / ".gitignore").write_text("__pycache__\n*.log\n")
    git(top, "init", "-q")
    git(top, "add", "-A")
    git(top, "commit", "-qm", "all")
    return top


def test_what_is_not_committed_is_in_it_and_in_the_diff(checkout: Path, tmp_path: Path) -> None:
    clean = snapshot.take(tmp_path / "a" / "code", checkout / "bingo")
    assert (clean["sha"], clean["dirty"], clean["diff"]) == (git(checkout, "rev-parse", "HEAD").strip(), False, None)
    (checkout / "bingo" / "errors.py").write_text("changed = True\n")
    (checkout / "launch" / "new.py").write_text("new = True\n")
    (checkout / "launch" / "noise.log").write_text("ignored\n")
    (checkout / "bench" / "gone.py").write_text("")
    (checkout / "bench" / "report" / "page.py").unlink()
    git(checkout, "add", "bench/gone.py")
    (checkout / "bench" / "gone.py").unlink()
    facts = snapshot.take(tmp_path / "b" / "code", checkout / "bingo")
    code = tmp_path / "b" / "code"
    assert facts["dirty"]
    assert facts == json.loads((tmp_path / "b" / "code.json").read_text())
    assert (code / "bingo" / "errors.py").read_text() == "changed = True\n"
    assert (code / "launch" / "new.py").exists()
    assert (code / "launch" / "submit" / "teardown.sh").exists()
    assert not (code / "launch" / "noise.log").exists()
    assert not (code / "bench" / "report" / "page.py").exists()
    assert facts["hash"] != clean["hash"]
    again = tmp_path / "again"  # the commit with the diff is what was copied
    git(tmp_path, "clone", "-q", str(checkout), str(again))
    git(again, "apply", str(tmp_path / "b" / "code.diff"))
    for path in sorted(p for p in code.rglob("*") if p.is_file()):
        assert hash_file(again / path.relative_to(code)) == hash_file(path), path
    assert {p.relative_to(code) for p in code.rglob("*.py")} == {p.relative_to(again) for p in again.rglob("*.py")}, (
        "nothing more, nothing less"
    )


def test_links_stay_inside(checkout: Path, tmp_path: Path) -> None:
    snapshot.take(tmp_path / "code", checkout / "bingo")
    for name in ("kernels", "launch", "bench"):
        assert (tmp_path / "code" / "bingo" / name).is_symlink()
        assert (tmp_path / "code" / "bingo" / name).resolve() == (tmp_path / "code" / name).resolve()


def test_an_installed_package_is_copied_whole(checkout: Path, tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    shutil.copytree(checkout / "bingo", site / "bingo")  # as a wheel has it: folders in place of links
    facts = snapshot.take(tmp_path / "code", site / "bingo")
    assert (facts["sha"], facts["dirty"]) == (None, False)
    names = {p.relative_to(site) for p in site.rglob("*") if p.is_file()}
    assert {p.relative_to(tmp_path / "code") for p in (tmp_path / "code").rglob("*") if p.is_file()} == names
    assert {Path("bingo/kernels/dispatch.py"), Path("bingo/launch/submit/teardown.sh")} <= names


def test_files_that_change_while_they_are_copied(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One edit during the copy is taken in a second try; an endless writer is refused."""
    copy, edits = snapshot._copy, iter(range(10_000))
    errors = checkout / "bingo" / "errors.py"

    def edit_once(source: Path, target: Path, keep_links: bool) -> None:
        copy(source, target, keep_links)
        if source.name == "loop.py" and next(edits) == 0:
            errors.write_text("edited = 1\n")

    monkeypatch.setattr(snapshot, "_copy", edit_once)
    snapshot.take(tmp_path / "a" / "code", checkout / "bingo")
    assert (tmp_path / "a" / "code" / "bingo" / "errors.py").read_text() == "edited = 1\n"

    def edit_always(source: Path, target: Path, keep_links: bool) -> None:
        copy(source, target, keep_links)
        errors.write_text(f"edited = {next(edits)}\n")

    monkeypatch.setattr(snapshot, "_copy", edit_always)
    with pytest.raises(UserError, match="change while they are copied; submit again"):
        snapshot.take(tmp_path / "b" / "code", checkout / "bingo")
    assert not (tmp_path / "b" / "code").exists()


def test_a_worker_runs_the_snapshot_though_the_checkout_was_edited(checkout: Path, tmp_path: Path) -> None:
    """A job as its script starts it, from the edited checkout's own folder: it runs what was copied before."""
    code = tmp_path / "submission" / "code"
    snapshot.take(code, checkout / "bingo")
    folder = job_folder(code.parent, "data")
    JobSpec("data", ((Stage("images", "demo-data", DemoDataConfig(out=tmp_path / "images")),),)).write(folder)
    broken = "raise SystemExit('the edited checkout was imported')\n"
    for name in ("bingo/images/demo_data.py", "bingo/stages.py", "launch/job/worker.py", "bingo/__init__.py"):
        (checkout / name).write_text(broken)
    outer = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    started = subprocess.run(
        [sys.executable, "-u", "-m", "bingo.launch.job.worker", str(folder)],
        cwd=checkout, env={**outer, "PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert started.returncode == 0, started.stdout + started.stderr
    assert (tmp_path / "images" / "stage.json").exists()
    unsafe = subprocess.run(
        [sys.executable, "-c", "import bingo"], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert "the edited checkout was imported" in unsafe.stderr, "the edit would have been noticed"


def test_a_git_that_fails_is_not_one_without_changes(checkout: Path, tmp_path: Path) -> None:
    """rev-parse and ls-files need no object, diff does: its silence once meant that nothing had changed."""
    (checkout / "bingo" / "errors.py").write_text("changed = True\n")
    shutil.rmtree(checkout / ".git" / "objects")
    (checkout / ".git" / "objects").mkdir()
    with pytest.raises(UserError, match=r"git diff fails in .*checkout, so nobody can say which code would run: fatal"):
        snapshot.take(tmp_path / "code", checkout / "bingo")
