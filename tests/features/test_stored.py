"""Arrays on disk that are not what their header says, and rows that teach nothing."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bingo.errors import UserError
from bingo.features.extract import load_features
from bingo.features.stored import all_equal, check_rows
from bingo.files import hash_file, write_json, write_sealed
from bingo.images.pack import pack_folder
from tests.support.bad_images import encode, picture
from tests.support.bad_images import write as write_files
from tests.support.cached_keys import ALONE
from tests.support.ranks import finish, start_ranks

ROWS = np.arange(60, dtype=np.float16).reshape(12, 5)


def write(folder: Path, rows: np.ndarray = ROWS, **changes: object) -> None:
    np.save(folder / "features.npy", rows)
    header = {"dataset": "d", "teacher": "t", "count": 12, "dim": 5, "hash": hash_file(folder / "features.npy")}
    write_sealed(folder / "features.json", {**header, **changes})


def test_features_with_and_without_a_seal(tmp_path: Path) -> None:
    write(tmp_path)
    rows, header = load_features(tmp_path, ALONE)
    assert isinstance(rows, np.memmap)
    assert np.array_equal(rows, ROWS)
    assert "seal" not in header
    write_json(tmp_path / "features.json", header)  # as earlier releases wrote it
    assert load_features(tmp_path, ALONE)[1] == header


OTHERS: dict[str, tuple[np.ndarray, str]] = {
    "dtype": (ROWS.astype(np.float32), "holds float32 of shape"),
    "big-endian": (ROWS.astype(">f2"), "holds >f2 of shape"),
    "order": (np.asfortranarray(ROWS), r"holds float16 of shape \(12, 5\) in Fortran order"),
    "count": (ROWS[:11], r"of shape \(11, 5\), its header says float16 of shape \(12, 5\)"),
    "dimensions": (ROWS.ravel(), r"of shape \(60,\)"),
    "objects": (np.array([{}] * 12, dtype=object), "is truncated or cannot be read"),
    "equal": (
        np.ones_like(ROWS),
        "holds the same features for each of 12 images: the network that made them is broken",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_arrays_that_the_header_does_not_describe(kind: str, tmp_path: Path) -> None:
    rows, message = OTHERS[kind]
    write(tmp_path, rows)
    with pytest.raises(UserError, match=message) as caught:
        load_features(tmp_path, ALONE)
    assert "\n" not in str(caught.value)


SPOILS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda p: (p / "features.npy").write_bytes(b""), "features.npy is truncated or cannot be read"),
    "longer": (lambda p: (p / "features.npy").open("ab").write(b"\0"), "features.npy is not the file that its header"),
    "missing": (lambda p: (p / "features.npy").unlink(), "features.npy does not exist; run `bingo features` again"),
    "folder": (lambda p: ((p / "features.npy").unlink(), (p / "features.npy").mkdir()), "features.npy is truncated or"),
    "no header": (
        lambda p: (p / "features.json").unlink(),
        "holds no finished features .*; make them with `bingo feat",
    ),
    "array": (lambda p: (p / "features.json").write_text("[]"), "features.json holds a JSON array, not an object"),
    "no count": (lambda p: (p / "features.json").write_text("{}"), "features.json has no 'dataset'"),
    "text": (lambda p: write(p, count="12"), "features.json: 'count' is a JSON string, which does not belong there"),
    "true": (lambda p: write(p, count=True), "features.json: 'count' is a JSON boolean"),
    "negative": (lambda p: write(p, count=-12), r"its header says float16 of shape \(-12, 5\)"),
    "edited": (
        lambda p: (p / "features.json").write_text((p / "features.json").read_text().replace('"t"', '"u"')),
        "features.json is damaged or was edited",
    ),
}


@pytest.mark.parametrize("kind", SPOILS)
def test_folders_that_hold_no_features(kind: str, tmp_path: Path) -> None:
    spoil, message = SPOILS[kind]
    write(tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        load_features(tmp_path, ALONE)
    assert "\n" not in str(caught.value)


def rows(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None].expand(-1, 3).clone()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_who_is_to_blame_for_bad_rows(dtype: torch.dtype) -> None:
    def look(*values: float, zeros: bool = False) -> None:
        check_rows(rows(*values).to(dtype), "keys", "run/model.pt", lambda row: f"{row}.jpg", zeros=zeros)

    look(1, -2, 3)
    look(0, 1, zeros=True)
    nan, inf = float("nan"), float("inf")
    for values, message in (
        ((1, nan, 2), r"the keys of 1.jpg are not finite .* look at that image"),
        ((1, -inf, nan), r"the keys of 1.jpg \(and of 1 more of 3\) are not finite .* look at that image"),
        ((1, 0, 2), "the keys of 1.jpg are all zeros, those of others are not: look at that image"),
        (
            (nan, inf),
            r"all 2 images looked at are not finite .*: the network in run/model.pt is broken, not the images",
        ),
        ((0, 0, 0), "all 3 images looked at are all zeros: the network in run/model.pt is broken, not the images"),
    ):
        with pytest.raises(UserError, match=message):
            look(*values)


def test_equal_rows_end_at_the_first_that_differs() -> None:
    same = np.ones((9000, 2, 3))
    assert all_equal(same)
    same[8999, 1, 2] = 2
    assert not all_equal(same)
    assert not all_equal(same[:1]), "one row says nothing"


def test_every_rank_says_what_one_of_them_found(tmp_path: Path) -> None:
    """A flipped bit is rank 0's to find; the other one says the same and not that a peer is gone."""
    folder = tmp_path / "features"
    folder.mkdir()
    write(folder)
    data = (folder / "features.npy").read_bytes()
    (folder / "features.npy").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    for code, text in finish(start_ranks([folder], 2, ("-c", READ))):
        assert (code, text.strip()) == (0, f"{folder / 'features.npy'} {DAMAGED}")


