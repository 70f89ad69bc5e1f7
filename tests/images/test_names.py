"""Names of files are kept as they are, byte for byte, and a few of many are named."""

import numpy as np
import pytest

from bingo.images.names import Names, first_few, printable

pytestmark = pytest.mark.quick


def test_names_are_kept_byte_for_byte() -> None:
    words = ["a", "", "ä/ö.jpg", "bad\udcff.jpg", "x" * 300]
    names = Names.of(words)
    assert list(names) == words
    assert (names[-1], names[1:3], len(names)) == (words[-1], words[1:3], 5)
    assert names == Names.of(iter(words))
    assert printable(words[3]) == "bad\\udcff.jpg"
    with pytest.raises(IndexError):
        names[5]


def test_some_of_the_names_are_taken() -> None:
    names = Names.of(["a", "bb", "", "d"])
    assert list(names.take(np.array([1, 3]))) == ["bb", "d"]
    assert names.take(np.arange(4)) is names


def test_the_first_few_are_named() -> None:
    reasons = dict.fromkeys("abc", "cut")
    assert first_few(reasons, 3) == "a (cut), b (cut), c (cut)"
    assert first_few(reasons, 2) == "a (cut), b (cut), ..."
