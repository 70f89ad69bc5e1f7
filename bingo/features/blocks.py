"""One large array on disk, made block by block by all ranks, and continued where a killed run stopped.

Rows are cut into fixed blocks whatever the number of ranks, so the bytes do not depend on it, and a run killed on 8
ranks goes on with 2. Order of events: a block's rows are written and flushed to disk, then its mark, the hash of the
rows; when every mark is there the partial file takes its final name. A run that goes on believes a mark only if the
rows still have its hash. Writes, not a memory map: two nodes that map one page of a network file can undo each other's
bytes.
"""

import contextlib
import io
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from bingo.distributed import World, shard
from bingo.errors import TransientError, file_error, remedy
from bingo.files import HASH_BYTES, atomic_write, new_hash, sync_folder
from bingo.watch import Watch

log = logging.getLogger(__name__)
Range = tuple[int, int]
"""First and past-the-last row."""


def fill_blocks(
    path: Path,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    *,
    block: int,
    key: str,
    world: World,
    compute: Callable[[list[Range]], Iterator[np.ndarray]],
    advance: Callable[[int, int], None] | None = None,
) -> int:
    """Make the .npy file `path` of `shape`; returns how many blocks an earlier run had done already.

    block: rows per block. key: whatever the content depends on; a partial file of another key is started anew.
    compute: gets this rank's ranges (contiguous runs of the missing blocks) and yields, in that order, the rows of each
    ((last - first) x shape[1:], of `dtype`). advance(done, total): this rank's blocks. Called by every rank; `path`
    is whole when it returns. `TransientError` for a full disk, `UserError` for a folder that cannot be written;
    `Leaving` on every rank, after the block that it works on, once they were asked to leave (a rank that was not asked
    does its share first).
    """
    ranges = [(first, min(first + block, shape[0])) for first in range(0, shape[0], block)]
    data, marks = _partial_files(path)

    def begin() -> np.ndarray:
        with _writing(path):
            if not _matches(data, marks, shape, dtype, block, key):
                if data.exists():
                    log.warning("%s is of other settings, or it or its marks are damaged: it is begun anew", data)
                _start(data, marks, shape, dtype, block, key, len(ranges))
            return _done(data, marks, ranges, shape, dtype)

    def finish() -> None:
        with _writing(path):
            if world.size > 1:
                _check_all(_done(data, marks, ranges, shape, dtype), data)
            os.replace(data, path)
            marks.unlink()
            sync_folder(path.parent)

    done = world.by_main(begin)  # one reading, or two ranks could disagree about who does what
    world.together(lambda: _beginning(data, marks, path), lambda found: {f"the half-done {path}": found})
    missing = np.flatnonzero(~done)
    lo, hi = shard(len(missing), world.rank, world.size)
    mine = [(int(i), ranges[i]) for i in missing[lo:hi]]
    with _writing(path):
        filled = _fill(data, marks, shape, dtype, mine, compute, advance, world.watch)
    world.barrier()
    if world.leaving(now=True):
        world.leave(filled, f"after {filled} of {len(mine)} blocks")
    world.by_main(finish)
    return int(done.sum())


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise file_error(
            error,
            f"cannot write {path}: {error.strerror or error}; {remedy(error)} or choose another folder, "
            "then type the same command to go on",
        ) from error


def _beginning(data: Path, marks: Path, path: Path) -> tuple[bytes, int]:
    """What a rank sees of the file that rank 0 has begun: the first line of its marks, and its size."""
    with _writing(path), open(marks, "rb") as file:
        return file.readline(), data.stat().st_size


def _check_all(done: np.ndarray, data: Path) -> None:
    """Other ranks' rows may lie on another disk: then rank 0 does not see them, and zeros would be taken for them."""
    if not done.all():
        raise TransientError(
            f"{int((~done).sum())} of {len(done)} blocks of {data}, the first is block {int(np.argmin(done))}, are not "
            f"what other ranks wrote: let every node see the same {data.parent}, then type the same command to go on"
        )


def _partial_files(path: Path) -> tuple[Path, Path]:
    return path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.marks")


