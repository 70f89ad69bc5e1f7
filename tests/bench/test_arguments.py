"""Flags of measurements that make no sense are one sentence, and so is a GPU that is not there."""

from pathlib import Path

import pytest
import torch

from bingo.cli import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--device cpu", "--out is missing; add --out DIR"),
        ("--device cpu --out x --minutes 0", "--minutes: '0' is not above 0"),
        ("--device cpu --out x --only all", "--only: 'all' is not allowed"),
        ("--device cpu --only one --rows 0", "'0' is not a whole number of at least 1"),
        ("--device cpu --only one --impl hopper", "hopper"),
        ("--device cpu --out x --rows 8", "--rows says nothing without --only one"),
        ("--device cpu --out x --only step --quick", "--quick says nothing beside --only step"),
        ("--device cpu --out x --only bags --impl triton", "--impl says nothing beside --only bags"),
        ("--device cpu --out x --only one", "--out says nothing beside --only one"),
        ("--device cpu --only one --minutes 3", "--minutes says nothing beside --only one"),
        pytest.param(
            "--out x", "torch sees no GPU; add --device cpu",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)  # fmt: skip
def test_wrong_flags_are_one_sentence(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "gpu", *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asking_for_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", "--device", "cuda"]) == 2
    assert "torch sees no GPU; add --device cpu" in capsys.readouterr().err
