"""Standard streams that are missing, full, or in another encoding; limits of a process: as real commands."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.ranks import ROOT

BINGO = f"{sys.executable} -m bingo"
CLOSED = ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"]


def shell(line: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        ["bash", "-c", line], cwd=cwd, env=environ, capture_output=True, text=True, timeout=900, check=False
    )


@pytest.mark.slow  # what decodes the JPEG imports torch
@pytest.mark.parametrize("closed", CLOSED)
def test_a_stage_works_without_streams(source: Path, tmp_path: Path, closed: str) -> None:
    """And no line of ours lies in one of its files: what it wrote is as ever, and sound. With all closed a JPEG too."""
    if closed == CLOSED[-1]:
        (source / "class0" / "0.png").unlink()
        Image.new("RGB", (16, 16)).save(source / "class0" / "0.jpg")
    done = shell(f"{BINGO} pack {source} packed {closed}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    checked = shell(f"{BINGO} pack --verify packed && {BINGO} pack {source} packed", tmp_path)
    assert "6 images, 0 damaged" in checked.stdout
    assert "packed: already done" in checked.stdout


def test_descriptors_of_missing_streams_are_taken(tmp_path: Path) -> None:
    code = "from bingo.streams import prepare; import os, sys; missing = prepare(); file = open('data', 'w');"
    code += "print('to nobody'); print('nor this', file=sys.stderr); os.system('echo a child too; echo it >&2');"
    code += "file.write(f'{missing} {file.fileno() > 2} {sys.stdin.read()!r}')"
    assert shell(f"{sys.executable} -c {shlex.quote(code)} <&- >&- 2>&-", tmp_path).returncode == 0
    assert (tmp_path / "data").read_text() == "['stdin', 'stdout', 'stderr'] True ''"


def test_a_check_that_nobody_can_read(source: Path, tmp_path: Path) -> None:
    """What it prints is its result; without standard error it works."""
    done = shell(f"{BINGO} check {source} >&-", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "bingo check: standard output cannot be written: it is closed; what was to be shown is lost\n"
    )
    done = shell(f"{BINGO} check {source} 2>&-", tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("ok                   6\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("words", "output", "reason"),
    [
        ("check source", ">/dev/full", "No space left on device"),
        ("check source", "1</dev/null", "Bad file descriptor"),
        ("--help", ">/dev/full", "No space left on device"),
    ],
)
def test_output_that_cannot_be_written(
    source: Path, tmp_path: Path, words: str, output: str, reason: str, unbuffered: str
) -> None:
    done = shell(f"{BINGO} {words} {output}", tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    lost = f"bingo {words.split()[0]}: standard output cannot be written: {reason}; what was to be shown is lost\n"
    assert done.stderr == lost


@pytest.mark.parametrize(
    ("words", "status"), [("check source", 0), ("check nowhere", 2), ("check source >/dev/full", 1)]
)
def test_errors_that_cannot_be_written(source: Path, tmp_path: Path, words: str, status: int) -> None:
    assert shell(f"{BINGO} {words} 2>/dev/full", tmp_path).returncode == status


@pytest.fixture
def foreign(tmp_path: Path) -> str:
    """A folder of images with letters that few encodings have."""
    for name in ("café ✓/ü.png", "b/x.png"):
        (tmp_path / "фото" / name).parent.mkdir(parents=True)
        Image.new("RGB", (16, 16), (len(name), 0, 99)).save(tmp_path / "фото" / name)
    (tmp_path / "фото" / "b" / "bäd.jpg").write_bytes(b"no image")
    return "фото"


PLAIN = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1", "no_SUCH"])
def test_a_locale_with_few_letters(foreign: str, tmp_path: Path, locale: str) -> None:
    """Names on disk are bytes: every file is found, packed and shown, as UTF-8."""
    done = shell(f"{BINGO} check {foreign}", tmp_path, LC_ALL=locale, **PLAIN)
    assert done.returncode == 1, done.stderr
    assert "bad          b/bäd.jpg: " in done.stdout
    done = shell(f"{BINGO} pack {foreign} 'gepäckt' --allow-bad", tmp_path, LC_ALL=locale, **PLAIN)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "gepäckt" / "stage.json").exists()


def test_an_encoding_with_few_letters(foreign: str, tmp_path: Path) -> None:
    done = shell(f"{BINGO} check {foreign}; {BINGO} check 'ü'", tmp_path, PYTHONIOENCODING="ascii")
    assert "b/b\\xe4d.jpg: " in done.stdout
    assert "folder \\xfc does not exist" in done.stderr


@pytest.mark.parametrize("columns", ["0", "abc", "1", "-5", "9" * 20])
def test_any_width_of_a_terminal(tmp_path: Path, columns: str) -> None:
    done = shell(f"{BINGO} check --help", tmp_path, COLUMNS=columns)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_that_is_gone(source: Path, tmp_path: Path) -> None:
    line = f"mkdir gone; cd gone; rmdir ../gone; {BINGO} check {source}; {BINGO} --version"
    done = shell(line, tmp_path)
    assert (
        done.stderr
        == "bingo check: the current folder cannot be used: No such file or directory; go to another one: cd\n"
    )
    assert done.stdout.startswith("bingo ")


# What a scan of an image folder finds where only so many files may be open.
FEW = """
import resource, sys
from pathlib import Path
from bingo.images.image_folder import _scan
from bingo.images.sources import list_source
listing = list_source(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    print(len(_scan(listing).table))
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.parametrize(("files", "found"), [(3, "Too many open files\n"), (400, "6\n")])
def test_no_image_is_called_bad_because_of_a_limit(source: Path, tmp_path: Path, files: int, found: str) -> None:
    done = shell(f"{sys.executable} -c {shlex.quote(FEW)} {source} {files}", tmp_path, XDG_CACHE_HOME="/dev/null")
    assert done.stdout == found, done.stderr


def test_few_files_at_a_time(source: Path, tmp_path: Path) -> None:
    done = shell(f"ulimit -n 6; {BINGO} check {source}", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("bingo check: ")
    assert "too many" in done.stderr.lower()
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("place", ["x" * 300, "source/class0/0.png/out"])
def test_a_place_that_cannot_be(source: Path, tmp_path: Path, teacher: Path, place: str) -> None:
    done = shell(f"{BINGO} features --data source --model {teacher} --out {place}", tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
