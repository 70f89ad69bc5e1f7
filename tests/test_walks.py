"""The walks of the documents, the README's among them, from the first command to the last snippet."""

import itertools
import json
import logging
import re
import shlex
from pathlib import Path

import pytest

from bingo.cli import main
from tests.support.bad_images import encode, picture
from tests.support.ranks import ROOT

SMALL = {
    "pretrain": "--model tiny-8 --optim.epochs 2 --optim.batch 16 --contrast.queue 16 --contrast.hidden 32 "
    "--augment.size 32 --runtime.threads 1",
    "keys": "--views 2 --runtime.threads 1",
    "distill": "--optim.epochs 1 --optim.batch 16 --contrast.queue 16 --contrast.hidden 32 --runtime.threads 1",
    "features": "--augment.size 32 --runtime.threads 1",
    "teacher": "--augment.size 32",
    "eval": "--runtime.threads 1",
    "leaderboard": "--optim.batch 16 --contrast.queue 16 --contrast.hidden 32 --runtime.threads 1",
}
"""Verb -> flags that make it small; typed after those of the document, they count."""
FEWER = {"--seeds": "1", "--epochs": "2"}
"""Flags of recipes -> values in place of the document's."""


def write_photos(root: Path, train: int) -> None:
    """Made photographs of two classes in `train`, so many of each, and in `val`."""
    for split, count in (("train", train), ("val", 6)):
        for at, name in enumerate(("cat", "dog")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i}.jpg").write_bytes(encode(picture(100 * at + i, 40 + i, 48)))


def steps(name: str) -> list[str]:
    """The commands of a document, each on one line, and its pieces of Python, in order."""
    found = []
    for language, block in re.findall(r"```(\w*)\n(.*?)```", (ROOT / "docs" / name).read_text(), re.S):
        lines = re.sub(r" *#.*", "", block.replace("\\\n", " ")).splitlines()
        found += [block] if language else [line for line in lines if line]
    return found


def walk(name: str, *, student: str, said: dict[str, int]) -> list[str]:
    """Run a document's steps here; said: begin of a command -> its exit status, where that is not 0. The verbs run."""
    verbs = []
    for step in steps(name):
        if not step.startswith("bingo "):
            exec(compile(step, name, "exec"), {})
            continue
        verb, *words = shlex.split(step)[1:]
        words = [student if word == "resnet18" else word for word in words]
        words = [FEWER.get(before, word) for before, word in itertools.pairwise(["", *words])]
        status = next((status for begin, status in said.items() if step.startswith(begin)), 0)
        assert main([verb, *words, *shlex.split(SMALL.get(verb, ""))]) == status, step
        verbs.append(verb)
    return verbs


@pytest.mark.slow
def test_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With what folders of people hold: a damaged file, a PNG with alpha, CMYK."""
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos", 20)
    odd = tmp_path / "photos" / "train" / "dog"
    (odd / "cut.jpg").write_bytes(encode(picture(1, 60, 60))[:900])
    picture(2, 40, 40).convert("RGBA").save(odd / "alpha.png")
    picture(3, 40, 40).convert("CMYK").save(odd / "print.jpg")
    verbs = walk("own-data.md", student="resnet18", said={"bingo check": 1})
    told = capsys.readouterr().out
    assert re.search(r"cut\.jpg.*\n", told), "the damaged file is named"
    assert "images=42" in told, "and left out"
    assert len(set(verbs)) == 11
    assert "| simreg | 1 |" in (tmp_path / "runs" / "leaderboard-data" / "leaderboard.md").read_text()
    assert (tmp_path / "runs" / "report.html").stat().st_size > 10_000
    assert {path.name for path in (tmp_path / "runs/export").glob("weights.*")} == {"weights.json", "weights.pt"}


@pytest.mark.slow
def test_own_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On folders of images that nobody packed: they are data as well. 64 channels need more than 64 images."""
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "data", 34)
    verbs = walk("own-teacher.md", student="tiny-8", said={})
    assert set(verbs) == {"eval", "features", "bags", "teacher", "distill"}
    assert "knn=" in capsys.readouterr().out


@pytest.mark.slow
def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The first example as it stands: it teaches something, and nothing is warned of."""
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (block,) = [block for block in found if "bingo demo-data" in block]
    for command in block.replace("\\\n", " ").splitlines():
        if command.startswith("bingo "):
            assert main(shlex.split(command)[1:]) == 0, command
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING], caplog.text
    assert json.loads((tmp_path / "runs/own/student/eval/knn/results.json").read_text())["knn"] > 0.93
