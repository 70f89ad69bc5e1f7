"""Real images without a download as JPEG files in class folders: scikit-learn's digits, or those of IDX files."""

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from bingo.config import DemoDataConfig
from bingo.errors import UserError, file_error, remedy
from bingo.files import BEGUN, REPLACED, new_hash, read_object, remove_tree, sync_folder, write_json
from bingo.images.held_folder import held_folder
from bingo.images.idx import draw, hash_idx, read_split

if TYPE_CHECKING:
    from bingo.distributed import World

VAL_SHARE = (719, 1797)  # of 1 797 digits 719 go to val, 1 078 to train
QUALITY = 95
STAGING = ".digits"


class Demo(NamedTuple):
    """Images of one origin: what messages call them, the kind that their manifest says, its name."""

    words: str
    kind: str
    manifest: str

    @property
    def parts(self) -> tuple[str, ...]:
        """What a folder gets; the last says that all are there."""
        return ("train", "val", self.manifest)


DIGITS = Demo("demo digits", "bingo demo digits", "digits.json")
FROM_IDX = Demo("demo images", "bingo demo images", "images.json")


def write_digits(out: Path, *, size: int = 32) -> dict[str, int]:
    """Write the 1 797 digits (8×8 grey) as `size`×`size` RGB JPEGs, quality 95, 4:4:4, bicubic, under `out`.

    `out/train/<digit>/<index>.jpg` and `out/val/<digit>/<index>.jpg`, where index counts scikit-learn's images. Returns
    the number of images per split, {"train": 1078, "val": 719}. All or nothing: a hidden folder in `out` is filled and
    its parts are renamed; after a kill the same call ends with the same files. If `out` is already the result, nothing
    is done. Raises `UserError` when `out` is something else, `size` is not between 8 and 1024 or scikit-learn is
    missing, `TransientError` when the disk is full or another process writes `out`.
    """
    return _write_demo(Path(out), DIGITS, {"size": size}, lambda: _digits(size))


def write_idx(
    out: Path, source: Path, *, size: int = 32, train_images: int = 12000, val_images: int = 5000, seed: int = 0
) -> dict[str, int]:
    """Write images of IDX files as `write_digits` writes digits: a subset that is a pure function of `seed`.

    source: folder of the four files. train_images of its training images become `out/train`, val_images of its test
    images `out/val`, about equally many of each class. Raises `UserError` also for files that are wrong and for more
    images than there are.
    """
    settings = {"size": size, "train": train_images, "val": val_images, "seed": seed, "source": hash_idx(source)}
    wanted = {"train": train_images, "val": val_images}
    return _write_demo(Path(out), FROM_IDX, settings, lambda: _of_idx(source, size, wanted, seed))


def _write_demo(
    out: Path, demo: Demo, settings: Mapping[str, Any], make: Callable[[], dict[str, bytes]]
) -> dict[str, int]:
    """All or nothing: the files that `make` gives (relative name -> content), and a manifest with the settings."""
    size = settings["size"]
    if not 8 <= size <= 1024:
        raise UserError(f"{demo.words} of {size} pixels cannot be written; choose a size between 8 and 1024")
    if out.exists() and not out.is_dir():
        return _existing(out, demo, settings)
    with held_folder(out, "demo-data"), _errors(out, demo):
        if (out / STAGING).exists() and ((out / STAGING / demo.manifest).exists() or (out / demo.manifest).exists()):
            _move(out, demo)
        mine = demo.parts if (out / REPLACED).exists() else ()  # else whatever is there
        if any(name[0] != "." and name not in BEGUN and (not mine or name in mine) for name in os.listdir(out)):
            return _existing(out, demo, settings)
        files = make()
        counts = _counts(files)
        _write(out, demo, files, {"kind": demo.kind, **settings, **counts, "hash": _hash(files)})
    return counts


def _counts(files: dict[str, bytes]) -> dict[str, int]:
    return {name: sum(file.startswith(f"{name}/") for file in files) for name in ("train", "val")}


