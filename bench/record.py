"""The one form of every result: what a measurement writes, and what `compare`, `history` and reports read.

A file is a JSON object: `schema`, `measurement`, `date`, `environment` (with `git`, the commit, and `argv`), `partial`
while the measurement still runs, `rows`, and `detail`: what the measurement's own table is made of, in its own form. A
row is one case of one variant by one metric, with all its samples, those of each process apart.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NotRequired, Required, TypedDict, cast

from bingo.environment import environment_record
from bingo.errors import UserError
from bingo.files import read_object, write_json

SCHEMA = "bingo-bench-1"
REMEDY = "measure again with --json FILE, or give another file"
FIELDS = {"schema": str, "measurement": str, "environment": dict, "partial": bool, "rows": list}
CLOCKS = ("wall", "cpu", "cuda", "none")
Clock = Literal["wall", "cpu", "cuda", "none"]
Better = Literal["lower", "higher"]


class Row(TypedDict, total=False):
    """One case of one variant by one metric; one that failed, or whose peer is absent, has an `error`, no samples."""

    case: Required[str]
    """What was measured: sizes and settings, in words that are the same in every run of the same case."""
    variant: Required[str]
    """Who did it: an implementation, ours or a peer."""
    metric: Required[str]
    """What a sample is: `seconds per step`, `images per second`."""
    better: Required[Better]
    clock: Required[Clock]
    """`cpu`: processor seconds of the whole process; `none`: a count, which no clock has part in."""
    processes: Required[list[list[float]]]
    """Samples in the order they were taken, a list for each process that took some."""
    exact: bool
    """A count that is the same whenever it is taken, such as registers: any difference is one."""
    order: str
    """How the variants took turns."""
    discarded: int
    """Samples of each process that were dropped as warm-up."""
    work: dict[str, float]
    """What one sample does: `flops`, `bytes`, `images`."""
    accuracy: dict[str, Any]
    """The gate before any speed-up: `ok`, `error`, `bound`."""
    error: str
    notes: list[str]


class Result(TypedDict):
    """A whole file."""

    schema: str
    measurement: str
    date: NotRequired[str]
    """When it was written, UTC; earlier results do not say."""
    environment: dict[str, Any]
    partial: bool
    rows: list[Row]
    detail: Any


def write_result(
    path: Path,
    measurement: str,
    rows: Sequence[Row],
    detail: Any = None,
    *,
    partial: bool = False,
    environment: Mapping[str, Any] | None = None,
) -> None:
    """Write a result, whole or not at all.

    partial: the measurement still runs, or was stopped. environment: the record of where it ran, if not of here and
    now, or with more in it.
    """
    write_json(
        path,
        {
            "schema": SCHEMA, "measurement": measurement,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": environment or environment_record(), "partial": partial, "rows": list(rows),
            "detail": detail,
        },
    )  # fmt: skip


def read_result(path: Path, measurement: str = "") -> Result:
    """Read and check a result; `UserError`, one sentence, for what is none. measurement: the only one taken."""
    value = read_object(path, remedy=REMEDY)
    if value.get("schema") != SCHEMA:
        found = f"has the schema {value['schema']!r}" if "schema" in value else "names no schema"
        raise UserError(f"{path} {found}, this release reads {SCHEMA}; {REMEDY}")
    read_object(path, FIELDS, remedy=REMEDY)
    if measurement and value["measurement"] != measurement:
        raise UserError(f"{path} is a result of {value['measurement']!r}, not of {measurement!r}; {REMEDY}")
    if wrong := check(value):
        raise UserError(f"{path}: {wrong}; {REMEDY}")
    return cast(Result, value)


def check(value: Mapping[str, Any]) -> str:
    """What keeps an object from being a result, or ""."""
    if value.get("schema") != SCHEMA:
        return f"its schema is not {SCHEMA}"
    for name, kind in FIELDS.items():
        if not isinstance(value.get(name), kind):
            return f"has no {name!r} of the right kind"
    return next((f"row {number} {wrong}" for number, row in enumerate(value["rows"]) if (wrong := _wrong(row))), "")


def samples_of(row: Row) -> list[float]:
    """All samples of a row, of whichever process."""
    return [sample for process in row["processes"] for sample in process]


def rows_by_case(rows: Iterable[Row]) -> dict[tuple[str, str, str, str], Row]:
    """(case, variant, metric, clock) -> row."""
    return {(row["case"], row["variant"], row["metric"], row["clock"]): row for row in rows}


def _wrong(row: Any) -> str:
    """What keeps a value from being a row, or ""."""
    if not isinstance(row, Mapping):
        return "is not an object"
    for name in ("case", "variant", "metric"):
        if not isinstance(row.get(name), str):
            return f"has no {name!r} that is a text"
    if row.get("better") not in ("lower", "higher"):
        return f"says better={row.get('better')!r}, which is neither lower nor higher"
    if row.get("clock") not in CLOCKS:
        return f"says clock={row.get('clock')!r}, which is not one of {', '.join(CLOCKS)}"
    processes = row.get("processes")
    if not isinstance(processes, list) or not all(isinstance(process, list) for process in processes):
        return "has no 'processes' that is a list of lists"
    for sample in (sample for process in processes for sample in process):
        if type(sample) not in (int, float) or not math.isfinite(sample):
            return f"has the sample {sample!r}, which is no finite number"
    if not any(processes) and not row.get("error"):
        return "has no samples and no error that says why"
    return ""
