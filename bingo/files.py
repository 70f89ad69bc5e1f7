"""Files that are whole or absent, and what they should hold: atomic writes, hashes, seals, locks, JSON."""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from bingo.errors import TransientError, UserError, file_error, remedy

HASH_BYTES = 16
RECORD = "stage.json"
"""What a stage writes into its folder when it is done."""
ENVIRONMENT = "environment.json"
BEGUN = (RECORD, "config.json", ENVIRONMENT)
"""What a stage writes into its folder when it starts."""
METRICS = "metrics.jsonl"
SAVED = "saved.json"
"""{key, step} of a training's newest checkpoint: a folder that has lost it is known by this."""
# Logs, checkpoints and traces are by-products: they differ between an interrupted and an uninterrupted run.
PROFILE = "profile"
"""Folder of a training's traces."""
SINKS = ("tensorboard", "wandb")
"""Folders of a training in which others show its metrics."""
BY_PRODUCTS = (*BEGUN, "checkpoints", METRICS, SAVED, PROFILE, *SINKS)
REPLACED = ".replaced"
"""In a folder whose work was moved aside on request, so that what is left there, the user's own, is in no way."""
SEAL = "seal"
"""Key of a JSON object's hash of all its other values."""
LOCK = ".lock"
TEMPORARY = re.compile(r"\..+\.(.+-\d+-[0-9a-f]+|\d+)\.tmp")
"""Name of a file that is being written, see `atomic_write`; a killed process leaves it."""
MOST_JSON = 1 << 28
REMEDY = "restore it, or delete it and run what wrote it again"


def new_hash() -> "hashlib.blake2b":
    """The project's content hash: 128-bit BLAKE2b (standard library, about 1 GB/s per core)."""
    return hashlib.blake2b(digest_size=HASH_BYTES)


def hash_file(path: Path) -> str:
    """Hex content hash of one file; `UserError` if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, new_hash).hexdigest()
    except OSError as error:
        raise file_error(error, f"cannot read {path}: {error.strerror or error}") from error


def hash_bytes(content: "bytes | memoryview") -> str:
    """Hex content hash of bytes; an array's are its own, if it is contiguous."""
    digest = new_hash()
    digest.update(content)
    return digest.hexdigest()


