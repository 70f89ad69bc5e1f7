"""An image folder without packing: the packed dataset's bytes, a cached scan, bad files named or left out."""

import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bingo.config_parts import Augmentation, Loader
from bingo.distributed import World
from bingo.errors import TransientError, UserError
from bingo.images import image_folder, listing
from bingo.images.dataset import JPEG, PNG
from bingo.images.image_folder import ImageFolder
from bingo.images.open import open_dataset, open_images
from bingo.images.pack import pack_folder
from bingo.views.decode_failures import Failures
from bingo.views.loader import CropStream, evaluation_batches, training_batches
from bingo.views.plan import Plan
from tests.support import bad_images
from tests.support.bad_images import encode, jpeg, picture, png, write
from tests.support.ranks import bingo

CPU = torch.device("cpu")
AUGMENT = Augmentation(size=16)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bingo"


def make(folder: Path, count: int = 20) -> Path:
    """Three classes, one without images; two formats, different sizes, a folder inside a folder."""
    (folder / "empty").mkdir(parents=True)
    files = {f"{'ab'[i % 2]}/deep/{i:02d}.jpg": encode(picture(i, 40 + i, 90 - i), quality=90) for i in range(count)}
    return write(folder, {**files, "b/last.PNG": png(3)})


def test_same_as_packed(tmp_path: Path) -> None:
    source = make(tmp_path / "images")
    pack_folder(source, tmp_path / "packed", workers=1)
    folder, packed = open_dataset(source), open_dataset(tmp_path / "packed")
    assert isinstance(folder, ImageFolder)
    assert (folder.paths, folder.classes, len(folder)) == (packed.paths, packed.classes, len(packed))
    for name in ("labels", "sizes", "formats", "digests"):
        np.testing.assert_array_equal(getattr(folder, name), getattr(packed, name))
    assert bytes(folder.encoded(3)) == bytes(packed.encoded(3))
    assert set(folder.formats.tolist()) == {JPEG, PNG}
    bags = np.random.default_rng(0).integers(0, len(packed), (len(packed), 3)).astype(np.int32)
    plan = Plan(packed.sizes, 8, AUGMENT, views=(2, 1), bags=bags)
    train, rows = [], []
    for data in (folder, packed):
        stream = training_batches(data, plan, World(0, 1, CPU, 1), start=0, stop=3)
        train.append(torch.cat([crop for batch in stream for crops in batch.crops for crop in crops]))
        images = np.array_split(np.arange(len(data)), 3)
        rows.append(torch.cat(list(evaluation_batches(data, AUGMENT, images, device=CPU, threads=1))))
    assert torch.equal(*train)
    assert torch.equal(*rows)


def test_hash_follows_names_sizes_labels_and_classes(tmp_path: Path) -> None:
    first = make(tmp_path / "first")
    base = open_dataset(first).hash
    assert open_dataset(make(tmp_path / "second")).hash == base, "where the folder lies plays no part"
    assert pickle.loads(pickle.dumps(open_dataset(first))).hash == base
    os.utime(first / "b/last.PNG", (1, 1))
    assert open_dataset(first).hash == base
    (first / "b/last.PNG").write_bytes(png(3) + b"\0")
    longer = open_dataset(first).hash
    (first / "b/last.PNG").rename(first / "a/last.PNG")
    moved = open_dataset(first).hash
    (first / "other").mkdir()
    assert len({base, longer, moved, open_dataset(first).hash}) == 4


def test_scan_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "images")
    scans, whole = [], image_folder._scan
    monkeypatch.setattr(image_folder, "_scan", lambda listing: scans.append(1) or whole(listing))
    sizes = open_dataset(source).sizes
    assert (open_dataset(source).sizes == sizes).all()
    assert len(scans) == 1
    (source / "a/deep/00.jpg").write_bytes(encode(picture(0, 33, 44)))
    assert open_dataset(source).sizes[0].tolist() == [33, 44]
    (file,) = cache.glob("*.npz")
    file.write_bytes(b"no cache")
    assert open_dataset(source).sizes[0].tolist() == [33, 44]
    assert len(scans) == 3
    monkeypatch.setenv("XDG_CACHE_HOME", str(source / "a/deep/00.jpg"))  # no folder can be made there
    assert open_dataset(source).sizes[0].tolist() == [33, 44]


