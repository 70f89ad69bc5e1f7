"""Flat files have a limit, and one that is lost or cut is noticed."""

from pathlib import Path

import numpy as np
import pytest

from bingo.images.pack import pack_folder
from tests.support.bad_images import with_flipped_byte
from tests.support.small_pack import SMALL, contents, killed_pack, looked_at, mixed_folder, small_pack


@pytest.mark.parametrize("moment", ["images", "index"])
def test_a_pack_that_lost_a_flat_file_starts_afresh(tmp_path: Path, moment: str) -> None:
    source, out = mixed_folder(tmp_path / "images"), tmp_path / "packed"
    killed_pack(source, out, moment)
    lost = min(path for path in out.iterdir() if path.suffix == ".bin")
    lost.write_bytes(lost.read_bytes()[:-1])
    assert len(looked_at(source, out)) == 18
    assert contents(out) == contents(small_pack(source, tmp_path / "expected").path)


@pytest.mark.parametrize("moment", ["images", "index"])
def test_a_pack_whose_flat_file_was_damaged_starts_afresh(tmp_path: Path, moment: str) -> None:
    source, out = mixed_folder(tmp_path / "images"), tmp_path / "packed"
    killed_pack(source, out, moment)
    damaged = min(path for path in out.iterdir() if path.suffix == ".bin")
    damaged.write_bytes(with_flipped_byte(damaged.read_bytes()))
    assert len(looked_at(source, out)) == 18
    assert contents(out) == contents(small_pack(source, tmp_path / "expected").path)


def test_flat_files_respect_the_limit(tmp_path: Path) -> None:
    source = mixed_folder(tmp_path / "images")
    packed = small_pack(source, tmp_path / "packed")
    files = list(packed.path.glob("*.bin"))
    assert len(files) > 4
    assert all(0 < file.stat().st_size <= SMALL for file in files)
    options = {"convert": True, "allow_bad": True, "workers": 1}
    whole = pack_folder(source, tmp_path / "whole", **options)
    assert len(list(whole.path.glob("*.bin"))) == 2  # what is as it was, what is converted
    assert whole.hash == packed.hash
    for index in range(len(whole)):
        np.testing.assert_array_equal(whole.encoded(index), packed.encoded(index))
    each = pack_folder(source, tmp_path / "each", **options, shard_gib=1e-9)
    assert len(list(each.path.glob("*.bin"))) == len(each)
