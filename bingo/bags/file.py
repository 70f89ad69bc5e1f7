"""Bags: for every image (the anchor) the K images that stand for it, as an int32 N×K array of indices.

Here: bags drawn by label or chance, and the bag file. Bags from features are in `neighbours.py`. Letters: N images,
K bag size."""

import dataclasses
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from bingo.errors import UserError, did_you_mean, file_error
from bingo.files import atomic_write, new_hash

KINDS = ("knn", "kmeans", "label", "random")
TEACHER_KINDS = ("knn", "kmeans")  # these depend on the teacher's features, the others only on the dataset
FORMAT = "bingo-bags"
VERSION = 1
STREAM = 0x62616773  # second Philox key word: keeps these draws apart from other users of the same seed


def label_bags(labels: np.ndarray, k: int, seed: int) -> np.ndarray:
    """k images drawn without replacement from the anchor's class, an upper bound for bags. Returns int32 N×k.

    labels: N integers. A class with fewer than k other images is repeated cyclically.
    `UserError`: labels that are not N integers, k outside 1..N-1, a class of one image.
    """
    labels = _integers(labels)
    check_k(k, len(labels))
    bags = draw_from_groups(labels, k, seed)
    alone = np.flatnonzero(bags[:, 0] < 0)
    if len(alone):
        raise UserError(
            f"class {labels[alone[0]]} has one image only (index {alone[0]}), which leaves its label bag empty: "
            "add images to the class, leave it out, or use another kind of bag"
        )
    return bags


def random_bags(n: int, k: int, seed: int) -> np.ndarray:
    """k images drawn without replacement from all others, the control for bags. Returns int32 n×k.

    `UserError`: k outside 1..n-1.
    """
    check_k(k, n)
    return draw_from_groups(np.zeros(n, np.int64), k, seed)


def check_k(k: int, n: int) -> None:
    """`UserError` unless a bag of k can be filled from n images without its anchor."""
    if n < 2:
        raise UserError(f"bags need at least 2 images, the dataset has {n}")
    if not 1 <= k < n:
        raise UserError(f"bag size k = {k} is not between 1 and {n - 1} (the {n} images less the anchor)")


def draw_from_groups(groups: np.ndarray, k: int, seed: int) -> np.ndarray:
    """int32 N×k members drawn from each image's group without itself; a row of -1 where the group has no other.

    Row i is a pure function of (seed, i, k) and its group: row i takes uniforms i·k .. i·k+k-1 of one Philox stream.
    """
    n = len(groups)
    order = np.argsort(groups, kind="stable")
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    start = (np.cumsum(size) - size)[group]
    place = np.empty(n, np.int64)  # of each image among its group's members in index order
    place[order] = np.arange(n) - start[order]
    others = size[group] - 1
    picks = _picks(_uniforms(seed, n, k), others)
    members = order[np.minimum(start[:, None] + picks + (picks >= place[:, None]), n - 1)]
    members[others == 0] = -1
    return members.astype(np.int32)


def _uniforms(seed: int, n: int, k: int) -> np.ndarray:
    if not 0 <= seed < 2**64:
        raise UserError(f"seed = {seed} is not between 0 and 2^64 - 1")
    philox = np.random.Philox(key=np.array([seed, STREAM], np.uint64))
    return np.random.Generator(philox).random((n, k))


def _picks(uniforms: np.ndarray, others: np.ndarray) -> np.ndarray:
    """int64 N×k distinct places in range(others[i]), in random order; cyclic repeats past others[i] places."""
    picks = np.empty(uniforms.shape, np.int64)
    for j in range(uniforms.shape[1]):
        pick = (uniforms[:, j] * np.maximum(others - j, 0)).astype(np.int64)
        for earlier in np.sort(picks[:, :j], axis=1).T:  # the pick-th place not taken yet
            pick += pick >= earlier
        cyclic = picks[np.arange(len(picks)), j % np.maximum(others, 1)] if j else pick
        picks[:, j] = np.where(j < others, pick, cyclic)
    return picks


def _integers(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"labels must be N integers, not {labels.dtype} of shape {labels.shape}")
    return labels


@dataclasses.dataclass(frozen=True, eq=False)
class Bags:
    """A loaded bag file. `members`: int32 N×k, read-only; `hash`: content hash of `members`; `header`: all recorded."""

    members: np.ndarray
    kind: str
    k: int
    hash: str
    header: dict[str, Any]


