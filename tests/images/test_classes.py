"""Labels of two datasets: the same classes, numbered ones, and splits whose accuracy says nothing."""

import tarfile
from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.images.classes import check_labels, check_shots
from bingo.images.dataset import Dataset
from bingo.images.open import open_dataset
from bingo.images.pack import pack_folder
from tests.support import bad_images


def folder(path: Path, images: dict[str, int]) -> Dataset:
    """An image folder of classes with so many images each."""
    for place, (name, count) in enumerate(images.items()):
        (path / name).mkdir(parents=True)
        bad_images.write(path / name, {f"{n}.png": bad_images.png(20 * place + n) for n in range(count)})
    return open_dataset(path)


def tar(path: Path, labels: list[int]) -> Dataset:
    """A packed tar file with an image of each label."""
    path.mkdir()
    with tarfile.open(path / "x.tar", "w") as file:
        for n, label in enumerate(labels):
            for name, data in ((f"{n}.png", bad_images.png(n)), (f"{n}.cls", str(label).encode())):
                (path / name).write_bytes(data)
                file.add(path / name, name)
                (path / name).unlink()
    pack_folder(path / "x.tar", path / "packed")
    return open_dataset(path / "packed")


def test_an_empty_class_folder_shifts_labels_and_is_named(tmp_path: Path) -> None:
    train = folder(tmp_path / "train", {"cat": 2, "an empty class": 0, "dog": 2})
    val = folder(tmp_path / "val", {"cat": 1, "dog": 1})
    assert check_labels(val, val) == ["cat", "dog"]
    for one, other in ((train, val), (val, train)):
        with pytest.raises(
            UserError, match=r"only \S+train has 'an empty class' \(empty\); give both the same"
        ) as told:
            check_labels(one, other)
        assert str(train.path) in str(told.value)
        assert str(val.path) in str(told.value)


def test_both_sides_of_a_difference_are_told(tmp_path: Path) -> None:
    train = folder(tmp_path / "train", dict.fromkeys("abcdef", 1))
    val = folder(tmp_path / "val", {"a": 1, "g": 1})
    with pytest.raises(UserError, match=r"train has 'b', 'c', 'd' and 2 more; only \S+val has 'g'; "):
        check_labels(train, val)


def test_numbered_classes_compare_by_number(tmp_path: Path) -> None:
    train, val = tar(tmp_path / "train", [0, 1, 2, 3]), tar(tmp_path / "val", [0, 1, 0])
    assert check_labels(train, val) == check_labels(val, train) == list("0123")
    named = folder(tmp_path / "named", {"0": 1, "2": 1})
    with pytest.raises(UserError, match="different classes"):
        check_labels(train, named)


def test_a_split_whose_accuracy_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train, val = folder(tmp_path / "train", {"a": 2, "b": 2}), folder(tmp_path / "val", {"a": 0, "b": 3})
    check_labels(train, val, tell=False)
    assert not caplog.records
    check_labels(train, val)
    assert [r.getMessage() for r in caplog.records] == [
        f"all images of {val.path} are of one class, 'b': an accuracy on them says nothing"
    ]
    caplog.clear()
    check_labels(train, train)
    assert "is both training and validation set" in caplog.text


def test_the_smallest_class_is_named(tmp_path: Path) -> None:
    train = folder(tmp_path / "train", {"a": 2, "b": 1, "c": 2})
    check_shots(train, 3, 1)
    with pytest.raises(UserError, match=r"2 images per class .*train has 1 of the class 'b'; lower --shots"):
        check_shots(train, 3, 2)
    with pytest.raises(UserError, match="has 0 of the class '3'"):
        check_shots(train, 4, 1)
