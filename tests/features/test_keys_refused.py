"""Cached keys that are damaged or belong to something else: one sentence each."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bingo.config import DistillConfig
from bingo.config_parts import Contrast
from bingo.errors import UserError
from bingo.features import stored
from bingo.features.keys import load_keys
from bingo.files import hash_file, hash_json
from bingo.images.open import open_dataset
from bingo.train.distill import run
from tests.support.cached_keys import ALONE, SMALL
from tests.support.damage import holding


def altered_header(folder: Path, **changes: object) -> None:
    """A header that a foreign program could have written: changed, and hashed anew."""
    header = json.loads((folder / "keys.json").read_text())
    header.pop("header_hash")
    header |= changes
    (folder / "keys.json").write_text(json.dumps({**header, "header_hash": hash_json(header)}))


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "keys.npy").read_bytes())
    data[-7] ^= 1
    (folder / "keys.npy").write_bytes(data)


def truncate(folder: Path) -> None:
    (folder / "keys.npy").write_bytes((folder / "keys.npy").read_bytes()[:-1])


def edit_the_header(folder: Path) -> None:
    text = (folder / "keys.json").read_text()
    (folder / "keys.json").write_text(text.replace('"views": 3', '"views": 2'))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (flip_a_bit, r"keys.npy is not the file that its header describes .*; run `bingo keys` again"),
        (truncate, r"keys.npy is truncated or cannot be read .*; run `bingo keys` again"),
        (edit_the_header, r"keys.json was altered after it was written; run `bingo keys` again"),
        (lambda f: altered_header(f, views=2), r"keys.npy holds uint16 of shape .*, its header says"),
        (
            lambda f: altered_header(f, dataset="0" * 32),
            r"holds keys of another dataset than .*train; run `bingo keys`",
        ),
        (lambda f: altered_header(f, teacher="0" * 32), r"bags.npz was made from another teacher"),
        (lambda f: altered_header(f, format="?"), r"was not written by this release's `bingo keys`"),
        (lambda f: (f / "keys.json").unlink(), r"holds no finished key cache .*; make one with `bingo keys`"),
        (lambda f: (f / "keys.npy").unlink(), r"keys.npy does not exist; run `bingo keys` again"),
    ],
    ids=["bit", "truncated", "header", "shape", "dataset", "bags", "format", "unfinished", "missing"],
)
def test_a_cache_that_does_not_fit_is_one_sentence(
    config: DistillConfig, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "keys"
    assert config.keys is not None
    shutil.copytree(config.keys, folder)
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        run(replace(config, keys=folder), "key", ALONE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"augment": replace(SMALL, hue=0.05)},
            r"holds keys with augment.hue=0.1, this run has 0.05: set --augment.hue",
        ),
        ({"augment": replace(SMALL, blur="pil")}, r"holds keys with augment.blur=gaussian, this run has pil"),
        ({"contrast": Contrast(dim=8, hidden=32, queue=100)}, r"dim=8 but .*keys has 16-d keys; set --contrast.dim 16"),
    ],
)
def test_a_run_that_does_not_fit_the_cache(config: DistillConfig, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(replace(config, **change), "key", ALONE)


def test_a_cache_of_before_there_was_a_choice_of_blur(config: DistillConfig, tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    shutil.copytree(config.keys, folder)
    header = json.loads((folder / "keys.json").read_text())
    del header["augment"]["blur"]
    altered_header(folder, augment=header["augment"])
    dataset = open_dataset(config.data)
    assert load_keys(folder, dataset, SMALL, ALONE).views == load_keys(config.keys, dataset, SMALL, ALONE).views
    with pytest.raises(UserError, match=r"holds keys with augment.blur=gaussian, this run has pil"):
        load_keys(folder, dataset, replace(SMALL, blur="pil"), ALONE)


def test_all_of_the_file_is_read_once_per_start(config: DistillConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    monkeypatch.setattr(stored, "hash_file", lambda path: hashed.append(path) or hash_file(path))
    assert config.keys is not None
    load_keys(config.keys, open_dataset(config.data), SMALL, ALONE)
    assert hashed == [config.keys / "keys.npy"]


def test_a_bit_that_flips_with_size_and_time_kept_is_seen(config: DistillConfig, tmp_path: Path) -> None:
    """The folder's own record says nothing about bytes that rot on the disk."""
    folder = tmp_path / "keys"
    assert config.keys is not None
    shutil.copytree(config.keys, folder)
    data = (folder / "keys.npy").read_bytes()
    with (
        holding(folder / "keys.npy", data[:-7] + bytes([data[-7] ^ 1]) + data[-6:]),
        pytest.raises(UserError, match=r"keys.npy is not the file that its header describes"),
    ):
        load_keys(folder, open_dataset(config.data), SMALL, ALONE)


def rewrite(folder: Path, change: Callable[[np.ndarray], None]) -> None:
    """Other keys, described as a release without checks would have."""
    keys = np.load(folder / "keys.npy")
    change(keys)
    np.save(folder / "keys.npy", keys)
    altered_header(folder, hash=hash_file(folder / "keys.npy"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda k: k.fill(0x7FC0), r"the keys of all \d+ images looked at are not finite .* is broken, not the images"),
        (
            lambda k: k.fill(0),
            r"the keys of all \d+ images looked at are all zeros: the network in .*keys.npy is broken",
        ),
        (
            lambda k: k.fill(0x3E80),
            r"holds the same keys for each of 1078 images: the teacher that made them is broken",
        ),
        (
            lambda k: k[7, 1].fill(0x7FC0),
            r"the keys of .*\.jpg are not finite .*, those of others are not: look at that",
        ),
    ],
    ids=["NaN", "zeros", "equal", "one"],
)
def test_keys_that_teach_nothing(
    config: DistillConfig, tmp_path: Path, change: Callable[[np.ndarray], None], message: str
) -> None:
    folder = tmp_path / "keys"
    assert config.keys is not None
    shutil.copytree(config.keys, folder)
    rewrite(folder, change)
    with pytest.raises(UserError, match=message):
        load_keys(folder, open_dataset(config.data), SMALL, ALONE)


@pytest.mark.parametrize(
    "changes", [{"images": "many"}, {"dtype": ["bf16"]}, {"dtype": "int8"}, {"augment": 3}, {"dim": None}, {"hash": 5}]
)
def test_header_fields_of_other_types_are_a_sentence(
    config: DistillConfig, tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert config.keys is not None
    folder = tmp_path / "keys"
    shutil.copytree(config.keys, folder)
    altered_header(folder, **changes)
    with pytest.raises(UserError, match=rf"keys.json.*{next(iter(changes))}.*; run `bingo keys` again"):
        load_keys(folder, open_dataset(config.data), SMALL, ALONE)
