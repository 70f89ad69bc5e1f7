"""IDX files, in which MNIST and Fashion-MNIST come: found, read strictly, and a subset drawn by a seed."""

import gzip
import hashlib
import os
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from bingo.config_parts import SIDES
from bingo.errors import UserError, file_error
from bingo.files import hash_file, hash_json

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "val": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""Split -> names of its images and its labels, as MNIST has them."""
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
NAMES = tuple(name for names in FILES.values() for name in names)
WORDS = (
    f"give a folder with {', '.join(NAMES)}, each as it is or as .gz; Debian's package dataset-fashion-mnist puts "
    f"them into {DEBIAN}"
)
IMAGES, LABELS = 0x0803, 0x0801  # unsigned bytes, of three dimensions and of one
MOST_BYTES = 1 << 30
"""Of one file, unpacked: the largest set of this family has half of it."""
MOST_RATIO = 1032
"""Deflate packs no better: a header that asks for more is wrong, whatever follows it."""


def find_idx(folder: Path) -> dict[str, Path]:
    """Name -> path of the four files; one that is there twice counts as it is, without .gz. `UserError` without one."""
    try:
        there = set(os.listdir(folder))
    except NotADirectoryError:
        raise UserError(f"{folder} is a file; {WORDS}") from None
    except FileNotFoundError:
        raise UserError(f"{folder} does not exist; {WORDS}") from None
    except OSError as error:
        raise file_error(error, f"cannot read {folder}: {error.strerror or error}") from error
    found = {name: folder / (name if name in there else f"{name}.gz") for name in NAMES}
    if missing := [name for name, path in found.items() if path.name not in there]:
        raise UserError(f"{folder} holds no {' and no '.join(missing)}; {WORDS}")
    return found


def hash_idx(folder: Path) -> str:
    """Content hash of the four files, as they lie there."""
    return hash_json({name: hash_file(path) for name, path in find_idx(folder).items()})


def read_split(folder: Path, split: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images (N, H, H) with values 0 to 255 and labels (N) of `train` or `val`; `UserError` for files that are wrong.

    Format: two zero bytes, 8 for unsigned bytes, the number of dimensions, each dimension as a big-endian 32-bit
    number, then the bytes (Y. LeCun's description of MNIST's files).
    """
    files, (of_images, of_labels) = find_idx(folder), FILES[split]
    images, labels = _read(files[of_images], IMAGES), _read(files[of_labels], LABELS)
    if len(images) != len(labels):
        raise UserError(
            f"{files[of_images]} holds {len(images)} images and {files[of_labels]} {len(labels)} labels; "
            "these files do not belong together"
        )
    return images, labels


def draw(labels: npt.NDArray[np.uint8], count: int, seed: int) -> npt.NDArray[np.int64]:
    """`count` of the images in their order, as equally many of each class as there are: a pure function of the seed."""

    def place(index: int) -> bytes:
        return hashlib.blake2b(f"{seed} {index}".encode(), digest_size=8).digest()

    rank = np.empty(len(labels), dtype=np.int64)  # within its class
    for label in np.unique(labels):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=place)
        rank[members] = np.arange(len(members))
    return np.sort(np.lexsort((labels, rank))[:count])


def _read(path: Path, magic: int) -> npt.NDArray[np.uint8]:
    """The array of a file; its size is compared with what the file can hold before memory is asked for."""
    broken = f"{path} is no IDX file of {'images' if magic == IMAGES else 'labels'}"
    packed = path.suffix == ".gz"
    try:
        size = path.stat().st_size
        with cast(BinaryIO, gzip.open(path) if packed else open(path, "rb")) as file:
            head = file.read(4 * (2 if magic == LABELS else 4))
            numbers = [int.from_bytes(head[i : i + 4]) for i in range(0, len(head) - 3, 4)]
            if not numbers or numbers[0] != magic:
                raise UserError(f"{broken}: it does not begin with {magic:08x}; get the file again")
            if len(numbers) < (2 if magic == LABELS else 4):
                raise UserError(f"{broken}: its header is cut off; get the file again")
            shape = tuple(numbers[1:])
            _check_shape(broken, shape)
            expected, most = int(np.prod(shape, dtype=object)), size * MOST_RATIO if packed else size - len(head)
            if expected > most:
                raise UserError(f"{broken}: it is cut off, {size} bytes cannot hold {expected}; get the file again")
            content = file.read(expected)
            if len(content) < expected or file.read(1):
                found = "more" if len(content) == expected else str(len(content))
                raise UserError(f"{broken}: its header says {expected} bytes and it has {found}; get the file again")
    except EOFError:
        raise UserError(f"{broken}: it is cut off; get the file again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{broken}: gzip says {error}; get the file again") from None
    except OSError as error:
        raise file_error(error, f"cannot read {path}: {error.strerror or error}") from error
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _check_shape(broken: str, shape: tuple[int, ...]) -> None:
    count, *sides = shape
    if not count:
        raise UserError(f"{broken}: it is empty, says its header; get the file again")
    if sides and (sides[0] != sides[1] or not 1 <= sides[0] <= SIDES[1]):
        raise UserError(
            f"{broken} that can be used: its header says {sides[0]} x {sides[1]} pixels, and images must be square, "
            f"of at most {SIDES[1]} pixels a side"
        )
    if count * (sides[0] ** 2 if sides else 1) > MOST_BYTES:
        told = " x ".join(map(str, shape))
        raise UserError(f"{broken} that can be used: its header says {told} bytes, and at most {MOST_BYTES} are read")
