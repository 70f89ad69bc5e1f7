"""Names of files are kept as they are, byte for byte, and a few of many are named."""

import subprocess
import sys

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


def test_names_are_printed_harmless() -> None:
    names = {
        "a b/ü漢é.jpg": "a b/ü漢é.jpg",
        "\x1b[31mred.jpg": "\\x1b[31mred.jpg",
        "a\nb\tc\r": "a\\nb\\tc\\r",
        "\u202egpj.exe": "\\u202egpj.exe",
        "\u2066x\u200f\x7f\x9b2J": "\\u2066x\\u200f\\x7f\\x9b2J",
        "bad\udcff": "bad\\udcff",
    }
    assert {name: printable(name) for name in names} == names
    assert first_few({"\x1b]0;title\x07": "cut"}) == "\\x1b]0;title\\x07 (cut)"


def test_names_are_the_same_bytes_in_a_locale_without_utf_8() -> None:
    program = (
        "import os, sys; from bingo.images.names import Names, utf8; name = os.fsdecode(b'\\xc3\\xa9.jpg');"
        "names = Names.of([name]); print(sys.getfilesystemencoding(), names[0] == name, ascii(utf8(name)))"
    )
    words = [sys.executable, "-X", "utf8=0", "-c", program]
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PATH": "/usr/bin", "PYTHONPATH": ":".join(sys.path)}
    printed = subprocess.run(words, env=plain, capture_output=True, text=True, check=True).stdout.split()
    assert printed[0] != "utf-8"
    assert printed[1:] == ["True", ascii("é.jpg")]
