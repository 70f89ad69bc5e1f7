"""What is moved aside, and what is never touched."""

import json
import os
from pathlib import Path

import pytest

from bingo.aside import move_aside, own_files
from bingo.errors import TransientError, UserError
from bingo.files import REPLACED, folder_lock, write_sealed

pytestmark = pytest.mark.quick

OURS = (
    "config.json", "environment.json", "metrics.jsonl", "model.pt", ".model.pt.n1-7-0a1b2c3d.tmp",
    "checkpoints/step-0000000005.pt", "checkpoints/damaged-step-0000000004.pt", "checkpoints/.step-1.pt.n1-7-aa.tmp",
    "eval/linear/linear.pt", "eval/linear/stage.json", "stage.json",
)  # fmt: skip
THEIRS = (
    "notes.txt", "weights.pt", "checkpoints/best.pt", "eval/linear/plot.png", "eval/table.csv", ".git/config", ".x.tmp",
    "sub/model.pt", "linear.pt",
)  # fmt: skip


def write(out: Path, names: tuple[str, ...], text: str = "") -> Path:
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text or name)
    return out


def run(out: Path) -> Path:
    """A run's folder with an evaluation inside, and files of the user everywhere."""
    write(out, (*OURS, *THEIRS))
    write_sealed(out / "stage.json", {"kind": "distill", "key": "1"})
    write_sealed(out / "eval" / "linear" / "stage.json", {"kind": "eval", "key": "2"})
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_the_suite_wrote_is_moved_and_nothing_else(tmp_path: Path) -> None:
    out = run(tmp_path / "run")
    before = files(out)
    moved = move_aside(out, "distill")
    assert moved is not None
    assert moved.names[-1] == "stage.json", "while it is there, the folder says what it is"
    assert str(moved) == f"{out}: what was there is in {moved.aside}"
    assert files(moved.aside) == {name: before[name] for name in OURS}
    left = files(out)
    assert json.loads(left.pop(REPLACED))["moved_to"] == str(moved.aside)
    assert {name: text for name, text in left.items() if not name.endswith(".lock")} == {n: before[n] for n in THEIRS}
    moved.back()
    assert {name: text for name, text in files(out).items() if not name.endswith(".lock")} == before
    assert not moved.aside.exists()


def test_the_same_second_gets_a_number(tmp_path: Path) -> None:
    asides = []
    for _ in range(5):
        write(tmp_path / "run", ("config.json", "model.pt"))
        moved = move_aside(tmp_path / "run", "distill")
        assert moved is not None
        asides.append(moved.aside)
    assert len(set(asides)) == 5
    assert all(files(aside).keys() == {"config.json", "model.pt"} for aside in asides)
    assert not (tmp_path / "run" / REPLACED).exists(), "nothing of the user is left there"
    assert move_aside(tmp_path / "run", "distill") is None
    assert move_aside(tmp_path / "nowhere", "distill") is None


def test_a_folder_in_use_stays(tmp_path: Path) -> None:
    out = run(tmp_path / "run")
    for held in (out, out / "eval" / "linear"):
        with folder_lock(held), pytest.raises(TransientError, match="another process is writing"):
            move_aside(out, "distill")
    assert {name for name in files(out) if not name.endswith(".lock")} == {*OURS, *THEIRS}
    assert list(tmp_path.iterdir()) == [out]


def test_what_cannot_all_be_moved_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, rename = run(tmp_path / "run"), __import__("os").rename

    def fails(source: Path, target: Path) -> None:
        if source.name == "model.pt" and ".replaced-" in str(target):
            raise OSError(18, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr("os.rename", fails)
    with pytest.raises(UserError, match=r"cannot move aside what is in \S+run: Invalid cross-device link; it is as it"):
        move_aside(out, "distill")
    assert {name for name in files(out) if not name.endswith(".lock")} == {*OURS, *THEIRS}
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("moved", [False, True])
def test_an_interrupt_moves_all_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: bool) -> None:
    out = run(tmp_path / "run")
    rename = os.rename
    calls: list[Path] = []

    def interrupted(source: Path, target: Path) -> None:
        calls.append(source)
        if moved or len(calls) != 4:
            rename(source, target)
        if len(calls) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        move_aside(out, "distill")
    assert {name for name in files(out) if not name.endswith(".lock")} == {*OURS, *THEIRS}
    assert list(tmp_path.iterdir()) == [out]


def test_what_began_anew_is_not_overwritten(tmp_path: Path) -> None:
    out = run(tmp_path / "run")
    moved = move_aside(out, "distill")
    assert moved is not None
    write(out, ("stage.json", "model.pt"), "new")
    with pytest.raises(UserError, match=r"run was begun anew; what was there stays in \S+run.replaced-"):
        moved.back()
    assert (out / "model.pt").read_text() == "new"


def test_links_are_moved_and_not_followed(tmp_path: Path) -> None:
    """Checkpoints on another disk; a run of somebody else linked into this one."""
    other = run(tmp_path / "other")
    write(tmp_path / "disk", ("step-0000000005.pt",))
    out = write(tmp_path / "real", ("config.json",))
    (out / "checkpoints").symlink_to(tmp_path / "disk")
    (out / "compare").symlink_to(other)
    (tmp_path / "run").symlink_to(out)
    assert set(own_files(out, "distill")) == {"config.json", "checkpoints"}
    moved = move_aside(tmp_path / "run", "distill")
    assert moved is not None
    assert moved.aside.parent == tmp_path
    assert (moved.aside / "checkpoints").readlink() == tmp_path / "disk"
    assert set(files(other)) == {*OURS, *THEIRS}
