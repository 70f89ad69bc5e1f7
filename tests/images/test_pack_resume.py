"""A pack that is killed or refused goes on to the same bytes; flat files have a limit; damage is found again."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bingo.cli import main
from bingo.errors import UserError
from bingo.files import hash_file
from bingo.images.dataset import Dataset
from bingo.images.open import open_dataset
from bingo.images.pack import pack_folder
from tests.support import bad_images

SMALL = 20_000  # bytes in a flat file: three or four of the images below
KILLED = """
    import os, signal, sys
    from pathlib import Path
    import bingo.images.pack

    source, out, moment = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    real, renamed = os.replace, 0
    bingo.images.pack.SAVE_SECONDS = 1000.0 if moment == "unsaved" else 0.0

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def replace(old, new):
        global renamed
        name = os.path.basename(str(new))
        if (moment, name) in (("index", "index.npz"), ("verdicts", "verdicts.json")):
            die()
        real(old, new)
        renamed += name.startswith("images-")
        if moment == "rename" and renamed == 1:
            die()

    os.replace = replace
    bingo.images.pack.pack_folder(
        source, out, workers=1, convert=True, allow_bad=True, shard_gib=SMALL / 2**30,
        advance=lambda done, total: done == 8 and moment in ("images", "unsaved") and die(),
    )