@pytest.mark.slow
def test_a_rank_that_sees_others_of_the_same_header(tmp_path: Path) -> None:
    """In one row of many, and in the sizes of images, which their content hash does not cover."""
    rows = np.arange(1500, dtype=np.float16).reshape(300, 5)
    images = {f"a/{number}.jpg": encode(picture(number, 40, 50), quality=90) for number in range(2)}
    pack_folder(write_files(tmp_path / "images", images), tmp_path / "0" / "packed", workers=1)
    (tmp_path / "0" / "features").mkdir()
    write(tmp_path / "0" / "features", rows, count=300)
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    rows[1] += 1
    with open(tmp_path / "1" / "features" / "features.npy", "wb") as file:
        np.save(file, rows)
    index = tmp_path / "1" / "packed" / "index.npz"
    with np.load(index) as file:
        columns = dict(file)
    np.savez(index, **columns | {"height": columns["height"] + 1})
    results = finish(start_ranks([tmp_path], 2, ("-c", OTHER)))
    assert [code for code, _ in results] == [0, 0], results
    for _, text in results:
        features, sizes = text.splitlines()[-2:]
        assert features.startswith(f"TransientError: rank 1 on c1: features/features.npy {DAMAGED}"), text
        assert sizes.startswith("TransientError: the ranks do not see the same: the sizes of the images of packed"), (
            text
        )


OTHER = """
import os, sys
from pathlib import Path
from bingo.config_parts import Runtime
from bingo.distributed import world
from bingo.errors import UserError
from bingo.features.alike import open_same
from bingo.features.extract import load_features
os.chdir(Path(sys.argv[1], os.environ["RANK"]))
os.environ["SLURMD_NODENAME"] = f"c{os.environ['RANK']}"
with world(Runtime(device="cpu", threads=1)) as peers:
    for read in (lambda: load_features(Path("features"), peers), lambda: open_same(Path("packed"), None, peers)):
        try:
            print(read())
        except UserError as error:
            print(f"{type(error).__name__}: {error}")
"""
DAMAGED = "is not the file that its header describes (content hash): damaged or replaced; run `bingo features` again"
READ = """
import sys
from pathlib import Path
from bingo.config_parts import Runtime
from bingo.distributed import world
from bingo.errors import UserError
from bingo.features.extract import load_features
with world(Runtime(device="cpu", threads=1)) as peers:
    try:
        load_features(Path(sys.argv[1]), peers)
    except UserError as error:
        print(error)
"""
