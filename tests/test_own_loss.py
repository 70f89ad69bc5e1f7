"""docs/own-loss.md as it stands: the module, its row of the table, and a training by it."""

import re
import sys
from pathlib import Path

import pytest
import torch

from bingo.objectives import OBJECTIVES
from bingo.train.lines import read_metrics
from tests.support.naive import unit_rows
from tests.support.ranks import ROOT


def test_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Path, teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, training = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "own-loss.md").read_text(), re.S)
    (tmp_path / "relations.py").write_text(module)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(digits / "train")
    (tmp_path / "runs" / "teacher").mkdir(parents=True)
    (tmp_path / "runs" / "teacher" / "model.pt").write_bytes(teacher.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    small_ones = [
        ("resnet18", "tiny"),
        ("size=32", "size=16"),
        ("queue=16", "queue=16, dim=16"),
        ("batch=16", "batch=64"),
    ]
    for usual, small in small_ones:
        assert usual in training
        training = training.replace(usual, small)
    try:
        exec(compile(training, "own-loss.md", "exec"), {})
    finally:
        OBJECTIVES.pop("relations", None)
    steps = int(re.findall(r"(\d+) steps", capsys.readouterr().out)[-1])
    losses = [line["loss"] for line in read_metrics(tmp_path / "runs/relations/metrics.jsonl", "train")]
    assert (len(losses), losses[-1] < losses[0]) == (steps, True)

    loss = sys.modules.pop("bingo.losses.relations", None) or sys.modules.pop("relations")
    q, t = unit_rows(7, 8, 1).requires_grad_(), unit_rows(7, 8, 2)
    expected = (q - t).square().sum(dim=1).mean() + (q @ q.T - t @ t.T).square().mean()
    torch.testing.assert_close(loss.relation_loss(q, t), expected, rtol=1e-12, atol=1e-12)
