"""Every kind of bad file is named with its reason; sound files pass, whatever else is to be said about them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bingo.images.check import check_folder
from bingo.images.verdicts import Verdicts
from tests.support import bad_images
from tests.support.checked_folder import BAD, CONVERTIBLE, NO_FILE, SOUND


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


def test_there_are_twenty_kinds_of_bad_files() -> None:
    assert len(BAD) + len(NO_FILE) >= 20
    assert len({data for data, _ in BAD.values()}) == len(BAD)


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
