"""Folders are listed as torchvision does; tar files give every image its place and its class."""

import json
import os
import tarfile
import warnings
from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.images.check import check_folder
from bingo.images.listing import Listing, Unreadable
from bingo.images.pack import pack_folder
from bingo.images.sources import fingerprint, list_source
from tests.support import bad_images
from tests.support.tars import write_tar

pytestmark = pytest.mark.quick


def test_the_order_is_that_of_torchvision(tmp_path: Path) -> None:
    names = ["b/2.png", "b/10.png", "a b/1.png", "a/z/1.png", "a/y.png", "a/z-/0.png", "a/Z.png", "a-/q.png"]
    bad_images.write(tmp_path, dict.fromkeys(names, bad_images.png()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchvision.datasets import ImageFolder
    expected = ImageFolder(str(tmp_path))
    listing = list_source(tmp_path)
    assert listing.classes == expected.classes
    assert [str(tmp_path / path) for path in listing.paths] == [path for path, _ in expected.samples]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    bad_images.png_folder(tmp_path / "images", count=2)
    (tmp_path / "images/a/loop").symlink_to(tmp_path / "images/a")
    (tmp_path / "images/c").symlink_to(tmp_path / "images/b")
    assert list(list_source(tmp_path / "images").paths) == ["a/000.png", "b/001.png", "c/001.png"]


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    bad_images.write(tmp_path / "flat", {"x.jpg": b"x"})
    bad_images.write(tmp_path / "texts", {"a/x.txt": b"x"})
    bad_images.write(tmp_path / "packed", {"index.npz": b"", "images-0123456789ab-000.bin": b""})
    expected = {
        "missing": "does not exist",
        "flat/x.jpg": "is a file, not an image folder",
        "empty": "is empty; put images in one sub-folder per class",
        "flat": "has no class sub-folders; put images in one sub-folder per class",
        "packed": "is a packed dataset; to look for damage in it: bingo pack --verify",
        "texts": "no .jpg, .jpeg, .png, .webp, .bmp, .tif, .tiff, .ppm, .pgm, .gif file in any class folder",
    }
    for name, message in expected.items():
        with pytest.raises(UserError, match=message):
            list_source(tmp_path / name)


def found(listing: Listing) -> list[tuple[str, str, bytes]]:
    """Path, class and bytes of every image."""
    return [
        (path, listing.classes[listing.labels[index]], listing.read(index)) for index, path in enumerate(listing.paths)
    ]


def test_webdataset_labels_are_kept(tmp_path: Path) -> None:
    images = [bad_images.png(seed) for seed in range(3)]
    write_tar(
        tmp_path / "t-00.tar",
        {"x/1.png": images[0], "x/1.cls": b"7", "x/1.txt": b"?", "x/2.cls": b"0\n", "x/2.png": images[1]},
    )
    write_tar(tmp_path / "t-01.tar", {"1.json": json.dumps({"label": 3}).encode(), "1.png": images[2]})
    for source in (tmp_path, tmp_path / "t-{00..01}.tar", tmp_path / "t-0{0,1}.tar"):
        listing = list_source(source)
        assert listing.labels.tolist() == [7, 0, 3]
        assert listing.classes == [str(label) for label in range(8)]
        assert [path for path, _, _ in found(listing)] == ["t-00.tar/x/1.png", "t-00.tar/x/2.png", "t-01.tar/1.png"]
        assert [data for _, _, data in found(listing)] == images
        assert listing.ignored == 1
    packed = pack_folder(tmp_path / "t-{00..01}.tar", tmp_path / "packed", workers=1)
    assert [packed.encoded(index).tobytes() for index in range(3)] == images
    assert packed.labels.tolist() == [7, 0, 3]


def test_classes_are_folders_in_a_tar_or_the_tar_files(tmp_path: Path) -> None:
    one, two = bad_images.png(1), bad_images.png(2)
    write_tar(tmp_path / "all.tar", {"./n2/b.png": two, "n1/deep/a.png": one, "n2/._b.png": b"", "n1/notes.txt": b""})
    assert found(list_source(tmp_path / "all.tar")) == [
        ("all.tar/n2/b.png", "n2", two),
        ("all.tar/n1/deep/a.png", "n1", one),
    ]
    assert list_source(tmp_path / "all.tar").classes == ["n1", "n2"]

    write_tar(tmp_path / "nested/n07.tar", {"n07_1.JPEG": one})
    write_tar(tmp_path / "nested/n01.tar", {"n01_1.JPEG": two})
    assert found(list_source(tmp_path / "nested")) == [
        ("n01.tar/n01_1.JPEG", "n01", two),
        ("n07.tar/n07_1.JPEG", "n07", one),
    ]


def test_a_tar_holds_the_same_dataset_as_its_folder(tmp_path: Path) -> None:
    source = bad_images.png_folder(tmp_path / "images")
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        for path in sorted(source.rglob("*.png")):
            tar.add(path, path.relative_to(source))
    from_tar = pack_folder(tmp_path / "images.tar", tmp_path / "one", workers=2)
    assert from_tar.hash == pack_folder(source, tmp_path / "two", workers=1).hash


def test_links_in_a_tar_are_bad_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        bad_images.write(tmp_path / "images", {"a/x.png": bad_images.png()})
        tar.add(tmp_path / "images/a/x.png", "a/x.png")
        link = tarfile.TarInfo("a/y.png")
        link.type, link.linkname = tarfile.LNKTYPE, "a/x.png"
        tar.addfile(link)
    result = check_folder(tmp_path / "a.tar", workers=1)
    assert list(result.problems) == [("a.tar/a/y.png", "bad", "not a plain file in the tar file")]


def test_a_tar_that_goes_away_is_a_verdict_of_each_image(tmp_path: Path) -> None:
    listing = list_source(write_tar(tmp_path / "a.tar", {"a/x.png": bad_images.png()}))
    (tmp_path / "a.tar").unlink()
    with pytest.raises(Unreadable, match="the tar file is gone"):
        listing.read(0)


def test_tar_files_that_are_refused(tmp_path: Path) -> None:
    image = bad_images.png()
    whole = write_tar(tmp_path / "whole.tar", {"a/1.png": image, "a/2.png": image}).read_bytes()
    second = whole.index(b"a/2.png")
    cases = {
        "cut.tar": (
            whole[: second + 700],
            rf"cut.tar is truncated or corrupt at byte {second} \(\d+ bytes are announced, 188",
        ),
        "cut_header.tar": (whole[: second + 200], f"cut_header.tar is truncated or corrupt at byte {second}"),
        "cut_between.tar": (whole[:second], "cut_between.tar is truncated or"),
        "damaged.tar": (whole[:second] + b"\xff" * 512 + whole[second + 512 :], f"corrupt at byte {second}"),
        "text.tar": (b"hello" * 1000, "text.tar is truncated or no uncompressed tar"),
        "zero.tar": (b"", "zero.tar is truncated or no uncompressed tar"),
        "train.tar.gz": (b"", "train.tar.gz is compressed.*decompress it to a .tar first"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=message):
            list_source(tmp_path / name)
    wrong = {
        "unlabelled": ({"1.png": image, "1.cls": b"1", "2.png": image}, "the image 2 in .* has no label; add 2.cls"),
        "word": ({"1.png": image, "1.cls": b"cat"}, r"1\.cls in .* holds 'cat', not a class number"),
        "negative": ({"1.png": image, "1.cls": b"-1"}, "holds '-1', not a class number"),
        "empty": ({"1.txt": b""}, "no .jpg, .* member in the tar files"),
    }
    for name, (members, message) in wrong.items():
        with pytest.raises(UserError, match=message):
            list_source(write_tar(tmp_path / f"{name}.tar", members))
    write_tar(tmp_path / "mixed/a.tar", {"1.png": image, "1.cls": b"1"})
    write_tar(tmp_path / "mixed/b.tar", {"1.png": image})
    with pytest.raises(UserError, match=r"some tar files of .* have labels .*, some have none"):
        list_source(tmp_path / "mixed")
    with pytest.raises(UserError, match=r"1 of the 3 tar files .* do not exist, first .*c.tar"):
        list_source(tmp_path / "mixed/{a,b,c}.tar")


def test_a_change_of_a_file_changes_the_fingerprint(tmp_path: Path) -> None:
    source = bad_images.png_folder(tmp_path / "images")
    tar = write_tar(tmp_path / "a.tar", {"a/1.png": bad_images.png()})
    assert fingerprint(source) == list_source(source).fingerprint
    assert fingerprint(tar) == list_source(tar).fingerprint
    for place, file in ((source, source / "b/001.png"), (tar, tar)):
        before = list_source(place).fingerprint
        assert list_source(place).fingerprint == before
        status = file.stat()
        file.touch()
        changed = list_source(place).fingerprint
        assert changed != before
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert list_source(place).fingerprint == before
