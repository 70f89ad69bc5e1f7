"""One walker of folders: what it passes over is said and changes no fingerprint; links are followed, loops told."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.images.listing import MOST_BYTES, Listing, Unreadable
from bingo.images.sources import fingerprint, list_source
from tests.support.bad_images import encode, jpeg, picture, png_folder, write

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store", "a/.DS_Store", "b/Thumbs.db", "a/.nfs000123", "README.txt", "a/README.txt", "a/._000.png",
        "__MACOSX/a/._000.png", "a/__MACOSX/x.png", "@eaDir/000.png", "b/@eaDir/001.png/SYNOPHOTO.jpg", "a/x.heic",
        "lost+found/x.png", "$RECYCLE.BIN/x.png", "System Volume Information/x.png", "a/#recycle/x.png", "loose.png",
        ".thumbnails/x.png", "a/.cache/deep/x.png", "a/__pycache__/x.png", "a/Desktop.ini", "b/Icon\r", "a/labels.csv",
    ],
)  # fmt: skip
def test_what_is_not_read_changes_no_fingerprint(name: str, tmp_path: Path) -> None:
    source = png_folder(tmp_path / "images")
    before, images = fingerprint(source), list(list_source(source).paths)
    write(source, {name: encode(picture(9), "PNG")})
    listing = list_source(source)
    assert (listing.fingerprint, fingerprint(source), listing.classes) == (before, before, ["a", "b"])
    assert list(listing.paths) == images
    ((kind, (count, example)),) = listing.left_out.items()
    assert count == 1
    assert name.startswith(example), f"{kind} {example}"


def renamed(source: Path, outside: Path) -> None:
    (source / "a/000.png").rename(source / "a/new.png")


def moved_to_another_class(source: Path, outside: Path) -> None:
    (source / "a/000.png").rename(source / "b/000.png")


def replaced_behind_a_link(source: Path, outside: Path) -> None:
    (outside / "file.png").write_bytes(b"another")


def replaced_behind_a_linked_class(source: Path, outside: Path) -> None:
    (outside / "class/x.png").write_bytes(b"another")


def led_elsewhere(source: Path, outside: Path) -> None:
    (source / "a/link.png").unlink()
    (source / "a/link.png").symlink_to(outside / "class/x.png")


def with_an_empty_class(source: Path, outside: Path) -> None:
    (source / "0").mkdir()


def gone_behind_a_link(source: Path, outside: Path) -> None:
    (outside / "file.png").unlink()


CHANGES = (
    renamed, moved_to_another_class, replaced_behind_a_link, replaced_behind_a_linked_class, led_elsewhere,
    with_an_empty_class, gone_behind_a_link,
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_an_image_or_a_label_changes_the_fingerprint(
    change: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    outside = write(tmp_path / "outside", {"class/x.png": b"x", "file.png": b"longer"})
    source = png_folder(tmp_path / "images")
    (source / "c").symlink_to(outside / "class")
    (source / "a/link.png").symlink_to(outside / "file.png")
    before = fingerprint(source)
    assert fingerprint(source) == before
    change(source, outside)
    assert fingerprint(source) != before


def test_the_place_of_a_source_is_not_in_its_fingerprint(tmp_path: Path) -> None:
    source = png_folder(tmp_path / "images")
    shutil.copytree(source, tmp_path / "else/where")
    (tmp_path / "link").symlink_to(source)
    assert fingerprint(tmp_path / "else/where") == fingerprint(source) == fingerprint(tmp_path / "link")


def test_every_kind_that_is_left_out_is_counted_with_an_example(tmp_path: Path) -> None:
    names = ["a/x.heic", "a/deep/y.HEIC", "a/z.avif", "b/t.tga", "b/notes", "a/1.0", "a/2.7z_"]
    source = write(png_folder(tmp_path), {**dict.fromkeys(names, b"x"), "loose.jpg": jpeg(), "list.csv": b""})
    (source / "bird").symlink_to("nowhere")
    (source / "a/up").symlink_to("..")
    listing = list_source(source)
    assert {kind: count for kind, (count, _) in listing.left_out.items()} == {
        ".heic": 2, ".avif": 1, ".tga": 1, ".csv": 1, "without an ending": 1, "with another ending": 2,
        "image outside any class folder": 1, "broken link": 1, "link back to a folder above it": 1,
    }  # fmt: skip
    assert listing.ignored == 11
    (line,) = listing.remarks()
    assert line.startswith("left out 11: 2 ")
    for words in ("1 image outside any class folder (loose.jpg)", "1 broken link (bird)", "1 .tga (b/t.tga)"):
        assert words in line


def test_gif_is_listed_as_what_can_be_converted(tmp_path: Path) -> None:
    write(tmp_path, {"a/x.gif": encode(picture(), "GIF"), "a/y.GIF": encode(picture(1), "GIF")})
    assert list(list_source(tmp_path).paths) == ["a/x.gif", "a/y.GIF"]


def test_other_suffixes_alone_are_named_in_the_refusal(tmp_path: Path) -> None:
    write(tmp_path, {"a/x.heic": b"", "a/y.heic": b""})
    with pytest.raises(UserError, match=r"left out 2: 2 .heic \(a/[xy].heic\)"):
        list_source(tmp_path)


def remarks(*files: str, folders: tuple[str, ...] = (), root: Path) -> list[str]:
    write(root, dict.fromkeys(files, b"x"))
    for folder in folders:
        (root / folder).mkdir(parents=True)
    return list(list_source(root).remarks())


def test_classes_that_look_wrong_are_told(tmp_path: Path) -> None:
    assert remarks("a/x.jpg", "b/x.jpg", root=tmp_path / "sound") == []
    assert remarks("bus/x.jpg", "train/x.jpg", root=tmp_path / "vehicles") == []
    assert remarks("a/x.jpg", folders=("b", "c/deep"), root=tmp_path / "empty") == [
        "2 class folder(s) hold no image: b, c"
    ]
    (split,) = remarks("train/a/x.jpg", "val/a/x.jpg", root=tmp_path / "{split}")
    assert split == (f"warning: the classes are called train, val, as splits are; name {tmp_path}/{{split}}/train")
    (more,) = remarks("Train/x.jpg", "TEST/x.jpg", "dog/x.jpg", root=tmp_path / "upper")
    assert "are called TEST, Train, as splits are" in more
    (one,) = remarks("all/cat/x.jpg", "all/dog/x.jpg", root=tmp_path / "one")
    assert one.startswith("warning: the only class, all, has 2 sub-folders with images (cat, dog); if they are the")
    assert one.endswith(f"name {tmp_path}/one/all")


def read(listing: Listing, path: str) -> str:
    with pytest.raises(Unreadable) as error:
        listing.read(listing.paths.index(path))
    return str(error.value)


def test_links_to_themselves_are_verdicts(tmp_path: Path) -> None:
    source = png_folder(tmp_path / "images", count=2)
    (source / "a/self.jpg").symlink_to("self.jpg")
    (source / "a/one.jpg").symlink_to("two.jpg")
    (source / "a/two.jpg").symlink_to("one.jpg")
    (source / "a/me").symlink_to("me")
    (source / "me").symlink_to("me")
    listing = list_source(source)
    assert list(listing.paths) == ["a/000.png", "a/one.jpg", "a/self.jpg", "a/two.jpg", "b/001.png"]
    assert {read(listing, f"a/{name}.jpg") for name in ("self", "one", "two")} == {"a link to itself"}
    assert listing.left_out == {"broken link": (2, "me")}


def test_a_link_up_to_the_source_brings_no_images_of_other_classes(tmp_path: Path) -> None:
    source = png_folder(tmp_path / "images", count=2)
    (source / "a/all").symlink_to(source)
    (source / "a/deep").mkdir()
    (source / "a/deep/all").symlink_to("../..")
    assert list(list_source(source).paths) == ["a/000.png", "b/001.png"]


def test_a_file_larger_than_any_image_is_not_read(tmp_path: Path) -> None:
    source = png_folder(tmp_path, count=1)
    with open(source / "a/hole.jpg", "wb") as file:
        file.truncate(40 << 30)
    with open(source / "a/limit.jpg", "wb") as file:
        file.truncate(MOST_BYTES + 1)
    listing = list_source(source)
    assert read(listing, "a/hole.jpg") == f"too large ({40 << 30} bytes, the limit is 512 MiB)"
    assert read(listing, "a/limit.jpg").startswith("too large")


def test_what_lies_in_a_folder_named_as_an_image_changes_nothing(tmp_path: Path) -> None:
    source = png_folder(tmp_path)
    (source / "a/folder.jpg").mkdir()
    before = fingerprint(source)
    write(source, {"a/folder.jpg/.DS_Store": b"", "a/folder.jpg/x.png": b""})
    assert fingerprint(source) == before


def test_deep_folders_are_walked(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(1200):
            os.mkdir("a", dir_fd=here)
            here, above = os.open("a", os.O_RDONLY, dir_fd=here), here
            os.close(above)
        os.close(os.open("x.jpg", os.O_CREAT, dir_fd=here))
        assert list(list_source(tmp_path).paths) == ["a/" * 1200 + "x.jpg"]
    finally:
        os.close(here)
        subprocess.run(
            ["rm", "-rf", str(tmp_path / "a")], check=True
        )  # Python's own rmtree calls itself once per level


def test_names_too_long_and_settings_of_tar_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*: File name too long"):
        list_source(tmp_path / ("a" * 300))
    source = png_folder(tmp_path)
    with pytest.raises(UserError, match="the classes of an image folder are its folders"):
        list_source(source, class_from="cls")
    listing = list_source(write(source, {"a/x.seg.png": b""}), ext="png")
    assert "a/x.seg.png" not in list(listing.paths)
    assert listing.left_out == {".seg.png": (1, "a/x.seg.png")}
