"""Which labelled images a fine-tuning gets: those of a file with names, or equally many of each class by chance."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bingo.errors import UserError, escaped, file_error
from bingo.evaluate.accuracy import fewshot_indices
from bingo.images.dataset import Dataset

FLAG = "--finetune.names"


def drawn(labels: np.ndarray, classes: Sequence[str], fraction: float, seed: int) -> np.ndarray:
    """Indices (int64, ascending) of `fraction` of the images, equally many of each class and at least one.

    A pure function of its arguments. `UserError` where a class has fewer.
    """
    per_class = max(1, round(fraction * len(labels) / len(classes)))
    counts = np.bincount(labels, minlength=len(classes))
    smallest = int(counts.argmin())
    if counts[smallest] < per_class:
        raise UserError(
            f"{fraction:g} of {len(labels)} images are {per_class} of each class, but the class "
            f"{escaped(classes[smallest])!r} has {counts[smallest]}; lower --finetune.fraction, or name images in a "
            f"file: {FLAG}"
        )
    return np.sort(fewshot_indices(labels, classes=len(classes), shots=per_class, draw=0, seed=seed))


def named(file: Path, data: Dataset, classes: Sequence[str]) -> np.ndarray:
    """Indices (int64, ascending) of the images that a text file names, one per line.

    A line is a file's name (`n01440764_10026.JPEG`, as in SimCLR's lists), or the end of its path from a folder on
    (`n01440764/n01440764_10026.JPEG`). Blank lines do not count. `UserError`, one sentence: an unreadable or
    empty file, a name that no image or more than one has, an image that is named twice, a class without an image.
    """
    lines = read_names(file)
    found: dict[str, list[int]] = {line: [] for line in lines}
    depths = sorted({line.count("/") + 1 for line in found})
    for index, path in enumerate(data.paths):
        parts = path.split("/")
        for depth in depths:
            if (end := "/".join(parts[-depth:])) in found and depth <= len(parts):
                found[end].append(index)
    if missing := [line for line, images in found.items() if not images]:
        raise UserError(
            f"{FLAG}: {len(missing)} of the {len(lines)} names in {file} are of no image in {data.path}, the first is "
            f"{escaped(missing[0])!r}; give the list of these images"
        )
    if several := next(((line, images) for line, images in found.items() if len(images) > 1), None):
        raise UserError(
            f"{FLAG}: {escaped(several[0])!r} in {file} is the name of {len(several[1])} images in {data.path}; write "
            f"more of its path, such as {escaped(_longer(data.paths[several[1][0]], several[0]))}"
        )
    chosen = Counter(images[0] for images in found.values())
    if twice := [image for image, count in chosen.items() if count > 1]:
        raise UserError(
            f"{FLAG}: {escaped(data.paths[twice[0]])} is named twice in {file}; delete one of the two lines"
        )
    images = np.array(sorted(chosen), np.int64)
    counts = np.bincount(data.labels[images], minlength=len(classes))
    if not counts.all():
        name = escaped(classes[int(counts.argmin())])
        raise UserError(
            f"{FLAG}: {file} names no image of the class {name!r}; each of the {len(classes)} classes needs one"
        )
    return images


def read_names(file: Path) -> list[str]:
    """The lines of a file of names without blank ones; `UserError` if it cannot be read, is empty or repeats one."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{FLAG}: {file} is no text file; it must hold one image's name per line") from None
    except OSError as error:
        raise file_error(error, f"{FLAG}: cannot read {file}: {error.strerror}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{FLAG}: {file} is empty; it must hold one image's name per line")
    if twice := next((line for line, count in Counter(lines).items() if count > 1), None):
        raise UserError(f"{FLAG}: {escaped(twice)!r} stands twice in {file}; delete one of the two lines")
    return lines


def _longer(path: str, end: str) -> str:
    return "/".join(path.split("/")[-end.count("/") - 2 :])
