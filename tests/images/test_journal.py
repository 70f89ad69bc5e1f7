"""A check that is interrupted goes on from its journal, whatever became of the file."""

import os
from pathlib import Path
from typing import Any

import pytest

import bingo.images.check
from bingo.errors import UserError
from bingo.images.check import check_folder, inspect_image
from bingo.images.journal import CONVERTIBLE, OK, PENDING, Journal
from bingo.images.listing import Listing, Unreadable
from tests.support import bad_images


@pytest.mark.quick
def test_rows_come_back_and_another_mode_costs_those_that_depend_on_it(tmp_path: Path) -> None:
    def opened(key: str, mode: str) -> Journal:
        journal = Journal(tmp_path / "journal", key, mode, 3)
        journal.close()
        return journal

    journal = Journal(tmp_path / "journal", "key", "strict", 3)
    journal.put(2, reason="GIF image", verdict=CONVERTIBLE, width=7)
    journal.put(0, reason="", verdict=OK)
    journal.save()
    journal.close()
    again = opened("key", "strict")
    assert again.rows["verdict"].tolist() == [OK, PENDING, CONVERTIBLE]
    assert (again.reasons[again.rows["reason"][2]], again.rows["width"][2]) == ("GIF image", 7)
    assert opened("key", "convert").pending.tolist() == [1, 2]
    assert opened("another key", "convert").pending.tolist() == [0, 1, 2]


def test_an_interrupted_check_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, journal = bad_images.png_folder(tmp_path / "images", count=9), tmp_path / ".verdicts.journal"
    (source / "a/002.png").write_bytes(b"")
    whole = check_folder(source, workers=1)
    looked: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        looked.append(args[1])
        return inspect_image(*args, **kwargs)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_folder(source, workers=1, advance=stop, journal=journal)
    monkeypatch.setattr(bingo.images.check, "inspect_image", counted)
    seen: list[int] = []
    again = check_folder(source, workers=1, journal=journal, advance=lambda done, total: seen.append(done))
    assert looked == [5, 6, 7, 8]
    assert seen == [6, 7, 8, 9]
    assert [again.file(index) for index in range(9)] == [whole.file(index) for index in range(9)]
    check_folder(source, workers=1, journal=journal)
    assert len(looked) == 4
    os.utime(source / "b/001.png", ns=(1, 1))  # another listing: nothing of it counts
    check_folder(source, workers=1, journal=journal)
    assert len(looked) == 13


def test_a_file_that_could_not_be_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, journal = bad_images.png_folder(tmp_path / "images", count=3), tmp_path / ".verdicts.journal"
    (source / "b/001.png").write_bytes(b"")
    real = Listing.read

    def read(self: Listing, index: int) -> bytes:
        if index == 1:
            raise Unreadable("cannot be read (Input/output error)")
        return real(self, index)

    with monkeypatch.context() as broken:
        broken.setattr(Listing, "read", read)
        assert check_folder(source, workers=1, journal=journal).counts == {"ok": 1, "convertible": 0, "bad": 2}
    seen: list[int] = []
    result = check_folder(source, workers=1, journal=journal, advance=lambda done, total: seen.append(done))
    assert result.counts == {"ok": 2, "convertible": 0, "bad": 1}
    assert seen == [3]


def test_a_journal_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / ".verdicts.journal").mkdir()
    with pytest.raises(
        UserError,
        match=r"cannot write .*\.verdicts\.journal: Is a directory; move away what is in its place and repeat",
    ):
        check_folder(bad_images.png_folder(tmp_path / "images"), workers=1, journal=tmp_path / ".verdicts.journal")


def test_only_one_check_writes_a_journal(tmp_path: Path) -> None:
    source, journal = bad_images.png_folder(tmp_path / "images", count=1), tmp_path / ".verdicts.journal"

    def second(done: int, total: int) -> None:
        with pytest.raises(UserError, match="another process is writing"):
            check_folder(source, workers=1, journal=journal)

    assert check_folder(source, workers=1, journal=journal, advance=second).counts["ok"] == 1


def test_what_a_killed_check_was_writing_is_swept(tmp_path: Path) -> None:
    source, journal = bad_images.png_folder(tmp_path / "images", count=1), tmp_path / ".verdicts.json.journal"
    others = bad_images.write(tmp_path, {".other.json.host-7-0011aabb.tmp": b"", "notes.tmp": b""})
    bad_images.write(tmp_path, {".verdicts.json.host-7-0011aabb.tmp": b"{"})
    check_folder(source, workers=1, journal=journal)
    kept = {".other.json.host-7-0011aabb.tmp", "notes.tmp", "images", ".verdicts.json.journal"}
    assert set(os.listdir(others)) == kept


def test_a_torn_journal_loses_its_tail_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, journal = bad_images.png_folder(tmp_path / "images", count=4), tmp_path / ".verdicts.journal"
    monkeypatch.setattr(bingo.images.check, "SAVE_SECONDS", 0.0)
    check_folder(source, workers=1, journal=journal)
    whole = journal.read_bytes()
    for damaged, lost in ((whole[:-1], 1), (whole[:-30] + b"x" + whole[-29:], 1), (whole[:40], 4), (b"", 4)):
        journal.write_bytes(damaged)
        seen: list[int] = []
        check_folder(source, workers=1, journal=journal, advance=lambda done, total, seen=seen: seen.append(done))
        assert len(seen) == lost
