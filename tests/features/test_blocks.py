"""Arrays filled block by block: the same bytes for any number of ranks and after any kill, nothing done twice."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bingo.errors import UserError
from bingo.features import blocks
from tests.support.blocks import BLOCKS, Killed, fill, values
from tests.support.ranks import ROOT, finish, start_ranks

# One rank of several: makes the array at the path given, and writes which ranges it was asked for.
PROGRAM = """
import sys
from pathlib import Path
from bingo.config_parts import Runtime
from bingo.distributed import world
from tests.support.blocks import fill
with world(Runtime(device="cpu", threads=1)) as peers:
    asked = fill(Path(sys.argv[1]), peers, stop=int(sys.argv[2]))
    print(peers.rank, asked)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.npy"


def test_whole(path: Path) -> None:
    asked = fill(path)
    assert asked == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 20), (20, 23)]
    assert np.array_equal(np.load(path, mmap_mode="r"), values(0, 23))
    assert [p.name for p in path.parent.iterdir()] == ["rows.npy"]


def test_no_rows(path: Path) -> None:
    fill(path, shape=(0, 3, 2))
    assert np.load(path).shape == (0, 3, 2)


@pytest.mark.parametrize("stop", range(BLOCKS))
def test_continues_where_it_stopped(path: Path, stop: int) -> None:
    with pytest.raises(Killed):
        fill(path, stop=stop)
    assert not path.exists()
    assert len(fill(path)) == BLOCKS - stop
    assert np.array_equal(np.load(path), values(0, 23))


def test_another_key_starts_anew_and_keeps_the_old_file_until_then(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(path)
    before = path.read_bytes()
    with pytest.raises(Killed):
        fill(path, key="other", stop=2)
    assert path.read_bytes() == before
    assert "begun anew" not in caplog.text
    assert len(fill(path, key="third")) == BLOCKS
    assert ".rows.npy.partial is of other settings, or it or its marks are damaged: it is begun anew" in caplog.text


def test_a_block_written_without_its_mark_is_done_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(descriptor: int, rows: np.ndarray, offset: int) -> None:
        blocks.os.pwrite(descriptor, b"\xff" * 5, offset)
        raise Killed

    with pytest.raises(Killed):
        fill(path, stop=3)
    monkeypatch.setattr(blocks, "_write_at", half)
    with pytest.raises(Killed):
        fill(path)
    monkeypatch.undo()
    assert len(fill(path)) == BLOCKS - 3
    assert np.array_equal(np.load(path), values(0, 23))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_and_another_number_of_them_after_a_kill(path: Path, ranks: int) -> None:
    fill(path)
    alone = path.read_bytes()
    path.unlink()
    with pytest.raises(Killed):
        fill(path, stop=1)
    results = finish(start_ranks([path, 99], ranks, ["-c", PROGRAM]))
    assert [status for status, _ in results] == [0] * ranks, results
    assert path.read_bytes() == alone
    asked = [rows for _, out in results for rows in eval(out.splitlines()[-1].partition(" ")[2])]
    assert sorted(asked) == [(4, 8), (8, 12), (12, 16), (16, 20), (20, 23)]


# One rank of two, of which the second writes to a disk of its own, or does not see what the first has begun.
APART = """
import os, sys
from pathlib import Path
os.environ["SLURMD_NODENAME"] = f"c{os.environ['RANK']}"
from bingo.config_parts import Runtime
from bingo.distributed import world
from bingo.features import blocks
from tests.support.blocks import fill
path, fault = Path(sys.argv[1]), sys.argv[2]
if os.environ["RANK"] == "1" and fault == "writes":
    blocks._fill = lambda data, marks, shape, dtype, mine, *_: len(mine)
if os.environ["RANK"] == "1" and fault == "sees":
    blocks._partial_files = lambda path: (path.parent / "none" / "data", path.parent / "none" / "marks")
try:
    with world(Runtime(device="cpu", threads=1)) as peers:
        fill(path, peers)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("writes", "TransientError: 3 of 6 blocks of {path.parent}/.rows.npy.partial, the first is block 3, are not"),
        ("sees", "TransientError: rank 1 on c1: cannot write {path}: No such file or directory"),
    ],
)
def test_a_rank_on_another_disk(path: Path, fault: str, said: str) -> None:
    """Rows that rank 0 does not see would be zeros in the finished file."""
    results = finish(start_ranks([path, fault], 2, ["-c", APART]))
    assert [status for status, _ in results] == [0, 0], results
    assert all(out.splitlines()[-1].startswith(said.format(path=path)) for _, out in results), results
    assert not path.exists()
    if fault == "writes":
        assert len(fill(path)) == 3, "what the first rank has written counts"


def test_full_disk_is_one_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(blocks, "_write_at", full)
    with pytest.raises(UserError, match=r"cannot write .*rows.npy: No space left on device; free space"):
        fill(path)
    assert not path.exists()


def test_killed_process(path: Path) -> None:
    """SIGKILL between two blocks."""
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom tests.support import blocks as t\n"
        "t.values = lambda first, last, v=t.values: os.kill(os.getpid(), 9) if first == 12 else v(first, last)\n"
        "t.fill(Path(sys.argv[1]))"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, check=False)
    assert killed.returncode == -9
    assert len(fill(path)) == BLOCKS - 3
    assert np.array_equal(np.load(path), values(0, 23))


@pytest.mark.parametrize("what", ["a row", "the header", "a mark", "the end of the rows", "the end of the marks"])
def test_damage_of_half_done_work_is_noticed(path: Path, what: str) -> None:
    """With times kept: nothing but the content says that the rows or the marks are not what was written."""
    fill(path)
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(Killed):
        fill(path, stop=3)
    data, marks = path.with_name(".rows.npy.partial"), path.with_name(".rows.npy.marks")
    file = marks if "mark" in what else data
    content = bytearray(file.read_bytes())
    if what.startswith("the end"):
        del content[-(len(content) // 2) :]
    else:
        content[{"a row": 140, "the header": 25, "a mark": -90}[what]] ^= 4
    file.write_bytes(content)
    fill(path)
    assert path.read_bytes() == whole