def save_bags(
    path: Path,
    bags: np.ndarray,
    *,
    kind: str,
    dataset_hash: str,
    features_hash: str | None,
    teacher_hash: str | None,
    engine: str,
    seed: int | None,
) -> str:
    """Write one bag file (.npz: the array and a JSON header) atomically; the same input gives the same bytes.

    bags: N×k integers in 0..N-1. Label and random bags do not depend on a teacher: theirs is recorded as None.
    Returns the content hash of the array. `UserError`: unknown kind, bags that are not such an array, knn or kmeans
    bags without a teacher hash, a path that cannot be written.
    """
    if kind not in KINDS:
        raise UserError(f"unknown kind of bags {kind!r}, {did_you_mean(kind, KINDS)}")
    if kind in TEACHER_KINDS and teacher_hash is None:
        raise UserError(f"{kind} bags depend on the teacher: save them with its teacher_hash")
    bags = _checked_members(bags)
    header = {
        "format": FORMAT, "version": VERSION, "kind": kind, "n": bags.shape[0], "k": bags.shape[1],
        "dataset_hash": dataset_hash, "features_hash": features_hash,
        "teacher_hash": teacher_hash if kind in TEACHER_KINDS else None,
        "engine": engine, "seed": seed, "hash": _bags_hash(bags),
    }  # fmt: skip
    text = np.frombuffer(json.dumps(header, sort_keys=True).encode(), np.uint8)
    with atomic_write(Path(path)) as file:
        np.savez(file, bags=bags, header=text)
    return header["hash"]


def load_bags(path: Path, *, dataset_hash: str, teacher_hash: str | None) -> Bags:
    """Read a bag file and refuse it unless it belongs to this dataset and, for knn and kmeans bags, this teacher.

    teacher_hash=None skips the teacher check. `UserError`, one sentence each: missing, truncated, altered or foreign
    file, other format version, other dataset, other teacher.
    """
    path = Path(path)
    bags, header = _read(path)
    _check_same(path, "dataset", header["dataset_hash"], dataset_hash)
    if header["kind"] in TEACHER_KINDS and teacher_hash is not None:
        _check_same(path, "teacher", header["teacher_hash"], teacher_hash)
    return Bags(bags, header["kind"], header["k"], header["hash"], header)


def _check_same(path: Path, what: str, theirs: str, ours: str) -> None:
    if theirs != ours:
        raise UserError(
            f"{path} was made from another {what} ({theirs[:12]}, not {ours[:12]}): type `bingo bags` to make new ones"
        )


def _read(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: type `bingo bags` to make it") from None
    except OSError as error:
        raise file_error(error, f"cannot read the bag file {path}: {error.strerror or error}") from error
    try:
        # Whole members first: zipfile checks their CRC before anything in them is believed.
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            raw = {name: io.BytesIO(archive.read(f"{name}.npy")) for name in ("bags", "header")}
        bags, text = (np.lib.format.read_array(raw[name], allow_pickle=False) for name in ("bags", "header"))
        header = json.loads(text.tobytes())
        if header["format"] != FORMAT:
            raise ValueError("its header is not that of a bag file")
        if header["version"] == VERSION:
            _check_header(bags, header)
    except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, MemoryError, OverflowError,
            AttributeError, struct.error, zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{path} is not a whole bag file ({reason}): delete it and type `bingo bags` to make it again"
        ) from error
    if header["version"] != VERSION:
        raise UserError(f"{path} has bag format {header['version']}, this program reads {VERSION}: make the bags again")
    bags.setflags(write=False)
    return bags, header


def _check_header(bags: np.ndarray, header: dict[str, Any]) -> None:
    if bags.shape != (header["n"], header["k"]):
        raise ValueError(f"{bags.shape} members where the header says {header['n']} images × {header['k']}")
    if bags.dtype != np.int32 or header["hash"] != _bags_hash(bags):
        raise ValueError("its members do not match the recorded content hash")
    _checked_members(bags)
    if header["kind"] not in KINDS or not isinstance(header["dataset_hash"], str):
        raise ValueError("its header is not that of a bag file")
    if header["kind"] in TEACHER_KINDS and not isinstance(header["teacher_hash"], str):
        raise ValueError("its header names no teacher")


def _checked_members(bags: np.ndarray) -> np.ndarray:
    bags = np.asarray(bags)
    if bags.ndim != 2 or not np.issubdtype(bags.dtype, np.integer) or bags.size == 0:
        raise UserError(f"bags must be an integer N×k array, not {bags.dtype} of shape {bags.shape}")
    if bags.min() < 0 or bags.max() >= len(bags):
        raise UserError(f"bag members must be image indices 0..{len(bags) - 1}, found {bags.min()}..{bags.max()}")
    return np.ascontiguousarray(bags, np.int32)


def _bags_hash(bags: np.ndarray) -> str:
    digest = new_hash()
    digest.update(json.dumps(bags.shape).encode())
    digest.update(bags.astype("<i4", order="C", copy=False).tobytes())
    return digest.hexdigest()


def bag_purity(bags: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of (anchor, member) pairs with the same label, in [0, 1]. bags: N×k; labels: N integers."""
    labels = _integers(labels)
    if len(labels) != len(bags):
        raise UserError(f"{len(labels)} labels for {len(bags)} bags: labels and bags must be of the same images")
    return float((labels[bags] == labels[:, None]).mean())


def in_degree(bags: np.ndarray) -> np.ndarray:
    """How many bag places each image fills, int64 N (repeats count): hubs have a large one, orphans 0."""
    return np.bincount(np.ravel(bags), minlength=len(bags)).astype(np.int64)