def test_unusable_files_are_named_or_left_out(tmp_path: Path) -> None:
    source = make(tmp_path / "images")
    write(source, {"a/text.jpg": b"<html>", "b/zero.png": b""})
    (source / "b/gone.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"3 file\(s\) of .* cannot be used: a/text.jpg \(not an image\).*--loader.al"):
        open_images(source, Loader())
    data = open_images(source, Loader(allow_bad=True))
    assert len(data) == 21
    assert data.left_out == {
        "a/text.jpg": "not an image",
        "b/gone.jpg": "a link to nothing",
        "b/zero.png": "zero bytes",
    }
    assert open_dataset(source).left_out == data.left_out, "and the same from the cache"
    with pytest.raises(UserError, match="none of the 1 image files of"):
        open_dataset(write(tmp_path / "none", {"a/x.jpg": b"?"}))
    with pytest.raises(UserError, match=r"no \.jpg, .* file in any class folder"):
        open_dataset(write(tmp_path / "texts", {"a/x.txt": b"?"}))


def test_files_that_go_away_or_change_are_named(tmp_path: Path) -> None:
    data = open_dataset(make(tmp_path / "images"))
    (tmp_path / "images/b/deep/03.jpg").unlink()
    (tmp_path / "images/a/deep/04.jpg").write_bytes(encode(picture(0, 500, 400)))
    plan = Plan(data.sizes, 21, AUGMENT, views=(1,))
    failures = Failures(data, None)
    list(training_batches(data, plan, World(0, 1, CPU, 1), start=0, stop=1, failures=failures))
    assert failures.found == {
        data.paths.index("b/deep/03.jpg"): "cannot be read: No such file or directory",
        data.paths.index("a/deep/04.jpg"): "(500, 400) pixels instead of (44, 86)",
    }


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
@pytest.mark.parametrize(("module", "name"), [(listing, "open"), (os, "stat")])
def test_a_file_that_cannot_be_read_now_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, number: int
) -> None:
    """It would be another dataset, and the scan's cache would keep it."""
    source = make(tmp_path / "images")
    does = getattr(module, name, open)

    def fails(path: Any, *more: Any, **others: Any) -> Any:
        if str(path).endswith("03.jpg"):
            raise OSError(number, os.strerror(number), path)
        return does(path, *more, **others)

    monkeypatch.setattr(module, name, fails, raising=False)
    with pytest.raises(TransientError, match=rf"03\.jpg.* \(?{os.strerror(number)}"):
        open_images(source, Loader(allow_bad=True))
    monkeypatch.setattr(module, name, does, raising=False)
    assert len(open_images(source, Loader(allow_bad=True))) == 21


@pytest.mark.parametrize("fault", ["for a moment", "for longer", "the folder", "no memory"])
def test_an_image_that_cannot_be_read_now_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Another one in its place would be other weights for good."""
    data = open_dataset(make(tmp_path / "images"))
    plan = Plan(data.sizes, 21, AUGMENT, views=(1,))

    def crops(failures: Failures) -> torch.Tensor:
        (batch,) = training_batches(data, plan, World(0, 1, CPU, 1), start=0, stop=1, failures=failures)
        return batch.crops[0][0]

    whole, failures = crops(Failures(data, None)), Failures(data, None)
    file, away = Path(data.file(3)), tmp_path / "away"
    decodes = CropStream._decodes

    def comes_back(stream: CropStream, image: int) -> bool:
        done = decodes(stream, image)
        if away.exists():
            away.rename(file)
        return done

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "away")

    if fault == "the folder":
        data.path.rename(away)
        data.path.mkdir()
    elif fault == "no memory":
        monkeypatch.setattr(CropStream, "_start", lambda *_: (Starved(), []))
    else:
        file.rename(away)
    if fault == "for a moment":
        monkeypatch.setattr(CropStream, "_decodes", comes_back)
    monkeypatch.setattr(ImageFolder, "encoded", fails)
    with pytest.raises(MemoryError if fault == "no memory" else TransientError):
        crops(failures)
    assert not failures.found
    if fault == "for a moment":
        assert torch.equal(crops(failures), whole)


class Starved:
    """A pipeline without memory."""

    def run(self) -> None:
        raise RuntimeError("Critical error in pipeline:\nencountered:\n\nstd::bad_alloc")


@pytest.mark.slow
def test_no_bad_file_stops_a_run_that_allows_them(tmp_path: Path) -> None:
    """Every kind of damage and oddity beside sound images; the count of what was left out and replaced is kept."""
    files = {name: data for name, (data, _) in {**bad_images.bad_files(), **bad_images.convertible_files()}.items()}
    files |= bad_images.sound_files() | {f"{i:02d}.jpg": jpeg(i) for i in range(20)}
    source = write(tmp_path / "images", {f"{'ab'[i % 2]}/{name}": data for i, (name, data) in enumerate(files.items())})
    small = ["--augment.size", 16, "--contrast.dim", 8, "--contrast.hidden", 16, "--contrast.queue", 8]
    pace = ["--optim.batch", 16, "--optim.epochs", 3, "--runtime.threads", 1]
    words = ["pretrain", "--data", source, "--model", "tiny", "--out", tmp_path / "run", *small, *pace]
    done = bingo(*words)
    assert done.returncode == 2
    assert "file(s) of" in done.stderr
    done = bingo(*words, "--loader.allow-bad")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "run/stage.json").read_text())["figures"]
    left_out = set(open_images(source, Loader(allow_bad=True)).left_out)
    assert figures["left_out"] == len(left_out) == 24, "no image, no header, too many pixels, other formats"
    assert not {path for path in left_out if path.partition("/")[2] in bad_images.sound_files()}
    assert 3 <= figures["bad_images"] <= 20
    assert "cut.jpg of" in done.stderr
