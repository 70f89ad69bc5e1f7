"""Files that are whole or absent: atomic writes, content hashes, JSON with one-sentence errors."""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from bingo.errors import TransientError, UserError, write_error

HASH_BYTES = 16
RECORD = "stage.json"
"""What a stage writes into its folder when it is done."""


def new_hash() -> "hashlib.blake2b":
    """The project's content hash: 128-bit BLAKE2b (standard library, about 1 GB/s per core)."""
    return hashlib.blake2b(digest_size=HASH_BYTES)


def hash_file(path: Path) -> str:
    """Hex content hash of one file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, new_hash).hexdigest()


def hash_json(value: Any) -> str:
    """Hex hash of a JSON value, independent of key order."""
    digest = new_hash()
    digest.update(json.dumps(value, sort_keys=True).encode())
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` and rename it over `path` on success.

    Readers see the old file or the new one, never a part: on any exception, and after a kill, the old file is intact.
    Raises `TransientError` when the disk is full, `UserError` when the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        kept = f"; the previous {path.name} is intact" if path.exists() else ""
        raise write_error(
            error, f"cannot write {path}: {error.strerror or error}{kept}; free space or choose another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_torch(path: Path, value: Any) -> None:
    """`torch.save`, atomically. Through memory: on a full disk torch.save itself fails with an unrelated error."""
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, indented, with a trailing newline."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file; `UserError` when it is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and run the stage again") from None


def make_folder(folder: Path) -> None:
    """Create a folder and its parents; `UserError` if that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(
            error, f"cannot create the folder {folder}: {error.strerror}; choose another --out"
        ) from error


@contextlib.contextmanager
def folder_lock(folder: Path, wait_s: float = 0) -> Iterator[None]:
    """Hold `folder` for one writer; `TransientError` if another process still does after `wait_s` seconds.

    Released by the system when a process dies. Where the file system has no locks (some NFS) nothing is held: then two
    writers are the user's to avoid.
    """
    deadline = time.monotonic() + wait_s
    try:
        file = open(folder / ".lock", "w")  # noqa: SIM115  closed below
    except OSError as error:
        raise write_error(error, f"cannot write {folder}: {error.strerror}; choose another --out") from error
    with file:
        while not try_lock(file.fileno()):
            if time.monotonic() >= deadline:
                raise TransientError(f"another process is writing {folder} now; wait for it, or stop it first")
            time.sleep(0.5)
        yield


def try_lock(descriptor: int) -> bool:
    """Lock a file or folder for this process; False if another holds it, True too where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def clear_folder(folder: Path) -> None:
    """Delete what a folder holds, but not its lock."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def remove_tree(path: Path) -> None:
    """Delete a folder and all below it; an absent one is fine."""
    if path.exists():
        shutil.rmtree(path)