def hash_json(value: Any) -> str:
    """Hex hash of a JSON value, independent of key order."""
    return hash_bytes(json.dumps(value, sort_keys=True).encode())


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` and rename it over `path` on success.

    Readers see the old file or the new one, never a part: on any exception, and after a kill, the old file is intact.
    Raises `TransientError` when the disk is full, `UserError` when the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        kept = f"; the previous {path.name} is intact" if path.exists() else ""
        raise file_error(
            error, f"cannot write {path}: {error.strerror or error}{kept}; {remedy(error)} or choose another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def open_file(path: Path) -> BinaryIO:
    """Open a file to read its bytes. `OSError` for a folder, and for a pipe or device, which might never answer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            raise OSError(code, os.strerror(code) if code == errno.EISDIR else "it is no file", str(path))
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


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


def refuse_others_file(path: Path, keys: Iterable[str]) -> None:
    """`UserError` if a JSON file of others is where an object with these keys is to be written."""
    if path.exists() and not read_object(path).keys() >= set(keys):
        raise UserError(f"{path} is not what bingo writes under that name; move it, or choose another --out")


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder: a rename is only in memory until then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep_temporaries(folder: Path) -> None:
    """Delete what killed writers left half-written in a folder; the caller is its only writer."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if TEMPORARY.fullmatch(path.name) and not path.is_dir():
            with contextlib.suppress(OSError):
                path.unlink()


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, with its own hash under `seal`."""
    write_json(path, {**value, SEAL: hash_json(value)})


def read_sealed(path: Path, fields: Mapping[str, Any] | None = None, *, remedy: str = REMEDY) -> dict[str, Any]:
    """The object that `write_sealed` wrote, without its seal; an object without one is taken as it is.

    `UserError` as for `read_object`, and when the content does not match the seal.
    """
    value = read_object(path, fields, remedy=remedy)
    seal = value.pop(SEAL, None)
    if seal is not None and seal != hash_json(value):
        raise UserError(f"{path} is damaged or was edited: its content does not match its own hash; {remedy}")
    return value


def read_object(path: Path, fields: Mapping[str, Any] | None = None, *, remedy: str = REMEDY) -> dict[str, Any]:
    """Read a JSON file that holds an object; `UserError` as for `read_json`, or when it is none or lacks a field.

    fields: name -> type (or tuple of types) of what must be there.
    """
    value = read_json(path, remedy=remedy)
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a JSON {_kind(value)}, not an object; {remedy}")
    for name, kind in (fields or {}).items():
        if name not in value:
            raise UserError(f"{path} has no {name!r}; {remedy}")
        if not isinstance(value[name], kind) or (isinstance(value[name], bool) and kind is not bool):
            raise UserError(f"{path}: {name!r} is a JSON {_kind(value[name])}, which does not belong there; {remedy}")
    return value


def read_json(path: Path, *, remedy: str = REMEDY) -> Any:
    """Read a JSON file; `UserError`, one sentence, when it is missing, unreadable, too large or not JSON."""
    try:
        with open_file(path) as file:
            data = file.read(MOST_JSON + 1)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise file_error(error, f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > MOST_JSON:
        raise UserError(f"{path} is larger than {MOST_JSON >> 20} MiB, so it is none of ours; {remedy}")
    try:
        return json.loads(data)
    except RecursionError:
        raise UserError(f"{path} is nested too deep to be one of ours; {remedy}") from None
    except ValueError as error:  # also a number of thousands of digits, and bytes that are no text
        raise UserError(f"{path} is not valid JSON ({first_line(error)}); {remedy}") from None


def _kind(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def first_line(text: object) -> str:
    """The first line of a message, cut where it is long."""
    line = str(text).strip().partition("\n")[0]
    return line if len(line) <= 200 else line[:200] + "..."


def is_blank(path: Path) -> bool:
    """Whether a small file is not there, empty, or nothing but zeros: so a power cut leaves what it was writing."""
    try:
        with open_file(path) as file:
            return not file.read(1 << 20).strip(b"\0")
    except FileNotFoundError:
        return True
    except OSError:
        return False


def check_recorded(path: Path, content: str | None = None) -> None:
    """Compare a file with what the record of its stage, beside it, says; nothing is known without one.

    content: the file's hash, where the caller has it. `UserError` when they differ.
    """
    record = path.parent / RECORD
    if not record.is_file():
        return
    recorded = read_sealed(record).get("outputs")
    expected = recorded.get(path.name) if isinstance(recorded, dict) else None
    if expected is not None and (content or hash_file(path)) != expected:
        raise UserError(
            f"{path} is not the file that its stage wrote: its content hash differs from the one recorded in {record}; "
            "restore it, or delete the folder and run its stage again"
        )


def make_folder(folder: Path) -> None:
    """Create a folder and its parents; `UserError` if that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error(error, f"cannot create the folder {folder}: {error.strerror}; choose another --out") from error


@contextlib.contextmanager
def folder_lock(folder: Path, wait_s: float = 0, name: str = LOCK) -> Iterator[None]:
    """Hold `folder` for one writer; `TransientError` if another process still does after `wait_s` seconds.

    name: the file in it by which it is held. Released by the system when a process dies. Where the file system has no
    locks (some NFS) nothing is held: then two writers are the user's to avoid.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            file = open(folder / name, "a")  # noqa: SIM115  closed below; it may be a file of others
        except FileNotFoundError:  # who held it has deleted the folder while we waited
            make_folder(folder)
            continue
        except OSError as error:
            raise file_error(error, f"cannot write {folder}: {error.strerror}; choose another --out") from error
        with file:
            if try_lock(file.fileno()):
                if not _is_still(file, folder / name):
                    continue
                yield
                return
        if time.monotonic() >= deadline:
            raise TransientError(f"another process is writing {folder} now; wait for it, or stop it first")
        time.sleep(0.5)


def _is_still(file: Any, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def try_lock(descriptor: int) -> bool:
    """Lock a file or folder for this process; False if another holds it, True too where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def remove_tree(path: Path) -> None:
    """Delete a folder and all below it; an absent one is fine."""
    if path.exists():
        shutil.rmtree(path)
