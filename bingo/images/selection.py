"""What of a source counts as an image and where classes come from: `--ext` and `--class-from`."""

import os
import re
from dataclasses import dataclass
from functools import cached_property

from bingo.errors import UserError
from bingo.images.left_out import ending_kind
from bingo.images.names import utf8

# Those of ImageFolder, and GIF, which can be converted.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
BY_PLACE = ("folder", "parent", "tar")
LABELS = re.compile(r"[^\s/:]+(:.+)?")
LABEL_WORDS = frozenset(["cls", "class", "classes", "label", "labels", "lbl", "target", "category"])
CLASS_FROM = (
    "an ending of label members (cls, class.cls, cls.txt, ..., json:KEY), folder (the first one), "
    "parent (the one an image lies in) or tar (the tar file's name)"
)


@dataclass(frozen=True)
class Selection:
    """`ext`: endings of images with commas between them, "" for every kind; `class_from`: see `CLASS_FROM`, "": found.

    An ending is what stands behind the first dot of a file name, in lower case, as WebDataset has it: `seg.png`.
    """

    class_from: str = ""
    ext: str = ""

    def __post_init__(self) -> None:
        if self.class_from and not LABELS.fullmatch(self.class_from):
            raise UserError(f"class-from={self.class_from!r} is not allowed: it must be {CLASS_FROM}; set --class-from")
        if self.ext and not all(self.endings):
            raise UserError(f"ext={self.ext!r} is not allowed: name endings, such as jpg or jpg,png; set --ext")

    @cached_property
    def endings(self) -> tuple[str, ...]:
        return tuple(word.strip().lstrip(".").lower() for word in self.ext.split(",")) if self.ext else ()

    def takes(self, name: str) -> bool:
        """Whether a file of this name is listed as an image."""
        return ending_of(name) in self.endings if self.ext else is_image(name)

    @property
    def by_place(self) -> bool:
        """Whether classes are asked for that no label member says."""
        return self.class_from in BY_PLACE

    @cached_property
    def label_ending(self) -> str:
        """The ending of members that hold labels, if one is named."""
        return "" if self.by_place else self.class_from.partition(":")[0].lstrip(".").lower()

    @cached_property
    def json_key(self) -> str:
        """The key of the label in JSON members."""
        return utf8(self.class_from.partition(":")[2]) or "label"


def is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def ending_of(name: str) -> str:
    """What stands behind the first dot of a file name, in lower case."""
    return name.rpartition("/")[2].partition(".")[2].lower()


def kind_of(name: str, selection: Selection) -> str:
    """The kind under which a file that is no image is counted: its last ending, or the whole one beside `--ext`."""
    return ending_kind(f".{ending_of(name)}" if selection.ext and is_image(name) else os.path.splitext(name)[1])


def like_a_label(name: str) -> bool:
    """Whether a member looks as if it held a label, by its ending or by its whole name (`label.txt`)."""
    file = name.rpartition("/")[2].lower()
    return file.endswith(".json") or not LABEL_WORDS.isdisjoint(file.split("."))
