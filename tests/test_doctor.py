"""`bingo doctor`: what is installed, and what would not work, in sentences."""

import json

import pytest
import torch

from bingo.cli import main


def test_doctor_reports_problems_in_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert (
        findings["packages"]["torch"] == torch.__version__.split("+")[0]
        or findings["packages"]["torch"] == torch.__version__
    )
    assert findings["cores"] >= 1
    if not torch.cuda.is_available():
        assert any("no GPU" in problem for problem in findings["problems"])
    assert main(["doctor"]) == 0
    assert "scheduler" in capsys.readouterr().out
