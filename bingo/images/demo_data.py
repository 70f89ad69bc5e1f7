"""Real images without a download: scikit-learn's handwritten digits as JPEG files in class folders."""

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from bingo.config import DemoDataConfig
from bingo.errors import UserError, file_error, remedy
from bingo.files import BEGUN, REPLACED, new_hash, read_object, remove_tree, sync_folder, write_json
from bingo.images.held_folder import held_folder

if TYPE_CHECKING:
    from bingo.distributed import World

VAL_SHARE = (719, 1797)  # of 1 797 digits 719 go to val, 1 078 to train
QUALITY = 95
MANIFEST = "digits.json"
PARTS = ("train", "val", MANIFEST)  # the last says that all are there
STAGING = ".digits"
KIND = "bingo demo digits"


def write_digits(out: Path, *, size: int = 32) -> dict[str, int]:
    """Write the 1 797 digits (8×8 grey) as `size`×`size` RGB JPEGs, quality 95, 4:4:4, bicubic, under `out`.

    `out/train/<digit>/<index>.jpg` and `out/val/<digit>/<index>.jpg`, where index counts scikit-learn's images. Returns
    the number of images per split, {"train": 1078, "val": 719}. All or nothing: a hidden folder in `out` is filled and
    its parts are renamed; after a kill the same call ends with the same files. If `out` is already the result, nothing
    is done. Raises `UserError` when `out` is something else, `size` is not between 8 and 1024 or scikit-learn is
    missing, `TransientError` when the disk is full or another process writes `out`.
    """
    out = Path(out)
    if not 8 <= size <= 1024:
        raise UserError(f"digits of {size} pixels cannot be written; choose a size between 8 and 1024")
    if out.exists() and not out.is_dir():
        return _existing(out, size)
    with held_folder(out, "demo-data"), _errors(out):
        if (out / STAGING).exists() and ((out / STAGING / MANIFEST).exists() or (out / MANIFEST).exists()):
            _move(out)
        mine = PARTS if (out / REPLACED).exists() else ()  # else whatever is there
        if any(name[0] != "." and name not in BEGUN and (not mine or name in mine) for name in os.listdir(out)):
            return _existing(out, size)
        pixels, targets = _load()
        val = split(targets)
        files = {
            f"{'val' if val[index] else 'train'}/{target}/{index:04d}.jpg": _jpeg(pixels[index], size)
            for index, target in enumerate(targets)
        }
        counts = {"train": int((~val).sum()), "val": int(val.sum())}
        _write(out, files, {"kind": KIND, "size": size, **counts, "hash": _hash(files)})
    return counts


def split(targets: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """True (N) for the images of the val split: 719 in 1 797, within one image of that share in each class.

    A pure function of the targets: the order within a class comes from a hash of the index, not from a generator whose
    stream may change between releases.
    """

    def place(index: int) -> tuple[int, bytes]:
        return int(targets[index]), hashlib.blake2b(str(index).encode(), digest_size=8).digest()

    order = sorted(range(len(targets)), key=place)
    part, whole = VAL_SHARE
    rank = np.arange(len(targets), dtype=np.int64)
    val = np.zeros(len(targets), dtype=np.bool_)
    val[order] = (rank + 1) * part // whole > rank * part // whole
    return val


def _load() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError(
            "the demo's digits come with scikit-learn, which is not installed: pip install bingo-distill[demo]"
        ) from None
    digits = load_digits()
    return digits.images, digits.target


def _jpeg(grey: npt.NDArray[np.float64], size: int) -> bytes:
    """One digit, 8×8 with values 0 to 16, as an encoded RGB image."""
    image = Image.fromarray(np.rint(grey * (255 / 16)).astype(np.uint8)).convert("RGB")
    file = io.BytesIO()
    image.resize((size, size), Image.Resampling.BICUBIC).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def _hash(files: dict[str, bytes]) -> str:
    digest = new_hash()
    for name in sorted(files):
        digest.update(f"{name} {len(files[name])}\n".encode())
        digest.update(files[name])
    return digest.hexdigest()


def _write(out: Path, files: dict[str, bytes], manifest: dict[str, str | int]) -> None:
    """Fill a hidden folder in `out`, its manifest last, then move its parts to their places, the manifest last."""
    staging = out / STAGING
    remove_tree(staging)
    for folder in sorted({Path(name).parent for name in files}):
        (staging / folder).mkdir(parents=True)
    for name, data in files.items():
        with open(staging / name, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    for folder in sorted({parent for name in files for parent in Path(name).parents}):
        sync_folder(staging / folder)
    write_json(staging / MANIFEST, manifest)
    _move(out)


def _move(out: Path) -> None:
    """What is written whole, to its places: the first time, or again after a kill in the middle."""
    for name in PARTS:
        if (out / STAGING / name).exists():
            os.rename(out / STAGING / name, out / name)
    sync_folder(out)
    remove_tree(out / STAGING)


@contextlib.contextmanager
def _errors(out: Path) -> Iterator[None]:
    """One sentence; what a full disk left half-written does not stay."""
    try:
        yield
    except OSError as error:
        reason = f"cannot write {out}: {error.strerror or error}; {remedy(error)} or choose another folder"
        raise file_error(error, reason) from error
    finally:
        with contextlib.suppress(OSError):
            if not (out / STAGING / MANIFEST).exists():
                remove_tree(out / STAGING)


def _existing(out: Path, size: int) -> dict[str, int]:
    """The counts of a finished folder, whose files are hashed again; `UserError` for anything else."""
    another = f"{out} already exists and is not"
    if not (out / MANIFEST).is_file():
        raise UserError(f"{another} a folder of demo digits; name a new folder, or delete it if it is not needed")
    manifest = read_object(out / MANIFEST, {"kind": str, "size": int, "train": int, "val": int, "hash": str})
    if manifest["kind"] != KIND or manifest["size"] != size:
        raise UserError(
            f"{another} the demo digits at {size} pixels, says {MANIFEST} in it; name a new folder, or delete it first"
        )
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.glob("*/*/*.jpg") if path.is_file()}
    counts = {name: sum(file.startswith(f"{name}/") for file in files) for name in ("train", "val")}
    if manifest["hash"] != _hash(files) or any(manifest[name] != count for name, count in counts.items()):
        raise UserError(
            f"{another} complete or was changed: {MANIFEST} in it says otherwise; delete it and write the digits again"
        )
    return counts


def run(config: DemoDataConfig, key: str, world: "World") -> dict[str, Any]:
    """The `demo-data` stage."""
    return dict(write_digits(config.out, size=config.size))
