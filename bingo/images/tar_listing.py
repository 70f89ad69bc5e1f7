"""Lists uncompressed tar files: images, and the class of each by label members, folders or names of the tar files."""

import codecs
import json
import os
import re
from array import array
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from bingo.errors import UserError, escaped
from bingo.images.left_out import OUTSIDE, LeftOut, ending_kind, foreign, left_out_line
from bingo.images.listing import LAYOUT, Listing, class_warnings
from bingo.images.names import NamesBuilder, printable, utf8
from bingo.images.selection import SUFFIXES, Selection, ending_of, kind_of, like_a_label
from bingo.images.tar_members import Member, members, open_tar, unreadable

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
MOST_CLASSES = 1_000_000
MOST_LABEL_BYTES = 1 << 20
NO_LABEL = -1
STORED_TWICE = "earlier copy of a member stored twice"
ENDINGS = ("cls", "json")  # of label members, where none is named
LABELS, FOLDERS, TAR_NAMES = "labels", "folders", "names of the tar files"  # where classes come from
MOST_BELOW = 100  # sub-folders that are remembered for a warning


def list_tars(source: Path, shards: list[Path], fingerprint: str, selection: Selection, left_out: LeftOut) -> Listing:
    """The images of tar files, in the order of `shards` and of their members."""
    found = _Tars(source, selection, left_out)
    for number, path in enumerate(shards):
        found.add(number, path)
    return found.listing(shards, fingerprint)


