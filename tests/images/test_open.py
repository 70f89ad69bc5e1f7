"""What a folder is taken for: an image folder or a packed dataset."""

from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.images.dataset import INDEX
from bingo.images.image_folder import ImageFolder
from bingo.images.open import left_out_now, open_dataset
from bingo.images.pack import pack_folder
from tests.support import bad_images

pytestmark = pytest.mark.quick


def test_class_folders_are_an_image_folder_and_an_index_is_a_packed_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = bad_images.png_folder(tmp_path / "images")
    packed = pack_folder(source, tmp_path / "packed", workers=1)
    (packed.path / "notes").mkdir()
    folder, dataset = open_dataset(source), open_dataset(packed.path)
    assert isinstance(folder, ImageFolder)
    assert not isinstance(dataset, ImageFolder), "a folder beside the index changes nothing"
    assert list(folder.paths) == list(dataset.paths)


def test_what_was_left_out_by_packing_is_not_left_out_again(tmp_path: Path) -> None:
    source = bad_images.png_folder(tmp_path / "images")
    (next(source.iterdir()) / "cut.png").write_bytes(b"no image")
    packed = pack_folder(source, tmp_path / "packed", allow_bad=True, workers=1)
    assert packed.counts["excluded"] == 1
    assert left_out_now(packed) == 0
    assert left_out_now(open_dataset(source)) == 1


def test_hidden_folders_make_no_image_folder(tmp_path: Path) -> None:
    bad_images.write(tmp_path, {".cache/x.png": bad_images.png(), "x.png": bad_images.png()})
    with pytest.raises(UserError, match=f"is not a packed dataset .no {INDEX} in it"):
        open_dataset(tmp_path)
