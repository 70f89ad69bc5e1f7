"""Real images without a download: scikit-learn's handwritten digits as JPEG files in class folders."""

import contextlib
import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from bingo.config import DemoDataConfig
from bingo.errors import UserError, file_error
from bingo.files import BEGUN, new_hash, read_json, remove_tree, sync_folder, write_json

if TYPE_CHECKING:
    from bingo.distributed import World

VAL_SHARE = (719, 1797)  # of 1 797 digits 719 go to val, 1 078 to train
QUALITY = 95
MANIFEST = "digits.json"
KIND = "bingo demo digits"
SPLITS = ("train", "val")


def write_digits(out: Path, *, size: int = 32) -> dict[str, int]:
    """Write the 1 797 digits (8×8 grey) as `size`×`size` RGB JPEGs, quality 95, 4:4:4, bicubic, under `out`.

    `out/train/<digit>/<index>.jpg` and `out/val/<digit>/<index>.jpg`, where index counts scikit-learn's images. Returns
    the number of images per split, {"train": 1078, "val": 719}. A split is there whole or not at all, and the manifest,
    `out/digits.json`, is written last. If `out` is already the result, nothing is done. Raises `UserError` when `out`
    is something else, `size` is not between 8 and 1024, scikit-learn is missing, or the disk is full.
    """
    out = Path(out)
    if not 8 <= size <= 1024:
        raise UserError(f"digits of {size} pixels cannot be written; choose a size between 8 and 1024")
    if out.exists() and not _is_begun(out):
        return _existing(out, size)
    pixels, targets = _load()
    val = split(targets)
    files = {
        f"{'val' if val[index] else 'train'}/{target}/{index:04d}.jpg": _jpeg(pixels[index], size)
        for index, target in enumerate(targets)
    }
    counts = {"train": int((~val).sum()), "val": int(val.sum())}
    _write_tree(out, files, {"kind": KIND, "size": size, **counts, "hash": _hash(files)})
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


def _is_begun(out: Path) -> bool:
    """Whether there is nothing in `out` but what a run that was killed can have left."""
    return out.is_dir() and all(path.name in (*BEGUN, *SPLITS) or path.name[0] == "." for path in out.iterdir())


def _write_tree(out: Path, files: dict[str, bytes], manifest: dict[str, str | int]) -> None:
    fresh, temporary = not out.exists(), out / ".digits.tmp"
    try:
        remove_tree(temporary)  # a killed run's
        for folder in sorted({Path(name).parent for name in files}):
            (temporary / folder).mkdir(parents=True)
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        for name in SPLITS:
            if not (out / name).exists():
                os.rename(temporary / name, out / name)
        if _hash(_found(out)) != manifest["hash"]:
            raise UserError(f"{out} holds other files than demo digits; name a new folder")
        sync_folder(out)
        write_json(out / MANIFEST, manifest)
    except OSError as error:
        raise file_error(
            error, f"cannot write {out}: {error.strerror or error}; free space or choose another folder"
        ) from error
    finally:
        remove_tree(temporary)
        if fresh:
            with contextlib.suppress(OSError):  # not empty: something is whole
                out.rmdir()


def _found(out: Path) -> dict[str, bytes]:
    """Name -> bytes of every image in class folders."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.glob("*/*/*.jpg") if path.is_file()}


def _existing(out: Path, size: int) -> dict[str, int]:
    """The counts of a finished folder, whose files are hashed again; `UserError` for anything else."""
    another = f"{out} already exists and is not"
    if not (out / MANIFEST).is_file():
        raise UserError(f"{another} a folder of demo digits; name a new folder, or delete it if it is not needed")
    manifest = read_json(out / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND or manifest.get("size") != size:
        raise UserError(f"{another} the demo digits at {size} pixels; name a new folder, or delete it first")
    if manifest.get("hash") != _hash(_found(out)):
        raise UserError(f"{another} complete or was changed; delete it and write the demo digits again")
    return {"train": int(manifest["train"]), "val": int(manifest["val"])}


def run(config: DemoDataConfig, key: str, world: "World") -> dict[str, Any]:
    """The `demo-data` stage."""
    return dict(write_digits(config.out, size=config.size))
