"""The parser of every verb: words it takes, words it refuses in one sentence."""

from collections.abc import Callable
from typing import Any

import pytest

from bingo.arguments import Parser, Switch, listed, number, one_of, positive, size, whole
from bingo.errors import UserError

pytestmark = pytest.mark.quick


@pytest.fixture
def parser() -> Parser:
    parser = Parser("bingo try", "Tries.", "bingo try x")
    parser.add_argument("kind", choices=["one", "two"])
    parser.add_argument("--a-rate", type=number, default=0.5)
    parser.add_argument("--optim.fast", "--optim.no-fast", dest="fast", action=Switch, default=None)
    parser.add_argument("--names", type=listed(one_of(("x", "y"))), default=())
    return parser


def test_words_that_are_taken(parser: Parser) -> None:
    found = parser.parse_args(["--a_rate", "-1.5", "one", "--optim.no-fast", "--names=x, y"])
    assert vars(found) == {"kind": "one", "a_rate": -1.5, "fast": False, "names": ("x", "y")}
    assert parser.parse_args(["two", "--optim.fast"]).fast is True
    assert (parser.leading_choices(), "--names" in parser.flags()) == (["one", "two"], True)


def test_a_verb_without_flags() -> None:
    with pytest.raises(UserError, match=r"unknown flag '--all'; there are none here \(see `bingo try --help`\)"):
        Parser("bingo try", "Try.", "bingo try").parse_args(["--all"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "missing: kind (see `bingo try --help`)"),
        ("three", "'three' is not allowed; known: one, two"),
        ("one --a-rat 1", "unknown flag '--a-rat'; did you mean '--a-rate'?"),
        ("one --a-rate x", "--a-rate: 'x' is not a number"),
        ("one --names x,z", "--names: 'z' is not allowed; known: x, y"),
        ("one --a-rate", "--a-rate: needs a value"),
        ("one two", "'two' is a word too many"),
    ],
)
def test_words_that_are_refused(parser: Parser, words: str, sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        parser.parse_args(words.split())
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (whole, "-3", -3),
        (whole, "1.5", "'1.5' is not a whole number"),
        (positive, "0.5", 0.5),
        (positive, "nan", "'nan' is not above 0"),
        (size, "7", 7),
        (size, "0", "'0' is not a whole number of at least 1"),
        (listed(whole, 2), "1, 2", (1, 2)),
        (listed(whole, 2), "1", "'1' is not 2 values with commas between them"),
    ],
)
def test_readers(read: Callable[[str], Any], text: str, value: object) -> None:
    parser = Parser("bingo try", "Tries.", "bingo try")
    parser.add_argument("--value", type=read)
    if isinstance(value, str):
        with pytest.raises(UserError, match=value):
            parser.parse_args([f"--value={text}"])
    else:
        assert parser.parse_args([f"--value={text}"]).value == value
