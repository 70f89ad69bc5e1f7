"""Two ranks of a training of which one sees another file, none, or a disk that fails."""

import json
from pathlib import Path

import numpy as np
import pytest

from bingo.bags.file import save_bags
from tests.support.ranks import finish, start_ranks
from tests.support.short_run import PER_EPOCH, assert_same, command, steps, weights

# One rank of `bingo`; the second one, or with "main" the first, meets a fault: it sees another text in a file, or an
# error when it reads it.
PROGRAM = """
import errno, os, sys
from pathlib import Path
victim, name, fault, *words = sys.argv[1:]
os.environ["SLURMD_NODENAME"] = f"c{os.environ['RANK']}"
if os.environ["RANK"] == victim:
    read = Path.read_bytes
    def other(path):
        if name not in str(path):
            return read(path)
        if fault == "EIO":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(Path(fault))
    Path.read_bytes = other
from bingo.cli import main
sys.exit(main(words))
"""


@pytest.fixture
def words(digits: Path, teacher: Path, bags: Path, tmp_path: Path) -> list[object]:
    return [*command(digits, teacher, bags, tmp_path / "run"), "--optim.epochs", 1]


def run(victim: int, name: str, fault: object, words: list[object]) -> list[tuple[int, str]]:
    return finish(start_ranks([victim, name, fault, *words], 2, ["-c", PROGRAM]))


def last(results: list[tuple[int, str]]) -> list[str]:
    return [out.splitlines()[-1] for _, out in results]


@pytest.mark.slow
def test_bags_that_only_one_rank_sees(words: list[object], bags: Path, tmp_path: Path) -> None:
    """Of the same images and teacher, so that nothing else would refuse them."""
    with np.load(bags / "bags.npz") as mine:
        members, header = mine["bags"], json.loads(mine["header"].tobytes())
    same = {f"{name}_hash": header[f"{name}_hash"] for name in ("dataset", "features", "teacher")}
    save_bags(tmp_path / "other.npz", members[:, ::-1], kind="knn", engine="faiss", seed=0, **same)
    results = run(1, "bags.npz", tmp_path / "other.npz", words)
    assert [code for code, _ in results] == [2, 2], results
    first, second = last(results)
    assert first == second
    assert (
        f"the ranks do not see the same: the content of {bags / 'bags.npz'} is {header['hash']!r} on rank 0 on c0"
        in first
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_checkpoints_that_one_rank_cannot_read(words: list[object], tmp_path: Path) -> None:
    """Rank 0 reads for all. Where it cannot, the file stays, and the same command goes on from it later."""
    out = tmp_path / "run"
    assert [code for code, _ in run(1, "step-", "EIO", words)] == [0, 0]
    whole = weights(out)
    (out / "stage.json").unlink()
    (out / "checkpoints" / f"step-{PER_EPOCH:010d}.pt").rename(tmp_path / "newest")
    (out / "saved.json").unlink()
    results = run(0, "step-", "EIO", words)
    assert [code for code, _ in results] == [2, 2], results
    assert all(
        "cannot read the checkpoint" in line and "Input/output error; it stays" in line for line in last(results)
    )
    results = run(1, "step-", "EIO", words)
    assert [code for code, _ in results] == [0, 0], results
    assert json.loads((out / "stage.json").read_text())["figures"]["resumed_from"] == 14
    assert_same(weights(out), whole)
    assert steps(out) == list(range(PER_EPOCH))
    assert not list((out / "checkpoints").glob("damaged*"))


# One rank of `bingo`; the second one finds no input, or is given another setting.
STARTS = """
import os, sys
from bingo import stages
from bingo.cli import main
from bingo.errors import UserError
fault, *words = sys.argv[1:]
os.environ["SLURMD_NODENAME"] = f"c{os.environ['RANK']}"
def gone(*_):
    raise UserError("/data/index.npz does not exist")
if os.environ["RANK"] == "1":
    if fault == "gone":
        stages.identify = gone
    else:
        words += ["--optim.lr", "0.5"]
sys.exit(main(words))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("gone", "rank 1 on c1: /data/index.npz does not exist; the other ranks do not see that"),
        ("setting", "the ranks do not see the same: optim.lr is 0.03 on rank 0 on c0, 0.5 on rank 1 on c1"),
    ],
)
def test_before_there_is_a_folder(words: list[object], tmp_path: Path, fault: str, said: str) -> None:
    """Nobody waits for a rank that has failed."""
    results = finish(start_ranks([fault, *words], 2, ["-c", STARTS]))
    assert [code for code, _ in results] == [2, 2], results
    assert all(said in line for line in last(results))
    assert not (tmp_path / "run").exists()