def _digits(size: int) -> dict[str, bytes]:
    pixels, targets = _load()
    val = split(targets)
    return {
        f"{'val' if val[index] else 'train'}/{target}/{index:04d}.jpg": _jpeg(pixels[index], size)
        for index, target in enumerate(targets)
    }


def _of_idx(source: Path, size: int, wanted: Mapping[str, int], seed: int) -> dict[str, bytes]:
    files = {}
    for name, count in wanted.items():
        pixels, labels = read_split(source, name)
        if count > len(labels):
            raise UserError(
                f"--{name}-images {count} is more than the {len(labels)} images that {source} has for it; give fewer"
            )
        for index in draw(labels, count, seed):
            files[f"{name}/{labels[index]}/{index:05d}.jpg"] = _jpeg(pixels[index], size)
    return files


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


def _load() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images (N, 8, 8), their values 0 to 16 stretched to 0 to 255, and labels (N)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError(
            "the demo's digits come with scikit-learn, which is not installed: pip install bingo-distill[demo]"
        ) from None
    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target


def _jpeg(grey: npt.NDArray[np.uint8], size: int) -> bytes:
    """A grey image (H, H) as an encoded RGB image."""
    image = Image.fromarray(grey).convert("RGB")
    file = io.BytesIO()
    image.resize((size, size), Image.Resampling.BICUBIC).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def _hash(files: dict[str, bytes]) -> str:
    digest = new_hash()
    for name in sorted(files):
        digest.update(f"{name} {len(files[name])}\n".encode())
        digest.update(files[name])
    return digest.hexdigest()


def _write(out: Path, demo: Demo, files: dict[str, bytes], manifest: dict[str, str | int]) -> None:
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
    write_json(staging / demo.manifest, manifest)
    _move(out, demo)


def _move(out: Path, demo: Demo) -> None:
    """What is written whole, to its places: the first time, or again after a kill in the middle."""
    for name in demo.parts:
        if (out / STAGING / name).exists():
            os.rename(out / STAGING / name, out / name)
    sync_folder(out)
    remove_tree(out / STAGING)


@contextlib.contextmanager
def _errors(out: Path, demo: Demo) -> Iterator[None]:
    """One sentence; what a full disk left half-written does not stay."""
    try:
        yield
    except OSError as error:
        reason = f"cannot write {out}: {error.strerror or error}; {remedy(error)} or choose another folder"
        raise file_error(error, reason) from error
    finally:
        with contextlib.suppress(OSError):
            if not (out / STAGING / demo.manifest).exists():
                remove_tree(out / STAGING)


def _existing(out: Path, demo: Demo, settings: Mapping[str, Any]) -> dict[str, int]:
    """The counts of a finished folder, whose files are hashed again; `UserError` for anything else."""
    another, name = f"{out} already exists and is not", demo.manifest
    if not (out / name).is_file():
        raise UserError(f"{another} a folder of {demo.words}; name a new folder, or delete it if it is not needed")
    manifest = read_object(out / name, {"kind": str, "size": int, "train": int, "val": int, "hash": str})
    if any(manifest.get(key) != value for key, value in {"kind": demo.kind, **settings}.items()):
        raise UserError(
            f"{another} the {demo.words} at {settings['size']} pixels that are asked for, says {name} in it; "
            "name a new folder, or delete it first"
        )
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.glob("*/*/*.jpg") if path.is_file()}
    counts = _counts(files)
    if manifest["hash"] != _hash(files) or any(manifest[part] != count for part, count in counts.items()):
        raise UserError(
            f"{another} complete or was changed: {name} in it says otherwise; delete it and write the images again"
        )
    return counts


def run(config: DemoDataConfig, key: str, world: "World") -> dict[str, Any]:
    """The `demo-data` stage."""
    if config.from_idx is None:
        return dict(write_digits(config.out, size=config.size))
    counts = {"train_images": config.train_images, "val_images": config.val_images}
    return dict(write_idx(config.out, config.from_idx, size=config.size, seed=config.seed, **counts))
