"""Which images a fine-tuning gets: lists of names as SimCLR publishes them, or equally many of each class."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bingo.errors import UserError
from bingo.supervised.subset import drawn, named

CLASSES = ["n01", "n02", "n03"]
PATHS = [
    "n01/n01_1.JPEG", "n01/n01_2.JPEG", "n01/same.JPEG", "n02/n02_1.JPEG", "n02/same.JPEG", "n03/n03_1.JPEG",
    "train.tar/n03/n03_2.JPEG",
]  # fmt: skip
LABELS = np.array([0, 0, 0, 1, 1, 2, 2])
DATA: Any = SimpleNamespace(paths=PATHS, labels=LABELS, path=Path("data/train"))


def names(tmp_path: Path, text: str | bytes) -> Path:
    file = tmp_path / "1percent.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_names_in_any_order_with_blank_lines_and_parts_of_paths(tmp_path: Path) -> None:
    file = names(tmp_path, "n03_2.JPEG\r\n\n  n02/same.JPEG  \nn01_2.JPEG\n")
    assert named(file, DATA, CLASSES).tolist() == [1, 4, 6]
    assert named(file, DATA, CLASSES).dtype == np.int64


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "n01_1.JPEG\nn01_9.JPEG\nx\n",
            r"2 of the 3 names in \S+ are of no image in data/train, the first is 'n01_9.JPEG'",
        ),
        ("n01_1\n", "1 of the 1 names .* the first is 'n01_1'"),
        ("JPEG\n", "of no image"),
        ("n01_1.JPEG\nn01_1.JPEG\n", r"'n01_1.JPEG' stands twice in \S+1percent.txt; delete one of the two lines"),
        ("n01_1.JPEG\nn01/n01_1.JPEG\n", r"n01/n01_1.JPEG is named twice in \S+; delete one of the two lines"),
        ("same.JPEG\n", r"'same.JPEG' in \S+ is the name of 2 images .* such as n01/same.JPEG"),
        ("n01_1.JPEG\nn03_1.JPEG\n", r"names no image of the class 'n02'; each of the 3 classes needs one"),
        ("\n \n", "is empty; it must hold one image's name per line"),
        (b"\xff\xfe", "is no text file; it must hold one image's name per line"),
    ],
)
def test_lists_that_do_not_fit_are_refused_in_a_sentence(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=rf"^--finetune.names: .*({sentence})") as caught:
        named(names(tmp_path, text), DATA, CLASSES)
    assert str(caught.value).isprintable()


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*Is a directory"):
        named(tmp_path, DATA, CLASSES)


def test_drawn_are_equally_many_of_each_class_and_a_function_of_the_seed() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [40, 50, 60]))
    found = drawn(labels, CLASSES, 0.1, 3)
    assert np.bincount(labels[found]).tolist() == [5, 5, 5]
    assert (np.diff(found) > 0).all()
    assert np.array_equal(found, drawn(labels, CLASSES, 0.1, 3))
    assert not np.array_equal(found, drawn(labels, CLASSES, 0.1, 4))
    assert np.bincount(labels[drawn(labels, CLASSES, 1e-6, 0)]).tolist() == [1, 1, 1], "at least one"


def test_a_class_with_too_few_is_named() -> None:
    said = "0.9 of 7 images are 2 of each class, but the class 'n02' has 1; lower --finetune.fraction"
    with pytest.raises(UserError, match=re.escape(said)):
        drawn(np.array([0, 0, 0, 0, 1, 2, 2]), CLASSES, 0.9, 0)
