"""metrics.jsonl read back: a damaged line is left out and told of. No torch is imported here."""

import json
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bingo.errors import file_error
from bingo.files import hash_bytes
from bingo.progress import rate_words

log = logging.getLogger(__name__)
NUMBERS = {
    "train": ("step", "epoch", "loss"), "eval": ("step", "epoch", "knn"), "bad": ("step", "index"),
    "accuracy": ("step", "epoch", "top1", "top5"), "gap": ("step", "first", "last"), "sum": (),
}  # fmt: skip
"""Kind of a line -> what it must have, each a finite number. A `gap` stands for the lines of the steps `first` to
`last`, which were lost before the run went on at `step`. A `sum` ends a finished file: the `hash` of the rest.
A measured step's `train` line has more, see `bingo.train.telemetry.Speed.figures`; it may lack in old files."""
TAIL_BYTES = 65_536
MOST_GAPS = 5


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All sound lines, none without a file; says in the log what is damaged.

    A line half-written by a killed process is left out. `UserError` when the file cannot be read.
    """
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise file_error(error, f"cannot read {path}: {error.strerror or error}") from error
    texts = data.split(b"\n")[:-1]
    lines = [parse(text) for text in texts]
    damaged = [number for number, line in enumerate(lines, 1) if line is None]
    if damaged:
        log.warning(
            "%s: %d of %d lines are damaged and left out, the first is line %d",
            path, len(damaged), len(lines), damaged[0],
        )  # fmt: skip
    elif lines and lines[-1] and lines[-1]["kind"] == "sum":
        written = data[: -len(texts[-1]) - 1]
        if hash_bytes(written) != lines[-1].get("hash"):
            log.warning("%s is not what its run wrote (content hash in its last line): damaged or edited", path)
    return [line for line in lines if line]


def read_metrics(path: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of one kind (see `NUMBERS`), as `read_lines` reads them."""
    return [line for line in read_lines(path) if line["kind"] == kind]


def newest_line(path: Path, kind: str = "train", having: str = "kind") -> dict[str, Any] | None:
    """The newest whole line of a kind that has a value, without reading all of the file."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            texts = file.read().splitlines()
    except OSError:
        return None
    lines = (parse(text) for text in reversed(texts))
    return next((line for line in lines if line and line["kind"] == kind and having in line), None)


def speed_words(line: Mapping[str, Any]) -> list[str]:
    """What a line, or a record's figures, says of speed, in words; nothing where it says nothing."""
    rate, wait = line.get("images_per_second"), line.get("loader_wait")
    words = [rate_words(rate)] if isinstance(rate, int | float) and rate > 0 else []
    if words and isinstance(wait, int | float) and wait >= 0.005:
        words.append(f"{100 * wait:.0f} % waiting for images")
    return words


def parse(text: bytes) -> dict[str, Any] | None:
    """One line, or None where it is none of ours."""
    try:
        line = json.loads(text)
        names = NUMBERS[line["kind"]]
        values = [line.get("time", 0), *(line[name] for name in names)]
        sound = all(type(value) in (int, float) and math.isfinite(value) for value in values)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return line if sound else None


def ranges(steps: Iterable[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive numbers, which come in order."""
    found: list[tuple[int, int]] = []
    for step in steps:
        if found and found[-1][1] == step - 1:
            found[-1] = found[-1][0], step
        else:
            found.append((step, step))
    return found


def in_words(gaps: Sequence[tuple[int, int]]) -> str:
    """`3, 12 to 40`; the first few of many."""
    words = [str(first) if first == last else f"{first} to {last}" for first, last in gaps[:MOST_GAPS]]
    return ", ".join(words) + (f" and {len(gaps) - MOST_GAPS} more places" if len(gaps) > MOST_GAPS else "")
