"""Checkpoints: the newest whole one wins, damaged ones are set aside aloud, and only damage is damage."""

import errno
import logging
import os
from pathlib import Path

import pytest
import torch

from bingo.errors import TransientError, UserError
from bingo.files import SAVED
from bingo.train import checkpoint
from bingo.train.checkpoint import check_saved, checkpoint_path, load_newest, record_saved, save_checkpoint

CPU = torch.device("cpu")
DAMAGES = ["truncate", "flip", "empty", "foreign", "zeros", "of another step"]


def fill(folder: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(folder, step, {"key": "k", "value": torch.full((5000,), float(step))})


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "truncate":
        path.write_bytes(data[:-200])
    elif how == "flip":
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "zeros":
        path.write_bytes(bytes(len(data)))
    elif how == "foreign":
        torch.save({"step": 2, "value": 1}, path)
    else:
        torch.save({"step": 77, "key": "k", "format": checkpoint.FORMAT}, path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def newest(folder: Path) -> int | None:
    state = load_newest(folder, "k", CPU)
    return state["step"] if state else None


def test_newest_wins_and_two_are_kept(tmp_path: Path) -> None:
    fill(tmp_path, 10, 20, 30)
    assert names(tmp_path) == ["step-0000000020.pt", "step-0000000030.pt"]
    state = load_newest(tmp_path, "k", CPU)
    assert state is not None
    assert state["step"] == 30
    assert torch.equal(state["value"], torch.full((5000,), 30.0))


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_newest_falls_back(tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str) -> None:
    fill(tmp_path, 1, 2)
    path = checkpoint_path(tmp_path, 2)
    damage(path, how)
    content = path.read_bytes()
    with caplog.at_level(logging.WARNING):
        assert newest(tmp_path) == 1
    assert f"checkpoint {path} is truncated or damaged; falling back to the one before it" in caplog.text
    assert names(tmp_path) == ["damaged-step-0000000002.pt", "step-0000000001.pt"]
    assert (tmp_path / "damaged-step-0000000002.pt").read_bytes() == content


def test_damaged_ones_are_never_counted_or_deleted(tmp_path: Path) -> None:
    """Both newest damaged, then new ones are written and damaged again: each generation stays, and so does each whole
    one that is among the two newest."""
    fill(tmp_path, 1, 2)
    for step in (1, 2):
        damage(checkpoint_path(tmp_path, step), "flip")
    assert newest(tmp_path) is None
    fill(tmp_path, 1)
    assert newest(tmp_path) == 1
    fill(tmp_path, 2)
    damage(checkpoint_path(tmp_path, 2), "truncate")
    assert newest(tmp_path) == 1
    fill(tmp_path, 2, 3)
    damaged = ["damaged-step-0000000001.pt", "damaged-step-0000000002-2.pt", "damaged-step-0000000002.pt"]
    assert names(tmp_path) == [*damaged, "step-0000000002.pt", "step-0000000003.pt"]


def test_pruning_looks_at_what_it_keeps(tmp_path: Path) -> None:
    """The one before was damaged on disk meanwhile: then the one before that is the second whole one."""
    fill(tmp_path, 1, 2)
    damage(checkpoint_path(tmp_path, 2), "zeros")
    fill(tmp_path, 3)
    assert names(tmp_path) == ["damaged-step-0000000002.pt", "step-0000000001.pt", "step-0000000003.pt"]
    fill(tmp_path, 4)
    assert names(tmp_path) == ["damaged-step-0000000002.pt", "step-0000000003.pt", "step-0000000004.pt"]


def test_what_was_just_written_stays_whatever_lies_beside_it(tmp_path: Path) -> None:
    fill(tmp_path, 50)
    foreign = tmp_path / "step-0000000040.pt.backup"
    foreign.write_bytes(b"a user's own")
    (tmp_path / "step-0000000099.pt").mkdir()
    fill(tmp_path, 10, 20, 30)
    kept = ["step-0000000020.pt", "step-0000000030.pt", foreign.name, "step-0000000050.pt", "step-0000000099.pt"]
    assert names(tmp_path) == kept


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ETIMEDOUT, errno.ENOMEM])
def test_a_file_that_cannot_be_read_now_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    fill(tmp_path, 1, 2)
    read = Path.read_bytes

    def fails(path: Path) -> bytes:
        if path.name == "step-0000000002.pt":
            raise OSError(number, "away", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(TransientError, match=r"cannot read the checkpoint \S+2.pt: away; it stays"):
        newest(tmp_path)
    monkeypatch.undo()
    assert names(tmp_path) == ["step-0000000001.pt", "step-0000000002.pt"]
    assert newest(tmp_path) == 2


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: x")])
def test_no_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    fill(tmp_path, 1, 2)

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(checkpoint.torch, "load", fails)
    with pytest.raises(MemoryError):
        newest(tmp_path)
    monkeypatch.undo()
    assert newest(tmp_path) == 2


# What torch says of a file that it maps.
UNMAPPED = [
    f"unable to mmap 120001641 bytes from file <{{}}>: {os.strerror(errno.ENOMEM)} ({errno.ENOMEM})",
    f"unable to open file <{{}}> in read-only mode: {os.strerror(errno.ESTALE)} ({errno.ESTALE})",
]


@pytest.mark.parametrize("said", UNMAPPED)
def test_old_ones_that_torch_cannot_map_are_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    fill(tmp_path, 1, 2)
    load = torch.load

    def fails(file: object, **options: object) -> object:
        if options.get("mmap"):
            raise RuntimeError(said.format(file))
        return load(file, **options)

    monkeypatch.setattr(checkpoint.torch, "load", fails)
    fill(tmp_path, 3)
    assert names(tmp_path) == ["step-0000000001.pt", "step-0000000002.pt", "step-0000000003.pt"]


def test_a_folder_that_cannot_be_listed_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path) -> list[str]:
        raise OSError(errno.EIO, "away")

    monkeypatch.setattr(checkpoint.os, "listdir", fails)
    with pytest.raises(TransientError, match="away"):
        newest(tmp_path)


