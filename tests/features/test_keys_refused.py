"""Cached keys that are damaged or belong to something else: one sentence each."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bingo.config import DistillConfig
from bingo.config_parts import Contrast
from bingo.errors import UserError
from bingo.features import keys as cached_keys
from bingo.features.keys import load_keys
from bingo.files import hash_file, hash_json
from bingo.images.open import open_dataset
from bingo.train.distill import run
from tests.support.cached_keys import ALONE, SMALL


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
        (flip_a_bit, r"keys.npy is not the file that .*keys.json describes; run `bingo keys` again"),
        (truncate, r"keys.npy is truncated or cannot be read .*; run `bingo keys` again"),
        (edit_the_header, r"keys.json was altered after it was written; run `bingo keys` again"),
        (lambda f: altered_header(f, views=2), r"keys.npy is not the file that .*keys.json describes"),
        (
            lambda f: altered_header(f, dataset="0" * 32),
            r"holds keys of another dataset than .*train; run `bingo keys`",
        ),
        (lambda f: altered_header(f, teacher="0" * 32), r"bags.npz was made from another teacher"),
        (lambda f: altered_header(f, format="?"), r"was not written by this release's `bingo keys`"),
        (lambda f: (f / "keys.json").unlink(), r"holds no finished key cache .*; make one with `bingo keys`"),
        (lambda f: (f / "keys.npy").unlink(), r"keys.npy is truncated or cannot be read"),
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
        ({"contrast": Contrast(dim=8, hidden=32, queue=100)}, r"dim=8 but .*keys has 16-d keys; set --contrast.dim 16"),
    ],
)
def test_a_run_that_does_not_fit_the_cache(config: DistillConfig, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(replace(config, **change), "key", ALONE)


def test_the_content_is_hashed_only_where_no_record_vouches_for_it(
    config: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gigabytes are not read at every start; a copy without its times is, once per start and by rank 0 alone."""
    hashed: list[Path] = []
    monkeypatch.setattr(cached_keys, "hash_file", lambda path: hashed.append(path) or hash_file(path))
    dataset = open_dataset(config.data)
    assert config.keys is not None
    load_keys(config.keys, dataset, SMALL, ALONE)
    assert hashed == []
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("keys.npy", "keys.json"):
        shutil.copyfile(config.keys / name, copy / name)
    load_keys(copy, dataset, SMALL, replace(ALONE, rank=1, size=2))
    assert hashed == []
    load_keys(copy, dataset, SMALL, ALONE)
    assert hashed == [copy / "keys.npy"]
