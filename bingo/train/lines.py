"""metrics.jsonl read back: a damaged line is left out and told of. No torch is imported here."""

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

from bingo.errors import file_error
from bingo.files import new_hash

log = logging.getLogger(__name__)
NUMBERS = {"train": ("step", "epoch", "loss"), "eval": ("step", "epoch", "knn"), "bad": ("step", "index"), "sum": ()}
"""Kind of a line -> what it must have, each a finite number. A `sum` ends a finished file: the `hash` of the rest."""
TAIL_BYTES = 65_536


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All sound lines, none without a file; says in the log what is damaged.

    A line half-written by a killed process is left out. `UserError` when the file cannot be read.
    """
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise file_error(error, f"cannot read {path}: {error.strerror or error}") from error
    texts = data.split(b"\n")[:-1]
    lines = [_line(text) for text in texts]
    damaged = [number for number, line in enumerate(lines, 1) if line is None]
    if damaged:
        log.warning(
            "%s: %d of %d lines are damaged and left out, the first is line %d",
            path, len(damaged), len(lines), damaged[0],
        )  # fmt: skip
    elif lines and lines[-1] and lines[-1]["kind"] == "sum":
        digest = new_hash()
        digest.update(data[: -len(texts[-1]) - 1])
        if digest.hexdigest() != lines[-1].get("hash"):
            log.warning("%s is not what its run wrote (content hash in its last line): damaged or edited", path)
    return [line for line in lines if line]


def read_metrics(path: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of one kind (`train`, `eval` or `bad`), as `read_lines` reads them."""
    return [line for line in read_lines(path) if line["kind"] == kind]


def newest_line(path: Path, kind: str = "train") -> dict[str, Any] | None:
    """The newest whole line of a kind, without reading all of the file."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            texts = file.read().splitlines()
    except OSError:
        return None
    lines = (_line(text) for text in reversed(texts))
    return next((line for line in lines if line and line["kind"] == kind), None)


def _line(text: bytes) -> dict[str, Any] | None:
    """One line, or None where it is none of ours."""
    try:
        line = json.loads(text)
        names = NUMBERS[line["kind"]]
        sound = all(type(line[name]) in (int, float) and math.isfinite(line[name]) for name in names)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return line if sound else None
