"""pack and demo-data killed at random moments: the next run ends with the same files, and nothing else is left."""

import random
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest

from bingo.files import hash_file
from bingo.images.demo_data import DIGITS, STAGING, write_digits
from tests.support.small_pack import mixed_folder, small_pack

TRIALS = 8
pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")


def contents(out: Path) -> dict[str, str]:
    """Relative path -> hash of every file, hidden ones too."""
    return {path.relative_to(out).as_posix(): hash_file(path) for path in out.rglob("*") if path.is_file()}


def killed_after(seconds: float, work: Callable[..., object], *args: object) -> bool:
    """Whether a process that does `work` was still at it when it was killed."""
    process = get_context("fork").Process(target=work, args=args)
    process.start()
    process.join(seconds)
    running = process.is_alive()
    process.kill()
    process.join()
    return running


def trials(root: Path, work: Callable[..., object], *args: object) -> None:
    """Kill some runs at moments of their own: each is then finished in one go."""
    began = time.monotonic()
    assert not killed_after(900, work, *args, root / "expected")
    took, expected, hits, moments = time.monotonic() - began, contents(root / "expected"), 0, random.Random(0)
    for trial in range(TRIALS):
        out = root / "out" / str(trial)
        hits += killed_after(moments.uniform(0, took), work, *args, out)
        work(*args, out)
        assert contents(out) == expected
        assert not [path for path in out.rglob("*") if path.is_dir() and path.name.startswith(".")]
    assert sorted(path.name for path in (root / "out").iterdir()) == sorted(map(str, range(TRIALS)))
    assert hits >= TRIALS // 4


def digits_into(out: Path) -> None:
    write_digits(out, size=8)


@pytest.mark.slow
def test_demo_data_killed_at_any_moment_ends_with_the_same_files(tmp_path: Path) -> None:
    trials(tmp_path, digits_into)


@pytest.mark.slow
def test_a_pack_killed_at_any_moment_ends_with_the_same_files(tmp_path: Path) -> None:
    trials(tmp_path, small_pack, mixed_folder(tmp_path / "images"))


@pytest.mark.parametrize("moved", range(len(DIGITS.parts) + 1))
def test_demo_data_killed_between_two_moves_goes_on(tmp_path: Path, moved: int) -> None:
    """The files of one hidden folder and its places, as a kill after `moved` of the moves leaves them."""
    out = tmp_path / "digits"
    digits_into(out)
    expected, before = contents(out), {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    (out / STAGING).mkdir()
    for name in DIGITS.parts[moved:]:
        (out / name).rename(out / STAGING / name)
    digits_into(out)
    assert contents(out) == expected
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")} == before  # moved, not written again


def test_demo_data_never_takes_a_foreign_folder_for_its_own(tmp_path: Path) -> None:
    """Half of a hidden folder, and a `train` of the user's: nothing of it is touched."""
    out = tmp_path / "digits"
    (out / STAGING / "train").mkdir(parents=True)
    (out / "train/cats").mkdir(parents=True)
    (out / "train/cats/1.jpg").write_bytes(b"cat")
    with pytest.raises(ValueError, match="already exists and is not a folder of demo digits"):
        digits_into(out)
    assert (out / "train/cats/1.jpg").read_bytes() == b"cat"
    assert not (out / DIGITS.manifest).exists()
