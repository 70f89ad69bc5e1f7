"""Checkpoints: the newest whole one wins, damaged and foreign ones are skipped aloud."""

import logging
from pathlib import Path

import pytest
import torch

from bingo.errors import UserError
from bingo.train.checkpoint import checkpoint_path, load_newest, save_checkpoint

CPU = torch.device("cpu")


def fill(folder: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(folder, step, {"key": "k", "value": torch.full((5000,), float(step))})


def test_newest_wins_and_two_are_kept(tmp_path: Path) -> None:
    fill(tmp_path, 10, 20, 30)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000000020.pt", "step-0000000030.pt"]
    state = load_newest(tmp_path, "k", CPU)
    assert state is not None
    assert state["step"] == 30
    assert torch.equal(state["value"], torch.full((5000,), 30.0))


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "foreign"])
def test_damaged_newest_falls_back(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    fill(tmp_path, 1, 2)
    path = checkpoint_path(tmp_path, 2)
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(data[:-200])
    elif damage == "flip":
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        torch.save({"step": 2, "value": 1}, path)
    with caplog.at_level(logging.WARNING):
        state = load_newest(tmp_path, "k", CPU)
    assert state is not None
    assert state["step"] == 1
    assert str(path) in caplog.text
    assert "falling back" in caplog.text


def test_nothing_to_resume(tmp_path: Path) -> None:
    assert load_newest(tmp_path, "k", CPU) is None


def test_other_settings_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    with pytest.raises(UserError, match="other settings"):
        load_newest(tmp_path, "another", CPU)