"""
MOMENTS = {"unsaved": 18, "images": 10, "rename": 0, "index": 0, "verdicts": 0}  # -> files left to look at


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hash_file(path) for path in folder.iterdir()}


def mixed_folder(folder: Path, first: int = 0) -> Path:
    """18 sound, bad and convertible files in turn; no JPEG, so that no decoding process is started to judge them."""
    files = {}
    for number in range(18):
        data = bad_images.png(first + number)
        if number % 5 == 1:
            data = bad_images.encode(bad_images.picture(first + number).convert("RGBA"), "PNG")
        files[f"{'ab'[number // 9]}/{number:02d}.png"] = data[:-9] if number % 7 == 4 else data
    return bad_images.write(folder, files)


def small_pack(source: Path, out: Path, **options: Any) -> Dataset:
    lenient = {"convert": True, "allow_bad": True, "workers": 1}
    return pack_folder(source, out, **lenient | options, shard_gib=SMALL / 2**30)


def killed_pack(source: Path, out: Path, moment: str) -> None:
    program = textwrap.dedent(KILLED).replace("SMALL", str(SMALL))
    killed = subprocess.run([sys.executable, "-c", program, source, out, moment], timeout=900)
    assert killed.returncode == -signal.SIGKILL


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_pack_goes_on_to_the_same_bytes(tmp_path: Path, moment: str) -> None:
    source, out = mixed_folder(tmp_path / "images"), tmp_path / "packed"
    expected = small_pack(source, tmp_path / "expected")
    assert len(list(expected.path.glob("*.bin"))) > 4
    killed_pack(source, out, moment)
    seen: list[int] = []
    packed = small_pack(source, out, advance=lambda done, total: seen.append(done))
    assert len(seen) == MOMENTS[moment]
    assert contents(out) == contents(expected.path)
    assert packed.verify() == []


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_leaves_the_old_dataset(tmp_path: Path, moment: str) -> None:
    source, out = mixed_folder(tmp_path / "images"), tmp_path / "packed"
    old = small_pack(source, out)
    mixed_folder(source, first=20)
    killed_pack(source, out, moment)
    reopened = open_dataset(out)
    assert (reopened.hash == old.hash) == (moment != "verdicts")  # by then the new index is in place
    assert reopened.verify() == []
    assert small_pack(source, out).hash != old.hash
    assert contents(out) == contents(small_pack(source, tmp_path / "expected").path)


def looked_at(source: Path, out: Path, **options: Any) -> list[int]:
    """How far a pack was at each file that it looked at."""
    seen: list[int] = []
    small_pack(source, out, advance=lambda done, total: seen.append(done), **options)
    return seen


@pytest.mark.parametrize("moment", ["images", "rename"])
def test_a_killed_pack_of_a_changed_folder_starts_afresh(tmp_path: Path, moment: str) -> None:
    source, out = mixed_folder(tmp_path / "images"), tmp_path / "packed"
    killed_pack(source, out, moment)
    (source / "a/00.png").write_bytes(bad_images.png(99))
    assert looked_at(source, out) == list(range(1, 19))
    assert contents(out) == contents(small_pack(source, tmp_path / "expected").path)


@pytest.mark.parametrize("moment", ["images", "index"])
def test_a_pack_that_lost_a_flat_file_starts_afresh(tmp_path: Path, moment: str) -> None:
    source, out = mixed_folder(tmp_path / "images"), tmp_path / "packed"
    killed_pack(source, out, moment)
    lost = min(path for path in out.iterdir() if path.suffix == ".bin")
    lost.write_bytes(lost.read_bytes()[:-1])
    assert len(looked_at(source, out)) == 18
    assert contents(out) == contents(small_pack(source, tmp_path / "expected").path)


@pytest.mark.slow
def test_a_refused_pack_goes_on_with_the_flags(tmp_path: Path) -> None:
    """With --allow-bad nothing is looked at again, with --convert only what it changes; the bytes are the same."""
    source, out = mixed_folder(tmp_path / "images"), tmp_path / "packed"
    bad_images.write(source, {"c/slow.jpg": bad_images.jpeg(progressive=True), "c/fast.jpg": bad_images.jpeg()})
    expected = contents(small_pack(source, tmp_path / "expected").path)
    with pytest.raises(UserError, match="5 of 20 images"):
        small_pack(source, out, convert=False, allow_bad=False)
    with pytest.raises(UserError, match="3 of 20 images"):
        looked_at(source, out, convert=False)
    assert looked_at(source, out) == [17, 18, 19, 20]  # three with alpha, one progressive
    assert contents(out) == expected


def test_flat_files_respect_the_limit(tmp_path: Path) -> None:
    source = mixed_folder(tmp_path / "images")
    packed = small_pack(source, tmp_path / "packed")
    files = list(packed.path.glob("*.bin"))
    assert len(files) > 4
    assert all(0 < file.stat().st_size <= SMALL for file in files)
    options = {"convert": True, "allow_bad": True, "workers": 1}
    whole = pack_folder(source, tmp_path / "whole", **options)
    assert len(list(whole.path.glob("*.bin"))) == 2  # what is as it was, what is converted
    assert whole.hash == packed.hash
    for index in range(len(whole)):
        np.testing.assert_array_equal(whole.encoded(index), packed.encoded(index))
    each = pack_folder(source, tmp_path / "each", **options, shard_gib=1e-9)
    assert len(list(each.path.glob("*.bin"))) == len(each)


def test_damage_is_named_and_ends_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = small_pack(mixed_folder(tmp_path / "images"), tmp_path / "packed")
    assert main(["pack", "--verify", str(packed.path), "--workers", "2"]) == 0
    assert capsys.readouterr().out == f"{packed.path}: {len(packed)} images, 0 damaged\n"
    for index in (2, 9):
        data = packed.encoded(index).tobytes()
        file = next(file for file in packed.path.glob("*.bin") if data in file.read_bytes())
        whole = file.read_bytes()
        at = whole.index(data) + 50
        file.write_bytes(bad_images.with_byte(whole, at, whole[at] ^ 1))
    assert main(["pack", "--verify", str(packed.path)]) == 1
    *named, total = capsys.readouterr().out.splitlines()
    assert named == [f"{'damaged':12s} {packed.paths[index]}" for index in (2, 9)]
    assert total == f"{packed.path}: {len(packed)} images, 2 damaged; pack them again"
    file.unlink()
    assert main(["pack", "--verify", str(packed.path)]) == 2
    assert "is missing, the index beside it refers to it" in capsys.readouterr().err
