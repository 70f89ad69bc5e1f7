"""Heads of any depth: built, written, read back, and told from their tensors."""

from pathlib import Path

import pytest
import torch

from bingo.errors import UserError
from bingo.models import Encoder, load_encoder, save_encoder, state_hash
from bingo.models.heads import Head, read_head

FORMS = ("L", "LRL", "LBRL", "lBRlb", "lBRlBRlb", "lBRlBRLb", "LBRLBRl", "LGLGL", "LBRLLBRL")


@pytest.mark.parametrize("form", FORMS)
def test_a_head_is_read_back_from_a_file_and_from_its_tensors(form: str, tmp_path: Path) -> None:
    widths = tuple(range(5, 5 + form.lower().count("l")))
    encoder = Encoder("tiny", head=Head(form, widths))
    written = save_encoder(tmp_path / "model.pt", encoder)
    read, content = load_encoder(tmp_path)
    assert (read.form, read.dim, content) == (encoder.form, widths[-1], written)
    assert written == state_hash(encoder.state_dict())
    images = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(read.eval().project(images), encoder.eval().project(images))
    assert read_head(encoder.head.state_dict(), FORMS, "") == encoder.form


def test_a_network_without_a_head_gives_its_features(tmp_path: Path) -> None:
    encoder = Encoder("tiny", head=Head()).eval()
    save_encoder(tmp_path / "model.pt", encoder)
    read, _ = load_encoder(tmp_path)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(read.eval().project(images), encoder.features(images))
    assert (read.dim, read.hidden, read.form) == (16, 0, Head())


def test_two_layers_stay_in_the_format_of_earlier_releases(tmp_path: Path) -> None:
    save_encoder(tmp_path / "model.pt", Encoder("tiny", dim=4, hidden=8))
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert {n: v for n, v in saved.items() if n != "state_dict"} == {
        "format": "bingo-model-1", "model": "tiny", "dim": 4, "hidden": 8
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": "LXL"}, "has a head of the form 'LXL' and \\[5, 6\\] that is none"),
        ({"widths": [5]}, "has a head of the form 'LRL' and \\[5\\] that is none"),
        ({"widths": [5, 0]}, "that is none"),
        ({"widths": [5, 1 << 40]}, "that is none"),
        ({"widths": [5, "6"]}, "that is none"),
        ({"content": None}, "has no 'content' that is a str"),
        (
            {"head": "L", "widths": [5]},
            "missing keys none; unexpected keys head.2.bias, head.2.weight",
        ),
        (
            {"format": "bingo-model-3"},
            "the format bingo-model-3, this release reads bingo-model-1 and bingo-model-2",
        ),
    ],
)
def test_a_head_that_is_none(change: dict[str, object], message: str, tmp_path: Path) -> None:
    save_encoder(tmp_path / "model.pt", Encoder("tiny", head=Head("LRL", (5, 6))), content="c")
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    torch.save({**saved, **change}, tmp_path / "model.pt")
    with pytest.raises(UserError, match=message):
        load_encoder(tmp_path)
