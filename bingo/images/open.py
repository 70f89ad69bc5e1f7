"""Opens a dataset for whoever reads images: a packed one or an image folder."""

import logging
import os
from pathlib import Path

from bingo.config_parts import Loader
from bingo.errors import UserError
from bingo.images.dataset import INDEX, Dataset
from bingo.images.folder_listing import has_classes
from bingo.images.image_folder import ImageFolder
from bingo.images.names import first_few, printable

log = logging.getLogger(__name__)


def open_dataset(path: Path) -> Dataset:
    """A folder of class sub-folders as an `ImageFolder`, any other as a packed dataset; errors as for these two."""
    path = Path(path)
    return ImageFolder(path) if _is_image_folder(path) else Dataset.from_index(path)


def open_images(path: Path, settings: Loader, *, tell: bool = True) -> Dataset:
    """A packed dataset or an image folder. tell: say in the log what was left out (rank 0).

    `UserError` when a folder holds files that cannot be used and `allow_bad` is not set.
    """
    dataset = open_dataset(path)
    if not isinstance(dataset, ImageFolder):
        return dataset
    many, named, shown = len(dataset.left_out), first_few(dataset.left_out), printable(path)
    if many and not settings.allow_bad:
        raise UserError(
            f"{many} file(s) of {shown} cannot be used: {named}; repair or delete them, or leave them out with "
            "--loader.allow-bad"
        )
    if tell and many:
        log.warning("%d file(s) of %s are left out: %s", many, shown, named)
    for remark in dataset.remarks if tell else ():
        log.info("%s: %s", shown, remark)
    return dataset


def left_out_now(dataset: Dataset) -> int:
    """Files that are left out by whoever reads an image folder; what a pack lacks was left out when it was packed."""
    return len(dataset.left_out) if isinstance(dataset, ImageFolder) else 0


def _is_image_folder(path: Path) -> bool:
    """Whether a folder looks like one of class sub-folders: there is a visible folder in it, and no index."""
    return os.path.isdir(path) and not os.path.exists(path / INDEX) and has_classes(path)
