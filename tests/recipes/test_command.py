"""`bingo recipes`: the list, one card, wrong words, hours that are computed, and the page that shows them."""

import json
from pathlib import Path

import pytest

from bingo.bench.predict.cards import all_hours, hours
from bingo.bench.predict.gpus import GPUS
from bingo.cli import main
from bingo.recipes import CARDS
from bingo.recipes.cards import TABLE
from bingo.recipes.command import HOURS, command, markdown
from tests.support.checkpoints import ROWS, save, thin
from tests.support.ranks import ROOT


def test_the_list_has_every_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(CARDS) + 1]] == list(CARDS)
    (row,) = (line for line in lines if line.startswith("resnet18-r50 "))
    for part in ("64.0 / 61.4", "linear, release", " 600 ", "not yet run"):
        assert part in row
    assert "other recipes: digits" in lines[-1]


def test_a_card_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "efficientnet-b0-r50x2"]) == 0
    told = capsys.readouterr().out
    for part in (
        "bingo run efficientnet-b0-r50x2 --images DIR --teacher swav_RN50w2_400ep_pretrain.pth.tar --out runs/",
        "69.3 % top-1 from SwAV ResNet-50x2, 400 epochs",
        "--contrast.temperature 0.12",
        "arXiv 2107.01691",
    ):
        assert part in told
    assert main(["recipes", "digits"]) == 0
    assert capsys.readouterr().out.endswith("bingo run digits\n")
    assert command("resnet18-r50-1pct", CARDS["resnet18-r50-1pct"]).endswith("--out runs/resnet18-r50")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("resnet18-r5", "did you mean 'resnet18-r50'"),
        ("check resnet18-r5", "'resnet18-r5' is no recipe with a card; did you mean 'resnet18-r50'"),
        ("check digits", "'digits' is no recipe with a card"),
        ("resnet18-r50 --teacher x", "add the word check"),
        ("resnet18-r50 moco-resnet18", "'moco-resnet18' is a word too many"),
    ],
)
def test_wrong_words_are_one_sentence(words: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", *words.split()]) == 2
    told = capsys.readouterr().err
    assert text in told
    assert told.count("\n") == 1


def test_a_teacher_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(thin({**ROWS["MoCo v2 R-50"].make(), "epoch": 800}), tmp_path / "teacher.pth")
    assert main(["recipes", "check", "--teacher", str(path)]) == 0
    told = capsys.readouterr().out
    assert "teacher.pth is a resnet50, trained for 800 epochs" in told
    assert "of no file whose hash is known here" in told
    assert "resnet34-r50: the file says epoch 800: arXiv 2107.01691 (linear evaluation) has 66.1" in told
    assert main(["recipes", "check", "resnet18-r152", "--teacher", str(path)]) == 2
    path = save(thin(ROWS["MoCo v2 R-18"].make()), tmp_path / "other.pth")
    assert main(["recipes", "check", "--teacher", str(path)]) == 1
    assert "no recipe is for it" in capsys.readouterr().out


def test_the_page_shows_the_list() -> None:
    """`bingo recipes --table` prints a new one."""
    text = (ROOT / "docs" / "reproduce.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[: len(CARDS) + 2] == list(markdown())


def test_hours_are_computed() -> None:
    """Of the smallest card, on one GPU and on eight."""
    stored = json.loads(HOURS.read_text())
    assert list(stored) == list(TABLE)
    assert stored["moco-resnet18"] == [round(hours(CARDS["moco-resnet18"], GPUS["H100"], n), 1) for n in (1, 8)]


@pytest.mark.slow
def test_all_hours_are_computed() -> None:
    """On eight GPUs, which is half the work; `bingo bench predict --recipes` prints what hours.json holds."""
    stored, found = json.loads(HOURS.read_text()), all_hours(GPUS["H100"], (8,))
    assert {name: each[1] for name, each in stored.items()} == {name: each[0] for name, each in found.items()}
