"""pack and demo-data on a disk that is full, out of inodes, read-only or failing: one sentence, then the same bits."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bingo.cli import main
from bingo.errors import UserError
from bingo.files import hash_file
from bingo.images.open import open_dataset
from tests.support.disk_faults import disk, failing_writes
from tests.support.small_pack import SMALL, mixed_folder

RECORDS = ("stage.json", "config.json", "environment.json", ".lock")  # of the stage: they hold times and places
VERBS = ("pack", "demo-data")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_folder(tmp_path_factory.mktemp("source") / "images")


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Verb -> what it writes where nothing fails."""
    root = tmp_path_factory.mktemp("undisturbed")
    for verb in VERBS:
        assert main(command(verb, source, root / verb)) == 0
    return {verb: contents(root / verb) for verb in VERBS}


@pytest.fixture(autouse=True)
def _needs_scikit_learn(request: pytest.FixtureRequest) -> None:
    pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")


def command(verb: str, source: Path, out: Path) -> list[str]:
    if verb == "demo-data":
        return [verb, "--size", "8", "--out", str(out)]
    flags = ["--convert", "--allow-bad", "--workers", "1", "--shard-gib", str(SMALL / 2**30)]
    return [verb, str(source), str(out), *flags]


def contents(out: Path) -> dict[str, str]:
    """Relative path -> hash of every file, hidden ones too, but for the records."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name not in RECORDS)
    return {path.relative_to(out).as_posix(): hash_file(path) for path in files}


def shows_nothing_half_written(verb: str, out: Path, whole: dict[str, str]) -> None:
    """Every visible file is one of the undisturbed run; what is not whole is no dataset."""
    visible = {name: value for name, value in contents(out).items() if not name.startswith(".")}
    assert visible.items() <= whole.items()
    if verb == "pack" and "index.npz" not in visible:
        with pytest.raises(UserError, match=r"is not a packed dataset|does not exist"):
            open_dataset(out)


def one_sentence(text: str, what: int) -> None:
    assert text.count("\n") == 1, text
    assert os.strerror(what) in text


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("options", "sizes", "healthy"),
    [
        ("size={}k", (8, 16, 48, 96, 128, 160), "size=64m"),
        ("nr_inodes={}", (3, 4, 6, 9, 14, 500), "nr_inodes=10000"),
    ],
    ids=["space", "inodes"],
)
def test_a_full_disk_is_one_sentence_and_then_the_same_bits(
    tmp_path: Path,
    source: Path,
    undisturbed: dict[str, dict[str, str]],
    capsys: pytest.CaptureFixture[str],
    verb: str,
    options: str,
    sizes: tuple[int, ...],
    healthy: str,
) -> None:
    refused = 0
    for size in sizes:
        with disk(tmp_path / str(size), options.format(size)) as full:
            out = full.path / "out"
            code = main(command(verb, source, out))
            said = capsys.readouterr().err
            if code:
                assert code == 2
                one_sentence(said, errno.ENOSPC)
                refused += 1
            shows_nothing_half_written(verb, out, undisturbed[verb])
            full.change(healthy)
            assert main(command(verb, source, out)) == 0
            assert contents(out) == undisturbed[verb]
            capsys.readouterr()
    assert refused >= len(sizes) - 2


@pytest.mark.parametrize("verb", VERBS)
def test_a_read_only_disk_is_one_sentence(
    tmp_path: Path,
    source: Path,
    undisturbed: dict[str, dict[str, str]],
    capsys: pytest.CaptureFixture[str],
    verb: str,
) -> None:
    with disk(tmp_path / "disk", "size=16m") as switched:
        out = switched.path / "out"
        switched.change("ro")
        assert main(command(verb, source, out)) == 2
        one_sentence(capsys.readouterr().err, errno.EROFS)
        switched.change("rw")
        assert main(command(verb, source, out)) == 0
        assert contents(out) == undisturbed[verb]
        switched.change("ro")
        assert main(command(verb, source, out)) == 0  # it is done, and nothing needs to be written


@pytest.mark.slow
@pytest.mark.parametrize("only_sync", [False, True], ids=["write", "sync"])
@pytest.mark.parametrize(("verb", "most"), [("pack", 0), ("pack", 30_000), ("demo-data", 0), ("demo-data", 200_000)])
def test_a_failing_disk_is_one_sentence_and_then_the_same_bits(
    tmp_path: Path,
    source: Path,
    undisturbed: dict[str, dict[str, str]],
    verb: str,
    most: int,
    only_sync: bool,
) -> None:
    out = tmp_path / "out"
    env = failing_writes(tmp_path, out, most, only_sync=only_sync)
    program = [sys.executable, "-m", "bingo", *command(verb, source, out)]
    failed = subprocess.run(program, capture_output=True, text=True, env=env, timeout=900)
    assert failed.returncode == 2, failed.stderr
    one_sentence(failed.stderr, errno.EIO)
    shows_nothing_half_written(verb, out, undisturbed[verb])
    assert main(command(verb, source, out)) == 0
    assert contents(out) == undisturbed[verb]
