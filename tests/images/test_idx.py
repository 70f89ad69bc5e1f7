"""IDX files: what is written is read, a subset by seed, and every wrong file refused in a sentence."""

import gzip
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bingo.cli import main
from bingo.config import DemoDataConfig
from bingo.errors import UserError
from bingo.identity import identify
from bingo.images.demo_data import write_idx
from bingo.images.idx import DEBIAN, FILES, NAMES, draw, find_idx, hash_idx, read_split
from bingo.recipes import build
from tests.support.idx_files import write_idx_files

pytestmark = pytest.mark.quick
IMAGES, LABELS = FILES["train"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_idx_files(tmp_path / "idx", train=60, val=30)


def test_what_is_written_is_read(source: Path) -> None:
    """Against the bytes as MNIST's description has them, plain and packed alike."""
    assert {path.suffix for path in find_idx(source).values()} == {"", ".gz"}
    for split, count in (("train", 60), ("val", 30)):
        images, labels = read_split(source, split)
        assert (images.shape, labels.shape) == ((count, 28, 28), (count,))
        of_images, of_labels = (find_idx(source)[name] for name in FILES[split])
        raw = [(gzip.decompress if p.suffix else bytes)(p.read_bytes()) for p in (of_images, of_labels)]
        assert images.tobytes() == raw[0][16:]
        assert labels.tobytes() == raw[1][8:]


def test_a_subset_is_a_function_of_the_seed_alone() -> None:
    labels = np.random.default_rng(0).integers(0, 10, 1000).astype(np.uint8)
    first = draw(labels, 205, seed=1)
    assert np.array_equal(first, draw(labels, 205, seed=1))
    assert not np.array_equal(first, draw(labels, 205, seed=2))
    assert len(set(first.tolist())) == 205
    assert (np.diff(first) > 0).all()
    counts = np.bincount(labels[first])
    assert counts.max() - counts.min() <= 1
    assert set(draw(labels, 100, seed=1).tolist()) < set(first.tolist()), "a larger subset holds a smaller one"
    assert np.array_equal(draw(labels, 1000, seed=1), np.arange(1000))


def test_images_lie_under_their_labels(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert write_idx(out, source, size=28, train_images=40, val_images=30) == {"train": 40, "val": 30}
    for split, count in (("train", 40), ("val", 30)):
        images, labels = read_split(source, split)
        files = sorted(out.glob(f"{split}/*/*.jpg"))
        assert len(files) == count
        for path in files:
            assert int(path.parent.name) == labels[int(path.stem)]
            with Image.open(path) as image:
                assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (28, 28))
                difference = np.asarray(image).astype(int) - images[int(path.stem)][..., None]
            assert np.abs(difference).mean() < 2  # of 255: what quality 95 costs
    assert write_idx(out, source, size=28, train_images=40, val_images=30) == {"train": 40, "val": 30}
    for other in ({"seed": 1}, {"train_images": 39}, {"size": 20}):
        settings = {"size": 28, "train_images": 40, "val_images": 30} | other
        with pytest.raises(UserError, match=r"is not the demo images at \d+ pixels that are asked for, says images"):
            write_idx(out, source, **settings)


def test_the_key_knows_the_files_by_their_bytes(source: Path, tmp_path: Path) -> None:
    """And a key of the digits is what it was before there was another source."""
    config = DemoDataConfig(out=tmp_path / "out", from_idx=source)
    key = identify("demo-data", config).key
    (source / "notes.txt").write_text("mine")
    assert identify("demo-data", config).key == key
    packed = next(source.glob("*.gz"))
    packed.write_bytes(packed.read_bytes() + b"\0")
    assert identify("demo-data", config).key != key
    assert identify("demo-data", DemoDataConfig(out=tmp_path)).settings == {"size": 32}


def idx(magic: int, *shape: int, content: bytes | None = None) -> bytes:
    content = bytes(int(np.prod(shape, dtype=object))) if content is None else content
    return struct.pack(f">{1 + len(shape)}I", magic, *shape) + content


WRONG: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "not gzip": (IMAGES, lambda p: p.write_bytes(b"<html>"), r"no IDX file of images: gzip says Not a gzipped file"),
    "cut gzip": (IMAGES, lambda p: p.write_bytes(p.read_bytes()[:-9]), r"no IDX file of images: it is cut off"),
    "damaged gzip": (
        IMAGES,
        lambda p: p.write_bytes(p.read_bytes()[:200] + b"\xff" * 50 + p.read_bytes()[250:]),
        r"no IDX file of images: gzip says",
    ),
    "other magic": (
        LABELS,
        lambda p: p.write_bytes(idx(0x0803, 60, 1, 1)),
        r"of labels: it does not begin with 00000801",
    ),
    "empty": (LABELS, lambda p: p.write_bytes(b""), r"of labels: it does not begin with 00000801"),
    "cut header": (LABELS, lambda p: p.write_bytes(idx(0x0801, 60)[:6]), r"of labels: its header is cut off"),
    "no images": (LABELS, lambda p: p.write_bytes(idx(0x0801, 0)), r"of labels: it is empty, says its header"),
    "cut": (LABELS, lambda p: p.write_bytes(idx(0x0801, 60)[:-1]), r"it is cut off, 67 bytes cannot hold 60"),
    "more": (LABELS, lambda p: p.write_bytes(idx(0x0801, 60) + b"x"), r"its header says 60 bytes and it has more"),
    "other number": (LABELS, lambda p: p.write_bytes(idx(0x0801, 59)), r"60 images and \S+ 59 labels; these files do"),
    "hostile": (
        LABELS,
        lambda p: p.write_bytes(idx(0x0801, 2**32 - 1, content=b"x")),
        r"header says 4294967295 bytes, and at most 1073741824 are read",
    ),
    "bomb": (
        IMAGES,
        lambda p: p.write_bytes(gzip.compress(idx(0x0803, 10**6, 32, 32, content=b"x"))),
        r"it is cut off, \d+ bytes cannot hold 1024000000",
    ),
    "sides": (IMAGES, lambda p: p.write_bytes(gzip.compress(idx(0x0803, 60, 2, 3))), r"says 2 x 3 pixels, and images"),
    "huge sides": (
        IMAGES,
        lambda p: p.write_bytes(gzip.compress(idx(0x0803, 1, 2**31, 2**31, content=b"x"))),
        r"images must be square, of at most 4096 pixels",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files(source: Path, tmp_path: Path, case: str) -> None:
    name, spoil, sentence = WRONG[case]
    path = find_idx(source)[name]
    spoil(path)
    tracemalloc.start()
    with pytest.raises(UserError, match=sentence) as raised:
        write_idx(tmp_path / "out", source)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert str(path) in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_more_images_than_there_are(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--val-images 31 is more than the 30 images that \S+idx has for it"):
        write_idx(tmp_path / "out", source, train_images=60, val_images=31)


def test_without_the_files_the_package_and_all_names_are_said(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    find_idx(source)["train-labels-idx1-ubyte"].unlink()
    for place, first in (
        (tmp_path / "nowhere", "nowhere does not exist"),
        (tmp_path / "file", "file is a file"),
        (source, "idx holds no train-labels-idx1-ubyte;"),
        (tmp_path, f"holds no {NAMES[0]} and no {NAMES[1]} and no"),
    ):
        with pytest.raises(UserError) as of_recipe:
            build("fashion", tmp_path / "out", {"images": place})
        with pytest.raises(UserError) as of_stage:
            identify("demo-data", DemoDataConfig(out=tmp_path / "out", from_idx=place))
        said = str(of_recipe.value)
        assert said == str(of_stage.value)
        assert first in said
        assert all(name in said for name in (*NAMES, "Debian's package dataset-fashion-mnist", str(DEBIAN)))


def test_the_verb(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["demo-data", str(tmp_path / "out"), "--from-idx", str(source)]
    counts = ["--train-images", "20", "--val-images", "10"]
    assert main([*words, *counts]) == 0
    assert "train=20  val=10" in capsys.readouterr().out
    assert main([*words, *counts]) == 0
    assert "already done" in capsys.readouterr().out
    assert main(["demo-data", str(tmp_path / "digits"), *counts]) == 2
    assert "--train-images is used with --from-idx only: leave it out" in capsys.readouterr().err


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_read_whole() -> None:
    assert hash_idx(DEBIAN) == hash_idx(DEBIAN)
    for split, count in (("train", 60000), ("val", 10000)):
        images, labels = read_split(DEBIAN, split)
        assert images.shape == (count, 28, 28)
        assert np.bincount(labels).tolist() == [count // 10] * 10
        assert 60 < images.mean() < 90
