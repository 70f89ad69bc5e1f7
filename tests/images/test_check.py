"""Every kind of bad file is named with its reason; sound files pass; folders without images are refused."""

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import bingo.images.check
from bingo.errors import UserError
from bingo.images.check import check_folder, inspect_image
from bingo.images.jpeg_strict import StrictDecoder
from bingo.images.sources import Listing, Unreadable
from bingo.images.verdicts import Verdicts
from tests.support import bad_images

BAD = bad_images.bad_files()
CONVERTIBLE = bad_images.convertible_files()
SOUND = bad_images.sound_files()
NO_FILE = {
    "link.jpg": "a link to nothing",
    "folder.jpg": "a folder",
    "socket.png": "not a regular file",
    "unreadable.png": "cannot be read (",
}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """One check of a folder that holds every kind."""
    root = tmp_path_factory.mktemp("kinds")
    bad_images.write(root / "bad", {name: data for name, (data, _) in BAD.items()})
    bad_images.write(root / "odd", {name: data for name, (data, _) in CONVERTIBLE.items()})
    bad_images.write(
        root / "sound", SOUND | {"deep/er/x.png": bad_images.png(9), ".hidden.jpg": b"", "notes.txt": b"a"}
    )
    bad_images.write(root, {"README.md": b"", ".cache/x.jpg": b""})
    (root / "bad" / "link.jpg").symlink_to("nowhere.jpg")
    (root / "bad" / "folder.jpg").mkdir()
    (root / "bad" / "unreadable.png").symlink_to("/proc/self/mem")  # which refuses root too, unlike a permission
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(root / "bad", os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/socket.png")  # the path of a socket must be short
        os.close(here)
    return check_folder(root, workers=2)


def file_of(result: Verdicts, path: str) -> dict[str, Any]:
    return result.file(result.listing.paths.index(path))


def reason_of(result: Verdicts, path: str) -> tuple[str, str]:
    found = file_of(result, path)
    return found["verdict"], found["reason"]


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_with_their_reason(result: Verdicts, name: str) -> None:
    verdict, reason = reason_of(result, f"bad/{name}")
    assert verdict == "bad"
    assert BAD[name][1] in reason


@pytest.mark.parametrize("name", NO_FILE)
def test_what_is_no_file_is_bad(result: Verdicts, name: str) -> None:
    verdict, reason = reason_of(result, f"bad/{name}")
    assert verdict == "bad"
    assert reason.startswith(NO_FILE[name])


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_convertible_files_are_named_with_their_reason(result: Verdicts, name: str) -> None:
    assert reason_of(result, f"odd/{name}") == ("convertible", CONVERTIBLE[name][1])


@pytest.mark.parametrize("name", SOUND)
def test_sound_files_pass_with_the_stored_size(result: Verdicts, name: str) -> None:
    found = file_of(result, f"sound/{name}")
    assert (found["verdict"], found["reason"]) == ("ok", "")
    assert (found["height"], found["width"]) == (bad_images.HEIGHT, bad_images.WIDTH)
    assert found["bytes"] == len(SOUND[name])


NOTED = {
    "sound/progressive.jpg": ["progressive or several scans"],
    "sound/grey.jpg": ["greyscale"],
    "sound/turned.jpg": ["EXIF-rotated"],
    "sound/moving.png": ["animated"],
    "sound/plain.jpg": [],
    "odd/moving.webp": ["animated"],
    "odd/slow.png": ["progressive or several scans"],
}


@pytest.mark.parametrize("path", NOTED)
def test_remarks_that_change_no_verdict(result: Verdicts, path: str) -> None:
    assert file_of(result, path)["notes"] == NOTED[path]


def test_counts_hidden_and_ignored_files(result: Verdicts) -> None:
    assert result.counts == {"ok": len(SOUND) + 1, "convertible": len(CONVERTIBLE), "bad": len(BAD) + len(NO_FILE)}
    assert result.listing.classes == ["bad", "odd", "sound"]
    assert result.listing.ignored == 2
    assert len(list(result.problems)) == result.counts["bad"] + result.counts["convertible"]


def test_there_are_twenty_kinds_of_bad_files() -> None:
    assert len(BAD) + len(NO_FILE) >= 20
    assert len({data for data, _ in BAD.values()}) == len(BAD)


def test_exact_duplicates_are_groups(result: Verdicts) -> None:
    assert list(result.duplicate_groups) == [["odd/really_jpeg.png", "sound/plain.jpg"]]
    assert result.duplicate_counts == {"groups": 1, "files beyond the first": 1}


def test_the_table_has_every_problem_and_every_count(result: Verdicts) -> None:
    lines = list(result.lines())
    for path, word, reason in result.problems:
        assert f"{word:12s} {path}: {reason}" in lines
    reasons = result.reason_counts
    for word, count in result.counts.items():
        assert f"{word:12s} {count:9d}" in lines
        assert sum(reasons.get(word, {}).values()) == (0 if word == "ok" else count)
    assert any(line.split() == ["duplicates", "odd/really_jpeg.png", "sound/plain.jpg"] for line in lines)


def test_the_json_file_has_every_file(result: Verdicts, tmp_path: Path) -> None:
    result.write_json(tmp_path / "verdicts.json")
    value = json.loads((tmp_path / "verdicts.json").read_text())
    assert value["counts"] == result.counts
    assert value["duplicate_groups"] == list(result.duplicate_groups)
    assert [file["path"] for file in value["files"]] == list(result.listing.paths)
    problems = [(file["path"], file["verdict"], file["reason"]) for file in value["files"] if file["verdict"] != "ok"]
    assert problems == list(result.problems)


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
    with pytest.raises(UserError, match=r"cannot write .*\.verdicts\.journal: Is a directory; free space and repeat"):
        check_folder(bad_images.png_folder(tmp_path / "images"), workers=1, journal=tmp_path / ".verdicts.journal")


def test_only_one_check_writes_a_journal(tmp_path: Path) -> None:
    source, journal = bad_images.png_folder(tmp_path / "images", count=1), tmp_path / ".verdicts.journal"

    def second(done: int, total: int) -> None:
        with pytest.raises(UserError, match="another process is writing"):
            check_folder(source, workers=1, journal=journal)

    assert check_folder(source, workers=1, journal=journal, advance=second).counts["ok"] == 1


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


@pytest.mark.parametrize("name", ["garbage.jpg", "zeroed.jpg"])
def test_pillow_alone_would_pass_the_damage(name: str) -> None:
    """Otherwise the strict decoder would be of no use, or these files too badly damaged to test it."""
    with Image.open(io.BytesIO(BAD[name][0])) as image:
        image.load()


@pytest.mark.slow
def test_a_decoder_that_dies_costs_one_verdict() -> None:
    with StrictDecoder(1) as decoder:
        assert decoder.problem(bad_images.jpeg()) == ""
        process = decoder._children[0]._process
        assert process is not None
        process.kill()
        process.wait()
        assert decoder.problem(bad_images.jpeg()).startswith("the JPEG decoder died on it")
        assert decoder.problem(bad_images.jpeg()) == ""
    assert decoder._children[0]._process is None


def test_a_decoder_that_does_not_start_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torchvision that cannot be imported stands in front of the real one."""
    bad_images.write(tmp_path, {"torchvision/__init__.py": b"raise ImportError('no image library here')"})
    source = bad_images.write(tmp_path / "images", {"a/x.jpg": bad_images.jpeg()})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match=r"decoder .* does not start: no image library here; reinstall torchvision"):
        check_folder(source, workers=1)


def test_progress_counts_every_file(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    check_folder(
        bad_images.png_folder(tmp_path / "images", count=20),
        workers=2,
        advance=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(done, 20) for done in range(1, 21)]


def test_torch_is_not_imported_at_module_level() -> None:
    modules = "bingo.images.check, bingo.images.pack, bingo.images.dataset, bingo.images.demo_data"
    program = f"import sys, {modules}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
