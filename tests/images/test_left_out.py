"""What is left out is counted by kind; a million kinds of names stay a few."""

import pytest

from bingo.images.left_out import MOST_KINDS, LeftOut, ending_kind, foreign, left_out_line

pytestmark = pytest.mark.quick


def test_names_of_systems_and_hidden_ones() -> None:
    assert {foreign(name) for name in ("__MACOSX", "@eaDir", "LOST+FOUND", "thumbs.DB", "Icon\r", "#recycle")} == {
        "of the operating system"
    }
    assert {foreign(name) for name in (".x.jpg", "._x.jpg", ".nfs000123")} == {"hidden"}
    assert {foreign(name) for name in ("x.jpg", "macosx", "train", "recycle", "Icon")} == {""}


def test_the_line_has_the_most_frequent_kinds_first_and_printable_names() -> None:
    left_out = LeftOut()
    left_out.add(".txt", "a", "\x1b.txt")
    for name in ("x", "y"):
        left_out.add(".heic", "", name)
    left_out.add(".json", "z", count=3)
    assert left_out_line(left_out.kinds) == "left out 6: 3 .json (z), 2 .heic (x), 1 .txt (a/\\x1b.txt)"
    assert left_out_line({}) == ""


def test_many_kinds_stay_few() -> None:
    left_out = LeftOut()
    for number in range(1000):
        left_out.add(ending_kind(f".e{number}"), str(number))
    assert len(left_out.kinds) == MOST_KINDS + 1
    assert left_out.kinds["of more kinds"] == (800, "200")
    assert left_out_line(left_out.kinds).endswith(", 189 of 189 more kinds")
    kinds = {".HEIC": ".heic", ".": "without an ending", "": "without an ending", ".0001": "with another ending"}
    kinds |= {f".{'x' * 30}": "with another ending", ".a\x1b": "with another ending", ".cls.txt": ".cls.txt"}
    assert {ending: ending_kind(ending) for ending in kinds} == kinds
