"""Settings that no stage can run with, and the least that every stage needs."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bingo.config_flags import MISSING, defaults
from bingo.config_json import to_json
from bingo.errors import UserError
from bingo.stages import KINDS

HOSTILE: dict[str, Any] = {
    "null": None, "true": True, "false": False, "list": [], "list of one": [0.1], "two texts": ["a", "b"],
    "two numbers": [0, math.nan], "four numbers": [1, 1, 1, 1], "object": {}, "unknown keys": {"no such": 1},
    "nested": json.loads("[" * 500 + "]" * 500), "empty": "", "one as text": "1", "zero byte": "a\0b",
    "half a character": "\ud800", "no home": "~nobody-has-this-name/x", "long": "x" * 5000, "line end": "a\nb",
    "zero": 0, "minus": -1, "minus zero": -0.0, "half": 0.5, "3": 3, "2^63": 2**63, "2^70": 2**70, "10^6": 10**6,
    "10^12": 10**12, "10^30": 10**30, "4000 digits": 10**3999, "nan": math.nan, "infinite": math.inf,
    "minus infinite": -math.inf, "1e-300": 1e-300, "1e300": 1e300, "twice": ["knn", "knn"],
}  # fmt: skip
"""Name -> JSON value. Some fit some settings."""


def least(kind: str) -> dict[str, Any]:
    """A config of a kind of stage as JSON: its defaults, and a path for everything that has none."""
    config = KINDS[kind].config
    values: dict[str, Any] = {}
    for name, value in defaults(config).items():
        *parents, leaf = name.split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = "somewhere" if value is MISSING else to_json(value)
    return values | (
        {"teacher": "t", "bags": "b"} if kind == "distill" else {"kind": "random"} if kind == "bags" else {}
    )


def places(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all values in nested objects, of the objects too."""
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from places(value, f"{prefix}{name}.")


def changed(values: Mapping[str, Any], place: str, value: Any) -> dict[str, Any]:
    """The same nested objects with another value in one place."""
    first, _, rest = place.partition(".")
    return {**values, first: changed(values[first], rest, value) if rest else value}


@contextmanager
def one_sentence(what: object) -> Iterator[None]:
    """A `UserError` that is raised inside goes on if it is one short line of text."""
    try:
        yield
    except UserError as error:
        told = str(error)
        assert told.isprintable() and len(told) < 600, (what, told)  # noqa: PT018
        raise
