"""Cached keys: the teacher's keys of several views of every image, written once for `distill --keys`.

BINGO's key view is drawn independently of the query views, so a key from a fixed stock of M views per image can stand
for a fresh one: then no teacher runs while a student trains, nothing but the query views is decoded and augmented, and
every rank reads the keys of all ranks from the file where it would have gathered them. Objectives whose keys are of the
query's own view draw one of the M again for the student: a view is a function of (seed, image, view) alone
(`Plan.replayed`). FKD (Shen and Xing 2022, arXiv 2112.01528) stores crops and soft labels of a supervised teacher so.
Legend: N images, M views per image, C channels of a key, R rows that are read.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bingo.config import KeysConfig
from bingo.config_json import to_json
from bingo.config_parts import Augmentation
from bingo.distributed import World
from bingo.errors import TransientError, UserError
from bingo.features.alike import engine_same, key_of_blocks, load_same, open_same, rounded_by
from bingo.features.blocks import Range, fill_blocks
from bingo.features.stored import all_equal, check_content, check_rows, open_rows
from bingo.files import hash_file, hash_json, read_object, write_json
from bingo.images.dataset import Dataset
from bingo.kernels.transfer import to_device
from bingo.models import Encoder, autocast
from bingo.progress import duration, progress_bar
from bingo.views.decode_failures import Failures
from bingo.views.loader import ONE_ROW_EACH, CropStream, Group, augmenter, view_dtype
from bingo.views.plan import Plan, View

log = logging.getLogger(__name__)

FORMAT = "bingo-keys-1"
FILE, HEADER = "keys.npy", "keys.json"
AGAIN = "run `bingo keys` again"
# numpy has no bf16: its bits are stored as whole numbers.
STORED: dict[str, np.dtype] = {"fp32": np.dtype("<f4"), "bf16": np.dtype("<u2"), "fp16": np.dtype("<f2")}
TORCH = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FIELDS = {
    "dataset": str, "teacher": str, "images": int, "views": int, "dim": int, "dtype": str, "augment": dict, "seed": int,
    "hash": str,
}  # fmt: skip
CHECKED_NUMBERS = 1 << 24  # looked at together
# Uint8 crops of one decoded batch at most; DALI and the copy out of it hold four such batches.
CROP_BYTES = 1 << 29
MEASURED = 4  # blocks, behind the first, after which the log says how long the others will take


def run(config: KeysConfig, key: str, world: World) -> dict[str, Any]:
    """Write `keys.npy` (N x M x C unit rows) and `keys.json`: what they were made from, and the file's content hash.

    The bytes do not depend on the number of ranks (on a CPU: at the same threads per rank).
    """
    dataset = open_same(config.data, config.loader, world)
    teacher, teacher_hash = load_same(config.teacher, config.augment.size, world, head=True, arch=config.arch)
    shape = (len(dataset), config.views, teacher.dim)
    world.by_main(lambda: check_space(config, shape))
    with progress_bar("keys", unit="blocks", show=world.main) as advance:
        maker = KeyMaker(config, dataset, teacher, world)
        path, stored, block = config.out / FILE, STORED[config.dtype], images_per_block(config)
        key = key_of_blocks(key, maker.teacher, config.runtime, world)
        fill_blocks(path, shape, stored, block=block, key=key, world=world, compute=maker.blocks, advance=advance)
    rounded = rounded_by(maker.teacher, config.runtime, world)
    if world.main:
        header = {
            "format": FORMAT, "dataset": dataset.hash, "teacher": teacher_hash, "images": shape[0], "views": shape[1],
            "dim": shape[2], "dtype": config.dtype, "precision": rounded["precision"] or "fp32", "seed": config.seed,
            "augment": to_json(config.augment), "bytes": path.stat().st_size, "hash": hash_file(path),
        }  # fmt: skip
        header |= {"engine": rounded["engine"]} if rounded["engine"] else {}  # as before where nothing is new
        write_json(config.out / HEADER, {**header, "header_hash": hash_json(header)})
    return {
        "images": shape[0],
        "views": shape[1],
        "dim": shape[2],
        "gigabytes": round(array_bytes(config, shape) / 1e9, 3),
        **rounded,
    }


def images_per_block(config: KeysConfig) -> int:
    """Images that are decoded together, and the rows of a block of the file: as many as the crops' memory allows."""
    return max(1, min(config.batch, CROP_BYTES // (config.views * 3 * config.augment.size**2)))


def array_bytes(config: KeysConfig, shape: tuple[int, int, int]) -> int:
    """Size of the keys without the file's header."""
    return int(np.prod(shape, dtype=np.int64)) * STORED[config.dtype].itemsize


def check_space(config: KeysConfig, shape: tuple[int, int, int]) -> None:
    """Say how large the file will be; `TransientError` if the disk lacks room for what is not written yet."""
    there = sum(512 * part.stat().st_blocks for part in config.out.glob(f".{FILE}.partial"))
    size, free = array_bytes(config, shape), shutil.disk_usage(config.out).free
    if size - there > free:
        raise TransientError(
            f"keys of {shape[0]} images x {shape[1]} views need {size / 1e9:.1f} GB, {config.out} has room for "
            f"{free / 1e9:.1f} GB more; choose another --out, or lower --views"
        )
    log.info(
        "keys of %d images x %d views x %d channels in %s: %.3g GB; %s has %.3g GB free",
        *shape, config.dtype, size / 1e9, config.out, free / 1e9,
    )  # fmt: skip


class KeyMaker:
    """The frozen teacher on the cache's views, each image decoded once."""

    def __init__(self, config: KeysConfig, dataset: Dataset, teacher: Encoder, world: World) -> None:
        self.config, self.dataset, self.world = config, dataset, world
        if config.runtime.channels_last:
            teacher.to(memory_format=torch.channels_last)
        images, dtype = images_per_block(config), view_dtype(config.runtime, world.device)
        rows = images * min(config.views, max(1, config.batch // images))
        self.teacher = engine_same(teacher, config.runtime, world, rows=rows, size=config.augment.size, dtype=dtype)
        self.plan = Plan(dataset.sizes, 1, config.augment, config.seed)
        self.augment = augmenter(config.augment, dtype)

    def blocks(self, ranges: list[Range]) -> Iterator[np.ndarray]:
        """Keys of each range of images, as stored: (past - first) x M x C. An undecodable image stops it by name."""
        pending: dict[int, list[View]] = {}

        def request(number: int) -> list[Group]:
            first, past = ranges[number]
            views = pending[number] = [self.plan.key_view(first, past, view) for view in range(self.config.views)]
            return [(np.arange(first, past), [(view.start, view.end) for view in views])]

        stream = CropStream(
            self.dataset,
            request,
            len(ranges),
            [[self.config.augment.size] * self.config.views],
            Failures(self.dataset, remedy=ONE_ROW_EACH),
            batch=images_per_block(self.config),
            device=self.world.device,
            threads=self.world.threads,
            settings=self.config.loader,
            whole_pixels=True,
        )
        began = 0.0
        for number, (crops, (first, _)) in enumerate(zip(stream, ranges, strict=True)):
            keys = as_stored(self._keys(crops, pending.pop(number)), self.config.dtype)
            check_keys(torch.from_numpy(keys).view(TORCH[self.config.dtype]), first, self.config.teacher, self.dataset)
            yield keys
            if number == 0:  # which starts decoders and kernels
                began = time.monotonic()
            elif number == MEASURED and self.world.main:
                rest = len(ranges) - number - 1
                seconds = (time.monotonic() - began) / MEASURED * rest
                log.info("keys: about %s for the other %d of %d blocks", duration(seconds), rest, len(ranges))

    @torch.no_grad()
    def _keys(self, crops: list[torch.Tensor], views: list[View]) -> torch.Tensor:
        """images x M x C fp32 unit rows. Whole views go through the teacher together, up to about a batch of rows."""
        together = max(1, self.config.batch // len(crops[0]))
        keys = []
        for start in range(0, len(views), together):
            part = range(start, min(start + together, len(views)))
            images = torch.cat([self.augment(crops[view], views[view].params) for view in part])
            with autocast(self.config.runtime, self.world.device):
                keys += self.teacher(images).chunk(len(part))
        return torch.stack(keys, dim=1)


def as_stored(keys: torch.Tensor, dtype: str) -> np.ndarray:
    """Keys on the host in the file's dtype (bf16 as its bits)."""
    rounded = keys.to(TORCH[dtype]).cpu()
    return rounded.view(torch.uint16).numpy() if dtype == "bf16" else rounded.numpy()


@dataclass(frozen=True, eq=False)
class CachedKeys:
    """An opened cache. rows_NMC: as stored, memory-mapped; teacher: content hash of the network that made them;
    seed: of the views (`Plan.key_view`)."""

    rows_NMC: np.ndarray
    dtype: str
    teacher: str
    device: torch.device
    seed: int

    @property
    def dim(self) -> int:
        return int(self.rows_NMC.shape[2])

    @property
    def views(self) -> int:
        return int(self.rows_NMC.shape[1])

    def read(self, images_R: np.ndarray, views_R: np.ndarray) -> torch.Tensor:
        """R x C fp32 rows of unit length on the device: one gather on the host, one copy that is not waited for."""
        rows_RC = to_device(self.rows_NMC[images_R, views_R], self.device)
        # Rounding to the file's dtype has moved the lengths a little.
        return F.normalize(rows_RC.view(TORCH[self.dtype]).float(), dim=1)


def load_keys(folder: Path, dataset: Dataset, augment: Augmentation, world: World) -> CachedKeys:
    """Open the cache in `folder`; each rank reads all of it once, as it does in training, to compare its content hash.

    Rank 0 also looks at its numbers.

    Called by every rank. `UserError`, the same on each, one sentence: no finished cache, altered header, other dataset,
    other augmentation, truncated or altered file, keys that are not finite, have no length or are all equal.
    """
    path = folder / FILE
    rows, header = world.together(
        lambda: _load_keys(folder, dataset, augment), lambda found: {f"the content of {path}": found[1]["hash"]}
    )
    world.by_main(lambda: _check_numbers(rows, header, path, dataset))
    return CachedKeys(rows, header["dtype"], header["teacher"], world.device, header["seed"])


def _load_keys(folder: Path, dataset: Dataset, augment: Augmentation) -> tuple[np.ndarray, dict[str, Any]]:
    header = _header(folder)
    if header["dataset"] != dataset.hash:
        raise UserError(f"{folder} holds keys of another dataset than {dataset.path}; run `bingo keys` on that one")
    wanted, found = to_json(augment), {"blur": Augmentation().blur, **header["augment"]}  # caches before it say nothing
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise UserError(
                f"{folder} holds keys with augment.{name}={found.get(name)}, this run has {wanted.get(name)}: "
                f"set --augment.{name.replace('_', '-')} to the cache's, or run `bingo keys` with this run's"
            )
    shape = (header["images"], header["views"], header["dim"])
    rows = open_rows(folder / FILE, shape, STORED[header["dtype"]], AGAIN)
    check_content(folder / FILE, header["hash"], AGAIN)
    return rows, header


def _check_numbers(rows_NMC: np.ndarray, header: dict[str, Any], path: Path, dataset: Dataset) -> None:
    step = max(1, CHECKED_NUMBERS // (rows_NMC.shape[1] * rows_NMC.shape[2]))
    for first in range(0, len(rows_NMC), step):
        part = torch.from_numpy(np.array(rows_NMC[first : first + step])).view(TORCH[header["dtype"]])
        check_keys(part, first, path, dataset)
    if all_equal(rows_NMC):
        raise UserError(
            f"{path} holds the same keys for each of {len(rows_NMC)} images: the teacher that made them is broken, or "
            "all images are one; make others with `bingo keys`"
        )


def check_keys(keys: torch.Tensor, first: int, source: Path, dataset: Dataset) -> None:
    """`UserError` if keys (R x M x C) of the images `first` on are not finite or have no length."""
    views = keys.shape[1]
    check_rows(keys.flatten(0, 1), "keys", source, lambda row: dataset.paths[first + row // views])


def _header(folder: Path) -> dict[str, Any]:
    if not (folder / HEADER).exists():
        raise UserError(f"{folder} holds no finished key cache (no {HEADER} in it); make one with `bingo keys`")
    header = read_object(folder / HEADER, remedy=AGAIN)
    if header.get("format") != FORMAT:
        raise UserError(f"{folder / HEADER} was not written by this release's `bingo keys`; run it again")
    if header.pop("header_hash", None) != hash_json(header):
        raise UserError(f"{folder / HEADER} was altered after it was written; {AGAIN}")
    read_object(folder / HEADER, FIELDS, remedy=AGAIN)
    if header["dtype"] not in STORED:
        raise UserError(f"{folder / HEADER}: dtype {header['dtype']!r} is not one of {', '.join(STORED)}; {AGAIN}")
    return header
