"""What has been found out about each image so far: rows of one array, saved by appending.

A killed check or pack reads its journal back and goes on. The file is a chain of frames: length, hash, and a payload of
one JSON line, row numbers and rows. A frame cut off by the kill does not hash to its own value and is dropped.
"""

import contextlib
import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import PIL

from bingo import __version__
from bingo.errors import TransientError
from bingo.files import HASH_BYTES, new_hash, try_lock
from bingo.images.jpeg_strict import DIED

SAVE_SECONDS = 5.0  # what a kill can cost
FRAME = struct.Struct(f"<Q{HASH_BYTES}s")
# Reasons that say more about the moment than about the file: such files are looked at again.
MAY_PASS = ("cannot be read", "the tar file is gone", DIED, f"corrupt ({DIED}", f"cannot be converted ({DIED}")
PENDING, OK, CONVERTIBLE, BAD = range(4)  # values of `verdict`
ROW = np.dtype(
    [
        ("verdict", "u1"),
        ("format", "u1"),  # index into check.FORMATS
        ("action", "u1"),  # index into check.ACTIONS
        ("converted", "u1"),  # stored in another form, or under a false name
        ("notes", "<u2"),  # bit k: check.NOTES[k]
        ("reason", "<u4"),  # index into Journal.reasons
        ("height", "<i4"),
        ("width", "<i4"),
        ("bytes", "<i8"),  # of the file
        ("digest", "u1", HASH_BYTES),  # of what is stored; of the file in a check
        ("stored", "<i8"),  # bytes in the flat file, 0: none
        ("offset", "<i8"),
        ("shard", "<i4"),
    ]
)


class Journal:
    """`rows` (N, dtype `ROW`) and `reasons`, the phrases that they refer to; nothing is saved without a `path`."""

    def __init__(self, path: Path | None, key: str, mode: str, count: int) -> None:
        """Read back what a run with the same `key`, `count` and versions saved; anything else starts from nothing.

        A change of `mode` costs only the rows that depend on it (`depends_on_mode`).
        Raises `TransientError` when another process writes the same journal.
        """
        self.path, self.mode = path, mode
        self._file: BinaryIO | None = None
        self._clear(count)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b")  # noqa: SIM115  closed by close()
            _lock(self._file, path)
            self._load(json.dumps([key, count, ROW.descr, __version__, PIL.__version__]))
        self._saved = time.monotonic()

    def _clear(self, count: int) -> None:
        self.rows = np.zeros(count, ROW)
        self.reasons = [""]
        self._codes = {"": 0}
        self._known = 1  # reasons that are in the file
        self._unsaved: list[int] = []

    @property
    def pending(self) -> npt.NDArray[np.int64]:
        """Numbers of the rows not judged yet, ascending."""
        return np.flatnonzero(self.rows["verdict"] == PENDING)

    def put(self, index: int, *, reason: str, **values: Any) -> None:
        """Fill row `index`."""
        if reason not in self._codes:
            self._codes[reason] = len(self.reasons)
            self.reasons.append(reason)
        row = self.rows[index]
        row["reason"] = self._codes[reason]
        for name, value in values.items():
            row[name] = value
        self._unsaved.append(index)

    def save(self, before: Callable[[], None] = lambda: None, *, due: float = 0.0) -> None:
        """Append the new rows and wait for the disk, if `due` seconds have passed since the last time.

        `before` makes durable what the rows refer to.
        """
        if self._file is None or not self._unsaved or time.monotonic() - self._saved < due:
            return
        before()
        numbers = np.array(self._unsaved, "<i8")
        self._append(self.reasons[self._known :], numbers.tobytes() + self.rows[numbers].tobytes())
        self._known = len(self.reasons)
        self._unsaved = []
        self._saved = time.monotonic()

    def start_afresh(self) -> None:
        """Forget every row, on disk too."""
        self._clear(len(self.rows))
        if self._file is not None:
            self._file.truncate(0)
            self._append([], b"", key=self._key)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Close and delete: the work is done."""
        self.close()
        if self.path is not None:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()

    def _append(self, reasons: list[str], body: bytes, **more: str) -> None:
        assert self._file is not None
        payload = json.dumps({"mode": self.mode, "reasons": reasons, **more}).encode() + b"\n" + body
        self._file.write(FRAME.pack(len(payload), _digest(payload)) + payload)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _load(self, key: str) -> None:
        assert self._file is not None
        self._key = key
        self._file.seek(0)
        end, mode = 0, None
        while (payload := _frame(self._file)) is not None:
            line, _, body = payload.partition(b"\n")
            head = json.loads(line)
            if not end and head.get("key") != key:
                break
            if mode is not None and mode != head["mode"]:
                self._drop_dependent()
            mode = head["mode"]
            for reason in head["reasons"]:
                self._codes[reason] = len(self.reasons)
                self.reasons.append(reason)
            count = len(body) // (8 + ROW.itemsize)
            self.rows[np.frombuffer(body, "<i8", count)] = np.frombuffer(body, ROW, count, 8 * count)
            end = self._file.tell()
        passing = [code for code, reason in enumerate(self.reasons) if reason.startswith(MAY_PASS)]
        self.rows[(self.rows["verdict"] == BAD) & np.isin(self.rows["reason"], passing)] = np.zeros((), ROW)
        self._known = len(self.reasons)
        self._file.truncate(end)
        if not end:
            self._append([], b"", key=key)
        elif mode != self.mode:
            self._drop_dependent()
            self._append([], b"")

    def _drop_dependent(self) -> None:
        self.rows[depends_on_mode(self.rows)] = np.zeros((), ROW)


def depends_on_mode(rows: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which rows would be stored otherwise, or not at all, if `--convert` were given, or not given."""
    return (rows["verdict"] == CONVERTIBLE) | (rows["action"] > 0)


def _digest(payload: bytes) -> bytes:
    digest = new_hash()
    digest.update(payload)
    return digest.digest()


def _frame(file: BinaryIO) -> bytes | None:
    """The next whole frame."""
    head = file.read(FRAME.size)
    if len(head) < FRAME.size:
        return None
    length, expected = FRAME.unpack(head)
    if length > os.fstat(file.fileno()).st_size:
        return None
    payload = file.read(length)
    return payload if _digest(payload) == expected else None


def _lock(file: BinaryIO, path: Path) -> None:
    if not try_lock(file.fileno()):
        file.close()
        raise TransientError(f"another process is writing {path} now; wait for it, or stop it first")
