"""Whether the labels of two datasets mean the same, and whether labels mean anything at all."""

import logging
from collections.abc import Sequence

import numpy as np

from bingo.errors import UserError, escaped
from bingo.images.dataset import Dataset

log = logging.getLogger(__name__)


def check_labels(train: Dataset, val: Dataset, *, tell: bool = True) -> list[str]:
    """The classes that training and validation images have together.

    `UserError` when a label stands for another class in each. Numbered classes, as tar files of WebDataset have them,
    are the same classes though one split lacks the highest. tell: warn in the log of splits whose accuracy says nothing
    (rank 0).
    """
    if train.classes != val.classes and not (_are_numbers(train.classes) and _are_numbers(val.classes)):
        raise UserError(_difference(train, val))
    if tell:
        _warn(train, val)
    return max(train.classes, val.classes, key=len)


def _are_numbers(classes: Sequence[str]) -> bool:
    return list(classes) == [str(number) for number in range(len(classes))]


def _difference(train: Dataset, val: Dataset) -> str:
    parts = [
        f"only {one.path} has {_few(missing)}"
        for one, other in ((train, val), (val, train))
        if (missing := [(name, _count(one, name)) for name in one.classes if name not in set(other.classes)])
    ]
    return (
        f"{train.path} and {val.path} have different classes, so a label would mean another one in each: "
        f"{'; '.join(parts) or 'the same names stand in another order'}; give both the same class folders "
        "(delete those that are not meant) and pack what is packed again"
    )


def _count(dataset: Dataset, name: str) -> int:
    return int((dataset.labels == dataset.classes.index(name)).sum())


def _few(classes: Sequence[tuple[str, int]]) -> str:
    named = [f"{escaped(name)!r}" + ("" if count else " (empty)") for name, count in classes[:3]]
    return ", ".join(named) + (f" and {len(classes) - 3} more" if len(classes) > 3 else "")


def _warn(train: Dataset, val: Dataset) -> None:
    if train.hash == val.hash:
        log.warning(
            "%s is both training and validation set: each image finds itself, and the accuracy says nothing about "
            "new images", train.path,
        )  # fmt: skip
    for dataset in (train, val):
        if len(np.unique(dataset.labels)) == 1:
            name = escaped(dataset.classes[dataset.labels[0]])
            log.warning("all images of %s are of one class, %r: an accuracy on them says nothing", dataset.path, name)


def check_shots(train: Dataset, classes: int, shots: int) -> None:
    """`UserError` naming the smallest class where it has fewer than `shots` images."""
    counts = np.bincount(train.labels, minlength=classes)
    smallest = int(counts.argmin())
    if counts[smallest] < shots:
        names = train.classes
        name = escaped(names[smallest]) if smallest < len(names) else str(smallest)
        raise UserError(
            f"few-label accuracy with {shots} images per class needs as many of each, but {train.path} has "
            f"{counts[smallest]} of the class {name!r}; lower --shots, or add images or delete the class"
        )
