"""The flat files that a pack appends images to, in step with its journal."""

import os
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from bingo.images.check import Inspection
from bingo.images.digests import image_digest
from bingo.images.journal import Journal, depends_on_mode


class _Stream:
    """Flat files that are appended to, none larger than `limit` bytes (but for a single larger image)."""

    def __init__(self, out: Path, prefix: str, limit: int, rows: npt.NDArray[Any]) -> None:
        """Go on behind `rows`, which lie in files that are there; what lies behind them is cut off."""
        self.out, self.prefix, self.limit = out, prefix, limit
        self.sizes = stream_sizes(rows)
        self._file: BinaryIO | None = None

    def path(self, shard: int) -> Path:
        return self.out / f".pack-{self.prefix}{shard:03d}.bin"

    def whole(self, finals: list[Path], rows: npt.NDArray[Any]) -> bool:
        """Whether the files hold what `rows` say, byte for byte: here, or after a killed commit under `finals`."""
        for shard, size in enumerate(self.sizes):
            here = self.path(shard)
            place = finals[shard] if finals and not here.exists() else here
            if (_size(place) < size if place == here else _size(place) != size) or not _holds(
                place, rows[rows["shard"] == shard]
            ):
                return False
        return True

    def cut(self) -> None:
        """Remove what no row refers to."""
        for name in os.listdir(self.out):
            if found := re.fullmatch(rf"\.pack-{self.prefix}(\d+)\.bin", name):
                shard = int(found[1])
                if shard < len(self.sizes):
                    os.truncate(self.out / name, self.sizes[shard])
                else:
                    (self.out / name).unlink()

    def write(self, data: bytes) -> tuple[int, int]:
        """Append an image: its shard and offset."""
        if not self.sizes or (self.sizes[-1] and self.sizes[-1] + len(data) > self.limit):
            self.sync()
            self.close()
            self.sizes.append(0)
        if self._file is None:
            self._file = open(self.path(len(self.sizes) - 1), "ab")  # noqa: SIM115  closed by close()
        self._file.write(data)
        self.sizes[-1] += len(data)
        return len(self.sizes) - 1, self.sizes[-1] - len(data)

    def sync(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()


def stream_sizes(rows: npt.NDArray[Any]) -> list[int]:
    """Bytes in each flat file of a stream; `rows` are those stored in it."""
    sizes = np.zeros(int(rows["shard"].max()) + 1 if len(rows) else 0, np.int64)
    np.maximum.at(sizes, rows["shard"], rows["offset"] + rows["stored"])
    return sizes.tolist()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _holds(file: Path, rows: npt.NDArray[Any]) -> bool:
    """Whether each image has the digest that its row says: what a killed pack left may have been damaged since."""
    try:
        with open(file, "rb", 0) as stored:
            return all(
                image_digest(os.pread(stored.fileno(), int(row["stored"]), int(row["offset"])))
                == row["digest"].tobytes()
                for row in rows
            )
    except OSError:
        return False


class Packing:
    """The flat files of a pack under way, in step with its journal."""

    def __init__(self, journal: Journal, out: Path, limit: int, finals: list[Path]) -> None:
        """Go on behind what the journal says; `finals` are the final names of all files, if it says all."""
        self.journal, self.out = journal, out
        self._open(limit)
        plain = len(self.plain.sizes)
        rows, dependent = self._stored()
        if not (
            self.plain.whole(finals[:plain], rows[~dependent]) and self.changed.whole(finals[plain:], rows[dependent])
        ):
            journal.start_afresh()
            self._open(limit)
        self.plain.cut()
        self.changed.cut()

    def _open(self, limit: int) -> None:
        rows, dependent = self._stored()
        self.plain = _Stream(self.out, "", limit, rows[~dependent])
        self.changed = _Stream(self.out, "c", limit, rows[dependent])

    def _stored(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """The rows of stored images, and which of them lie in the files of what `--convert` changes."""
        rows = self.journal.rows[self.journal.rows["stored"] > 0]
        return rows, depends_on_mode(rows)

    def add(self, index: int, inspection: Inspection) -> None:
        """Store an image, unless it is bad or would have to be converted."""
        verdict = inspection.verdict
        if verdict.verdict == "bad" or (verdict.verdict == "convertible" and not inspection.converted):
            inspection.enter(self.journal, index)
            return
        stream = self.changed if verdict.action or verdict.verdict == "convertible" else self.plain
        shard, offset = stream.write(inspection.data)
        inspection.enter(self.journal, index, stored=len(inspection.data), offset=offset, shard=shard)

    def save(self, due: float = 0.0) -> None:
        self.journal.save(self.sync, due=due)

    def sync(self) -> None:
        self.plain.sync()
        self.changed.sync()

    def close(self) -> None:
        self.plain.close()
        self.changed.close()

    @property
    def files(self) -> list[Path]:
        """In the order of the index."""
        return [stream.path(shard) for stream in (self.plain, self.changed) for shard in range(len(stream.sizes))]
