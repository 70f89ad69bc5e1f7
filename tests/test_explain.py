"""`bingo explain`: what a folder was made of, and what differs now."""

import json
import os
from pathlib import Path

import pytest

from bingo.cli import main
from tests.support.inputs import make_features


@pytest.fixture
def made(digits: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Bags from features, through the verb; their folder."""
    make_features(tmp_path / "features", digits / "train", teacher)
    words = ["--data", digits / "train", "--features", tmp_path / "features", "--out", tmp_path / "bags", "--k", "3"]
    assert main(["bags", *map(str, words)]) == 0
    capsys.readouterr()
    return tmp_path / "bags"


def test_as_recorded(made: Path, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(made), "--hash"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("bags: bags, finished; key ")
    assert f"input   features     {made.parent}/features " in said
    assert "(what its stage recorded): as recorded" in said
    assert "setting k                        3\n" in said
    assert "bags.npz" in said
    assert said.endswith("differs 0\n")


def test_what_differs_now(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bit of an output with its time kept, an input that is gone, and a command with other settings."""
    path = made / "bags.npz"
    content, status = bytearray(path.read_bytes()), path.stat()
    content[200] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert main(["explain", str(made)]) == 0, "without --hash size and time vouch"
    (made.parent / "features").rename(made.parent / "moved")
    capsys.readouterr()
    assert main(["explain", str(made), "--hash", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["finished"]
    assert len(found["differs"]) == 2
    assert f"features {made.parent}/features cannot be compared: " in found["differs"][0]
    assert found["differs"][1] == "bags.npz is not the file that its stage wrote: its content hash differs"


def test_a_command_is_compared(made: Path, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--", "--data", digits / "train", "--features", made.parent / "features", "--k"]
    assert main(["explain", str(made), *map(str, words), "3"]) == 0
    assert main(["explain", str(made), *map(str, words), "4"]) == 1
    assert capsys.readouterr().out.endswith("differs 1\n  made with k=3, not 4\n")


def test_no_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(tmp_path)]) == 2
    assert "is not the folder of a stage (no stage.json in it)" in capsys.readouterr().err