def _head(shape: tuple[int, ...], dtype: DTypeLike, block: int, key: str) -> bytes:
    """First line of the marks file; the hash of each block's rows follows, zeros where it is not done."""
    return f"{key} {shape} {np.dtype(dtype).str} {block} {HASH_BYTES}\n".encode()


def _array_header(shape: tuple[int, ...], dtype: DTypeLike) -> bytes:
    """What a .npy file begins with."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(_like(shape, dtype)))
    return file.getvalue()


def _matches(data: Path, marks: Path, shape: tuple[int, ...], dtype: DTypeLike, block: int, key: str) -> bool:
    if not (data.exists() and marks.exists()):
        return False
    begin = _array_header(shape, dtype)
    with open(marks, "rb") as flags, open(data, "rb") as file:
        return flags.readline() == _head(shape, dtype, block, key) and file.read(len(begin)) == begin


def _start(
    data: Path, marks: Path, shape: tuple[int, ...], dtype: DTypeLike, block: int, key: str, blocks: int
) -> None:
    marks.unlink(missing_ok=True)  # first: marks must never be found beside data they are not about
    data.parent.mkdir(parents=True, exist_ok=True)
    with open(data, "wb") as file:
        file.write(_array_header(shape, dtype))
        file.truncate(file.tell() + _row_bytes(shape, dtype) * shape[0])
        os.fsync(file.fileno())
    with atomic_write(marks) as file:
        file.write(_head(shape, dtype, block, key) + bytes(HASH_BYTES * blocks))


def _like(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """An array of this shape that takes no memory."""
    return np.lib.stride_tricks.as_strided(np.empty(1, dtype), shape, (0,) * len(shape))


def _row_bytes(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    return int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize


def _done(data: Path, marks: Path, ranges: list[Range], shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Which blocks are done (bool). Rows that do not have the hash of their mark are damaged, and no more done than
    those without one."""
    found = np.zeros(len(ranges), bool)
    begin, row_bytes, nothing = len(_array_header(shape, dtype)), _row_bytes(shape, dtype), bytes(HASH_BYTES)
    with open(data, "rb") as file, open(marks, "rb") as flags:
        flags.readline()
        for number, (first, last) in enumerate(ranges):
            if (mark := flags.read(HASH_BYTES)) not in (nothing, b""):
                file.seek(begin + row_bytes * first)
                found[number] = _digest(file.read(row_bytes * (last - first))) == mark
                if not found[number]:
                    log.warning("block %d of %s is damaged: it is computed again", number, data)
    return found


def _digest(rows: "bytes | memoryview") -> bytes:
    digest = new_hash()
    digest.update(rows)
    return digest.digest()


def _fill(
    data: Path,
    marks: Path,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    mine: list[tuple[int, Range]],
    compute: Callable[[list[Range]], Iterator[np.ndarray]],
    advance: Callable[[int, int], None] | None,
    watch: Watch,
) -> int:
    """Write the blocks (number, range) of one rank until it is asked to leave; returns how many."""
    row_bytes = _row_bytes(shape, dtype)
    with open(data, "r+b") as file, open(marks, "r+b") as flags:
        start, first_mark = len(_array_header(shape, dtype)), len(flags.readline())
        results = compute([rows for _, rows in mine])
        for count, (number, (first, last)) in enumerate(mine):
            if watch.asked:
                return count
            rows = np.ascontiguousarray(next(results))
            if rows.shape != (last - first, *shape[1:]) or rows.dtype != np.dtype(dtype):
                raise AssertionError(f"block {number}: {rows.shape} {rows.dtype} in place of {last - first} rows")
            content = memoryview(rows).cast("B") if rows.size else memoryview(b"")
            _write_at(file.fileno(), content, start + row_bytes * first)
            os.fsync(file.fileno())
            os.pwrite(flags.fileno(), _digest(content), first_mark + HASH_BYTES * number)
            watch.beat(count + 1)
            if advance is not None:
                advance(count + 1, len(mine))
    return len(mine)


def _write_at(descriptor: int, rest: memoryview, offset: int) -> None:
    """`os.pwrite` until everything is written: one call writes at most 2 GiB."""
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written
