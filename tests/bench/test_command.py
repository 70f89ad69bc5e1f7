"""`bingo bench`: flags that make no sense are refused in a sentence."""

import pytest

from bingo.bench.command import MEASUREMENTS
from bingo.cli import main


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--rows", "8,0"], "--rows: '0' is not a whole number of at least 1"),
        (["--samples", "0"], "--samples: '0' is not a whole number of at least 1"),
        (["--rows", "8", "16"], "'16' is a word too many"),
        (["--device", "cpu", "--rows", "8,16"], "the CPU benchmark takes one number of rows"),
        (["--device", "tpu"], "there is no such device here"),
        (["--device", "cuda:9"], "there is no such device here"),
        (["--seconds", "0"], "--seconds: '0' is not above 0"),
        (["--device", "cpu", "--seconds", "9"], "--seconds is about a GPU, and this runs on the CPU"),
        (["--picture", "no/such/folder/k.svg"], "there is no folder"),
        (["--picture", "k.gif"], "must end in .svg or .png"),
    ],
)
def test_wrong_flags(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "kernels", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_what_can_be_measured_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in MEASUREMENTS)
