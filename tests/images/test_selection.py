"""What `--class-from` and `--ext` mean."""

import pytest

from bingo.errors import UserError
from bingo.images.selection import Selection, ending_of, like_a_label

pytestmark = pytest.mark.quick


def test_an_ending_is_what_follows_the_first_dot_in_lower_case() -> None:
    names = {"a.v2/x.SEG.png": "seg.png", "x.jpg": "jpg", "a.b/x": "", "x.": ""}
    assert {name: ending_of(name) for name in names} == names


def test_without_an_ending_every_image_suffix_is_taken() -> None:
    assert Selection().takes("x.seg.PNG")
    assert not Selection().takes("x.heic")
    assert Selection(ext="jpg, .SEG.png").takes("x.seg.png")
    assert not Selection(ext="jpg, .SEG.png").takes("x.png")
    assert Selection(ext="image").takes("x.image")


def test_labels_are_named_by_ending_and_key() -> None:
    found = {
        given: (Selection(given).label_ending, Selection(given).json_key) for given in ("", "tar", ".CLS", "json:a:b")
    }
    assert found == {"": ("", "label"), "tar": ("", "label"), ".CLS": ("cls", "label"), "json:a:b": ("json", "a:b")}


def test_members_that_look_like_labels() -> None:
    assert all(map(like_a_label, ("x.cls", "x.Class.txt", "a/label.txt", "x.json", "x.meta.JSON", "classes.txt")))
    assert not any(map(like_a_label, ("x.txt", "classical/x.txt", "x.pose", "label/x.npy")))


@pytest.mark.parametrize("choice", [{"class_from": "a b"}, {"class_from": "a/b"}, {"ext": "jpg,,png"}, {"ext": "."}])
def test_words_that_mean_nothing_are_refused(choice: dict[str, str]) -> None:
    with pytest.raises(UserError, match="is not allowed"):
        Selection(**choice)
