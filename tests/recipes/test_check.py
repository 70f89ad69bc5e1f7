"""`bingo recipes check`: whole chains of cards with generated teachers, and a card that fails."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from bingo.cli import main
from bingo.models import load_encoder
from bingo.recipes import CARDS, CHAINS, alone
from bingo.recipes.generated import write_teacher
from bingo.recipes.teachers import TEACHERS


@pytest.mark.slow
def test_two_cards_train_and_are_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "check", "moco-resnet18-1pct", "resnet18-r50"]) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert re.match(r"moco-resnet18-1pct +ok .* finetune ", first), first
    assert re.match(r"resnet18-r50 +ok .*linear", second), second
    assert last == "2 cards, 0 failed"


def test_a_card_that_does_not_fit_fails_with_its_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = replace(CARDS["moco-resnet18"], student="resnet19")
    monkeypatch.setitem(CHAINS, "moco-resnet18", partial(alone, card))
    assert main(["recipes", "check", "moco-resnet18"]) == 1
    told = capsys.readouterr().out
    assert "moco-resnet18            FAILED  model 'resnet19' is unknown; did you mean" in told
    assert told.endswith("1 card, 1 failed\n")


@pytest.mark.parametrize("name", ["moco-r50-800", "swav-r50", "byol-r50"])
def test_generated_files_load_as_published_ones(name: str, tmp_path: Path) -> None:
    encoder, _ = load_encoder(write_teacher(TEACHERS[name], tmp_path / "teacher.pth"))
    form = {"moco-r50-800": "LRL", "swav-r50": "LBRL"}.get(name, "")
    assert (encoder.name, encoder.form.form) == ("resnet50", form)
    assert encoder.dim == (128 if form else 2048)
    again = load_encoder(write_teacher(TEACHERS[name], tmp_path / "again.pth"))[0].state_dict()
    assert all(torch.equal(value, again[key]) for key, value in encoder.state_dict().items())
