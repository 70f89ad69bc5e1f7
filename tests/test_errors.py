"""Hints for mistyped words, and what may mend itself told from what may not."""

import errno

import pytest

from bingo.errors import PASSING, TransientError, UserError, close_to, did_you_mean, file_error

pytestmark = pytest.mark.quick
FLAGS = ("--optim.lr", "--optim.batch", "--student", "--seed")


@pytest.mark.parametrize(
    ("word", "close"),
    [
        ("--lr", ["--optim.lr"]),
        ("--stud", ["--student"]),
        ("--studnet", ["--student"]),
        ("--optim", ["--optim.lr", "--optim.batch"]),
        ("--frobnicate", []),
        ("--", []),
    ],
)
def test_close_names(word: str, close: list[str]) -> None:
    assert close_to(word, FLAGS) == close


def test_at_most_three_are_close() -> None:
    assert len(close_to("seed", [f"seed {n}" for n in range(9)])) == 3


def test_sentences() -> None:
    assert did_you_mean("resnet81", ["tiny", "resnet18"]) == "did you mean 'resnet18'?"
    assert did_you_mean("a", ["ab", "ac"]) == "did you mean 'ab' or 'ac'?"
    assert did_you_mean("x", ["b", "a"]) == "known: a, b"
    many = did_you_mean("x", [f"{n:02d}" for n in range(21)])
    assert many.startswith("known: 00, 01, ")
    assert many.endswith("19, ...")


@pytest.mark.parametrize("number", [*PASSING, errno.EACCES, errno.ENOTDIR])
def test_what_may_mend_itself(number: int) -> None:
    found = file_error(OSError(number, "no"), "a sentence")
    assert type(found) is (TransientError if number in PASSING else UserError)
    assert str(found) == "a sentence"