class _Shard:
    """The images and labels of one tar file while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, int] = {}  # name of a member -> row of that image
        self.labels: dict[str, dict[str, int]] = {}  # ending -> key -> label or NO_LABEL
        self.examples: dict[str, str] = {}  # ending -> name of the first member
        self.origins: dict[str, str] = {}  # where classes come from without labels -> an image


class _Tars:
    """What is found in tar files, member by member."""

    def __init__(self, source: Path, selection: Selection, left_out: LeftOut) -> None:
        self.source, self.selection, self.left_out = source, selection, left_out
        self.paths, self.shard, self.offsets, self.sizes = NamesBuilder(), array("i"), array("q"), array("q")
        self.labels, self.places = array("i"), dict[str, int]()  # class by place -> its number, by first appearance
        self.origins: dict[str, str] = {}
        self.below: dict[str, set[str]] = {}  # class folder -> folders with images in it
        self.several = ""

    def add(self, number: int, path: Path) -> None:
        """All images of one tar file."""
        if path.name.lower().endswith(COMPRESSED):
            raise UserError(
                f"{printable(path)} is compressed, images in it cannot be read one by one; "
                "decompress it to a .tar first"
            )
        shard = _Shard(path)
        with open_tar(path) as file, open_tar(path) as labels:
            for member in members(path, file):
                name = member.name
                if skipped := next(filter(None, map(foreign, name.split("/"))), ""):
                    self.left_out.add(skipped, path.name, name)
                elif self.selection.takes(name):
                    self._add_image(number, shard, member)
                elif self._may_label(name):
                    ending = ending_of(name)
                    shard.examples.setdefault(ending, name)
                    known, key = shard.labels.setdefault(ending, {}), _key(name)
                    if key in known:
                        self.left_out.add(STORED_TWICE, path.name, name)
                    known[key] = self._read(path, member, ending, labels)
                else:
                    self.left_out.add(kind_of(name, self.selection), path.name, name)
        self._label(shard)

    def _add_image(self, number: int, shard: _Shard, member: Member) -> None:
        path, name = shard.path, member.name
        row = shard.rows.get(name)
        if row is not None:  # the last one counts, as when tar extracts them
            self.left_out.add(STORED_TWICE, path.name, name)
            self.offsets[row], self.sizes[row] = member.offset, member.size
        elif (place := self._place(shard, name)) is None:
            self.left_out.add(OUTSIDE, path.name, name)
        else:
            shard.rows[name] = len(self.labels)
            self.labels.append(self.places.setdefault(place, len(self.places)))
            self.paths.append(f"{path.name}/{name}")
            self.shard.append(number)
            self.offsets.append(member.offset)
            self.sizes.append(member.size)

    def _place(self, shard: _Shard, name: str) -> str | None:
        """The class that the place of an image says; None for one in no folder where folders are asked for."""
        wanted, (parent, _, _) = self.selection.class_from, name.rpartition("/")
        if wanted in ("folder", "parent") and not parent:
            return None
        if wanted == "tar" or not parent:
            shard.origins.setdefault(TAR_NAMES, name)
            return shard.path.name[: -len(".tar")] or shard.path.name
        shard.origins.setdefault(FOLDERS, name)
        first, _, rest = parent.partition("/")
        if wanted == "parent":
            return parent.rpartition("/")[2]
        if rest and len(self.below) < MOST_BELOW:
            self.below.setdefault(first, set()).add(utf8(rest.partition("/")[0]))
        return first

    def _may_label(self, name: str) -> bool:
        """Whether a member holds a label or looks like it."""
        return ending_of(name) == self.selection.label_ending or like_a_label(name)

    def _read(self, path: Path, member: Member, ending: str, file: BinaryIO) -> int:
        """The label in a member; NO_LABEL where none is asked for, or where JSON has none."""
        wanted = self.selection.label_ending
        if self.selection.by_place or (ending != wanted if wanted else ending not in ENDINGS):
            return NO_LABEL
        name = f"{printable(member.name)} in {printable(path)}"
        if not 0 <= member.size <= MOST_LABEL_BYTES:
            size = (
                f"has {member.size} bytes, the limit is {MOST_LABEL_BYTES}" if member.size > 0 else "is no plain file"
            )
            raise UserError(f"the label {name} {size}; pack that tar file again")
        try:
            text = _text(os.pread(file.fileno(), member.size, member.offset))
        except OSError as error:
            raise unreadable(path, error) from error
        value = _json_value(text, self.selection.json_key) if ending.endswith("json") else _whole(text)
        if value is None and ending == "json" and not wanted:
            return NO_LABEL
        if type(value) is not int or not 0 <= value < MOST_CLASSES:
            shown = escaped(repr(value if ending.endswith("json") and value is not None else text.strip()[:40])[:42])
            raise UserError(f"{name} holds {shown}, not a class number from 0 to {MOST_CLASSES - 1}")
        return value

    def _label(self, shard: _Shard) -> None:
        """Give the images of one tar file their labels, if it has any."""
        wanted = self.selection.label_ending
        found = (ending for ending in ENDINGS if any(label >= 0 for label in shard.labels.get(ending, {}).values()))
        used = wanted or next(found, "")
        labels, keys = shard.labels.pop(used, {}), dict[str, str]()
        for name, row in shard.rows.items():
            key = _key(name)
            if (other := keys.setdefault(key, name)) is not name:
                self._several(shard, other, name, bool(used))
            if used:
                label = labels.pop(key, NO_LABEL)
                if label == NO_LABEL:
                    shown, path = printable(key), printable(shard.path)
                    raise UserError(
                        f"the image {shown} in {path} has no label; add {shown}.{used} or take the image out"
                    )
                self.labels[row] = label
        for key in labels:
            self.left_out.add("label without an image", shard.path.name, f"{key}.{used}")
        for ending, others in shard.labels.items():
            if not used and not self.selection.by_place and not keys.keys().isdisjoint(others):
                self._refuse_unused(shard, ending)
            self.left_out.add(
                f"{ending_kind(f'.{ending}')} like a label", shard.path.name, shard.examples[ending], count=len(others)
            )
        self.origins |= {LABELS: f".{used} members"} if used and shard.rows else shard.origins

    def _several(self, shard: _Shard, first: str, second: str, labelled: bool) -> None:
        """Two images of one sample: with labels it is not known which one is meant."""
        ending = min(ending_of(first), ending_of(second), key=len)
        text = f"{printable(first)} and {printable(second)} in {printable(shard.path)} are images of one sample"
        if labelled:
            raise UserError(f"{text}; choose one kind with --ext, as in: --ext {printable(ending)}")
        self.several = self.several or f"{text}, both are taken; to take one kind: --ext {printable(ending)}"

    def _refuse_unused(self, shard: _Shard, ending: str) -> None:
        use = f"{ending}:KEY" if ending.endswith("json") else printable(ending)
        raise UserError(
            f"{printable(shard.examples[ending])} in {printable(shard.path)} looks like a label, and there is no .cls "
            f'and no .json with "label"; say where the classes come from: --class-from {use}, or folder, or tar'
        )

    def listing(self, shards: list[Path], fingerprint: str) -> Listing:
        source, kinds = printable(self.source), left_out_line(self.left_out.kinds)
        if not self.labels:
            wanted = ", ".join(f".{ending}" for ending in self.selection.endings) or ", ".join(SUFFIXES)
            layout = LAYOUT.format("DIR")
            raise UserError(f"no {wanted} member in the tar files {source}{kinds and f' ({kinds})'}; {layout}")
        if LABELS in self.origins and len(self.origins) > 1:
            raise UserError(
                f"some tar files of {source} have labels (key.cls or key.json), some have none; pack them apart, "
                "or take no labels: --class-from tar"
            )
        if len(self.origins) > 1:
            raise UserError(
                f"some images of {source} lie in folders ({printable(self.origins[FOLDERS])}), some do not "
                f"({printable(self.origins[TAR_NAMES])}); say where the classes come from: --class-from folder (leaves "
                "out the others) or tar"
            )
        classes, labels = self._classes()
        warnings = [self.several] if self.several else []
        if LABELS not in self.origins:
            below = self.below.get(next(iter(self.places)), set()) if len(self.places) == 1 else set[str]()
            remedy = "--class-from parent takes the folder that an image lies in"
            warnings += class_warnings(classes, below, lambda _: remedy)
        return Listing(
            self.source,
            classes,
            self.paths.build(),
            labels,
            self.origins.get(LABELS) or next(iter(self.origins)),
            fingerprint,
            self.left_out.kinds,
            tuple(warnings),
            self.selection,
            tuple(shards),
            np.frombuffer(self.shard, np.int32),
            np.frombuffer(self.offsets, np.int64),
            np.frombuffer(self.sizes, np.int64),
        )

    def _classes(self) -> tuple[list[str], npt.NDArray[np.int32]]:
        """Class names and the label of each image: numbers if the tar files have them, else sorted names of places."""
        labels = np.frombuffer(self.labels, np.int32)
        if LABELS in self.origins:
            return [str(label) for label in range(int(labels.max()) + 1)], labels
        names = sorted(self.places)
        order = {name: label for label, name in enumerate(names)}
        return [utf8(name) for name in names], np.array([order[name] for name in self.places], np.int32)[labels]


def _key(name: str) -> str:
    """What the members of one sample share: the name up to its first dot, folders included."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _text(data: bytes) -> str:
    """Text as Windows writes it too: with a byte order mark, in UTF-16."""
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf16 else "utf-8-sig", errors="replace")


def _whole(text: str) -> int | None:
    """The whole number that a text is; None if it is none."""
    number = re.fullmatch(r"\s*(-?[0-9]{1,18})\s*", text)
    return int(number[1]) if number else None


def _json_value(text: str, key: str) -> Any:
    """What stands at a key of a JSON object; None if there is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # no JSON; a number of thousands of digits; nested without end
        return None
    return value.get(key) if isinstance(value, dict) else None