def test_old_ones_that_cannot_be_read_are_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, 1, 2)

    def fails(path: Path, step: int) -> None:
        raise OSError(errno.EIO, "away")

    monkeypatch.setattr(checkpoint, "_read", fails)
    fill(tmp_path, 3)
    assert len(names(tmp_path)) == 3
    monkeypatch.undo()
    fill(tmp_path, 4)
    assert names(tmp_path) == ["step-0000000003.pt", "step-0000000004.pt"]


def test_nothing_to_resume(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    assert newest(tmp_path / "none") is None


def test_other_settings_and_other_releases_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    with pytest.raises(UserError, match="other settings"):
        load_newest(tmp_path, "another", CPU)
    torch.save({"step": 2, "key": "k", "format": "bingo-checkpoint-9"}, checkpoint_path(tmp_path, 2))
    with pytest.raises(UserError, match="has the format bingo-checkpoint-9, this release reads bingo-checkpoint-1"):
        newest(tmp_path)
    assert len(names(tmp_path)) == 2


@pytest.mark.parametrize("found", [None, 20])
def test_a_folder_that_has_lost_what_was_saved(tmp_path: Path, found: int | None) -> None:
    record_saved(tmp_path, "k", 30)
    what = "no checkpoint" if found is None else "no checkpoint newer than step 20"
    said = f"checkpoints holds {what}, although this run saved one at step 30: is its storage mounted"
    with pytest.raises(TransientError, match=f"{said}.*delete {tmp_path / SAVED}"):
        check_saved(tmp_path, found, "k", None)
    (tmp_path / SAVED).unlink()
    check_saved(tmp_path, found, "k", None)
    with pytest.raises(TransientError, match=f"{said}.*send it as a new submission"):
        check_saved(tmp_path, found, "k", 30)


def test_damage_explains_what_is_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "checkpoints"
    fill(folder, 20, 30)
    record_saved(tmp_path, "k", 30)
    damage(checkpoint_path(folder, 30), "flip")
    assert newest(folder) == 20
    check_saved(tmp_path, 20, "k", 30)
    assert "the checkpoint of step 30" in caplog.text
    assert "goes on from step 20" in caplog.text


@pytest.mark.parametrize("text", [b"", bytes(40), b"[]", b'{"key": "k"}', b'{"key": "other", "step": 30}', b'{"key":'])
def test_a_record_that_is_none_contradicts_nothing(tmp_path: Path, text: bytes) -> None:
    (tmp_path / SAVED).write_bytes(text)
    check_saved(tmp_path, None, "k", None)
    check_saved(tmp_path, 40, "k", 30)
