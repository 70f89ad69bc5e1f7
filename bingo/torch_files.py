"""Files of torch.save, which anyone may have made: read whole and checked, or refused by what they are."""

import argparse
import errno
import json
import os
import pathlib
import re
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bingo.errors import LIMITS, TransientError, UserError, file_error, no_memory
from bingo.files import REMEDY, check_recorded, first_line

HEAD_BYTES = 512
LEGACY = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""Near the beginning of what torch.save wrote before release 1.6. Such files hold no checksums."""
ZIP = b"PK\x03\x04"
BEGINNINGS = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file that it stands for (type `git lfs pull` there)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes them"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "compressed by gzip (unpack it first)"),
    (b"\xfd7zXZ\0", "compressed by xz (unpack it first)"),
    (b"BZh", "compressed by bzip2 (unpack it first)"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd (unpack it first)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive (unpack it first)"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program or a library"),
)


CLASS = re.compile(r"GLOBAL ([\w.]+)|(?:but got|reduce for unrecognized function) <(?:class |.*?)'?([\w.]+)")
"""How torch names what it does not load, in its several sentences."""


def _harmless() -> tuple[Any, ...]:
    """What checkpoints often hold beside tensors, and what making it cannot do more than make it: the arguments of a
    script, paths, numbers of NumPy under their old and new names."""
    import numpy as np

    scalar: Any = np.float64(0).__reduce__()[0]  # what makes every number of NumPy
    kinds = [
        type(np.dtype(code)) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u4", "u8", "?", "S", "U")
    ]
    named = [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    paths = [(path, f"pathlib{inner}.{path.__name__}") for path in PATHS for inner in ("", "._local")]
    return (argparse.Namespace, np.dtype, *kinds, *named, *paths, _encode())


def _encode() -> Callable[..., Any]:
    """`codecs.encode`, by which pickles of older protocols make bytes: it only turns text into bytes."""
    import _codecs

    return _codecs.encode


PATHS = (pathlib.PosixPath, pathlib.PurePosixPath, pathlib.WindowsPath, pathlib.PureWindowsPath)
HARMLESS = _harmless()


def read_network(path: Path, accepted: str) -> Any:
    """As `read_torch`, and what the safetensors package wrote, as a state dict; `UserError` without that package."""
    if os.path.isfile(path) and is_safetensors(path):
        return _read_safetensors(path)
    return read_torch(path, accepted)


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as the safetensors package writes it: the size of a JSON object, and that object."""
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError as error:
        raise file_error(error, f"cannot read {path}: {error.strerror or error}") from error
    return _begins_safetensors(head)


def _begins_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < 1 << 32


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    check_recorded(path)
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(f"{path} is a safetensors file; to read it: pip install 'bingo-distill[teachers]'") from None
    try:
        return load_file(path)
    except OSError as error:
        raise file_error(error, f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # safetensors raises types of its own on damaged files
        if no_memory(error):
            raise TransientError(f"cannot read {path}: {LIMITS[errno.ENOMEM]}") from error
        raise UserError(f"{path} is truncated or damaged ({_reason(error)}); {REMEDY}") from error


def read_torch(path: Path, accepted: str) -> Any:
    """What `torch.save` wrote into `path`, on the CPU: tensors and plain containers, no other Python object.

    Checked before it is believed: against the record of its stage beside it, and by the checksums of its archive.
    accepted: what may be given instead; it ends the sentence about a file of another kind. `UserError`, one sentence:
    missing, unreadable, of another kind, damaged, or with objects of other classes.
    """
    if not os.path.lexists(path):
        raise UserError(f"{path} does not exist; {accepted}")
    if kind := foreign_kind(path):
        raise UserError(f"{path} is {kind}, not a file written by torch.save; {accepted}")
    check_recorded(path)
    try:
        _check_archive(path)
        with torch.serialization.safe_globals(list(HARMLESS)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise file_error(error, f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # torch raises many types on damaged files, and each means the same thing here
        if no_memory(error):
            raise TransientError(f"cannot read {path}: {LIMITS[errno.ENOMEM]}") from error
        if found := CLASS.search(str(error)):
            raise UserError(
                f"{path} holds a Python object of class {found[1] or found[2]}, which is not loaded because that could "
                f"run any code: save only the state_dict of the network; {accepted}"
            ) from error
        raise UserError(f"{path} is truncated or damaged ({_reason(error)}); {REMEDY}") from error


def foreign_kind(path: Path) -> str | None:
    """What a file is that torch.save has not written, by its first bytes; None for one that it may have written.

    `UserError` if it cannot be read.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            return "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise file_error(error, f"cannot read {path}: {error.strerror or error}") from error
    if head.startswith(ZIP):
        return _kind_of_zip(path)
    return None if LEGACY in head[:32] else _kind_of_bytes(head)


def _kind_of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:
        return None  # a damaged archive: said when it is checked
    leaves = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in leaves:
        return "a TorchScript archive (load it with torch.jit.load and save its state_dict)"
    if any(".data/" in name for name in names) and "extern_modules" in leaves:
        return "a torch.package archive"
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays"
    if "model.weights.h5" in leaves:
        return "a Keras model"
    return None if "data.pkl" in leaves else "a zip archive of other files"


def _kind_of_bytes(head: bytes) -> str | None:
    if not head:
        return "empty (0 bytes)"
    for beginning, kind in BEGINNINGS:
        if head.startswith(beginning):
            return kind
    if head[257:262] == b"ustar":
        return "a tar archive (unpack it first; one of torch before release 0.2 must be saved again)"
    if _begins_safetensors(head):
        return "a safetensors file (load it with safetensors and torch.save the state_dict)"
    if head[0] == 8 and head[1] < 32 and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x2a", b"\x32", b"\x3a"):
        return "an ONNX model"
    if head[0] == 0x80 and 2 <= head[1] <= 5:
        return "a bare Python pickle"
    try:
        text = head.decode(errors="strict" if len(head) < HEAD_BYTES else "ignore").lstrip("\ufeff \t\r\n")
    except UnicodeDecodeError:
        return "of no kind that is known here"
    if not all(letter.isprintable() or letter.isspace() for letter in text):
        return "of no kind that is known here"
    if text.startswith("<"):
        return "a web page or XML (a download that failed, as a rule)"
    return "a JSON file" if text[:1] in ("{", "[") else f"a text file that begins with {json.dumps(text[:20])}"


def _check_archive(path: Path) -> None:
    """Compare every member of an archive with its checksum; files of old releases have none."""
    with open(path, "rb") as file:
        if file.read(len(ZIP)) != ZIP:
            return
        with zipfile.ZipFile(file) as archive:
            if damaged := archive.testzip():
                raise UserError(f"{path} is damaged: its part {damaged} does not match its checksum; {REMEDY}")


def _reason(error: Exception) -> str:
    return first_line(error) or type(error).__name__
