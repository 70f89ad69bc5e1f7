"""A packed dataset that is opened: what is missing or damaged is said, and an image that changed is named."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from bingo.errors import UserError
from bingo.images.dataset import INDEX
from bingo.images.open import open_dataset
from bingo.images.pack import pack_folder
from tests.support import bad_images


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    pack_folder(bad_images.png_folder(tmp_path / "images"), tmp_path / "packed", workers=1)
    return tmp_path / "packed"


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        open_dataset(path)
    return str(error.value)


def test_open_says_what_is_missing_or_wrong(packed: Path, tmp_path: Path) -> None:
    assert "does not exist; make one with: bingo pack DIR" in refused(tmp_path / "missing")
    assert "is a file, not a packed dataset" in refused(packed / INDEX)
    (tmp_path / "void").mkdir()
    assert "is not a packed dataset (no index.npz in it)" in refused(tmp_path / "void")

    flat = next(packed.glob("*.bin"))
    whole = flat.read_bytes()
    flat.write_bytes(whole[:-1])
    assert f"has {len(whole) - 1} bytes instead of {len(whole)}" in refused(packed)
    flat.unlink()
    assert f"{flat} is missing" in refused(packed)


def test_open_refuses_a_damaged_or_foreign_index(packed: Path) -> None:
    index = packed / INDEX
    whole = index.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        index.write_bytes(whole[:length])
        assert "is truncated or not an index written by bingo pack" in refused(packed)
    np.savez(index, images=np.zeros(3))
    assert "is truncated or not an index" in refused(packed)

    index.write_bytes(whole)
    with np.load(index) as file:
        columns = dict(file)
    np.savez(index, **(columns | {"label": columns["label"][::-1]}))
    assert "does not match its own content hash" in refused(packed)
    header = json.loads(columns["header"].tobytes())
    for change, message in (({"version": 99}, "has format version 99"), ({"kind": "x"}, "not written by bingo pack")):
        text = np.frombuffer(json.dumps(header | change).encode(), np.uint8)
        np.savez(index, **(columns | {"header": text}))
        assert message in refused(packed)


def test_verify_names_the_image_that_changed(packed: Path) -> None:
    flat = next(packed.glob("*.bin"))
    data = bytearray(flat.read_bytes())
    before = open_dataset(packed)
    data[len(before.encoded(0)) + 100] ^= 1
    flat.write_bytes(data)
    assert open_dataset(packed).verify() == [before.paths[1]]


def test_a_dataset_is_pickled_by_its_place(packed: Path) -> None:
    text = pickle.dumps(open_dataset(packed))
    assert len(text) < 1000
    assert pickle.loads(text).verify() == []
