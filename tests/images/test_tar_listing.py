"""Tar files are read as WebDataset and tar users expect, or refused in a sentence that says how to choose."""

import shutil
from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.images.listing import Listing, Unreadable
from bingo.images.sources import fingerprint, list_source
from tests.support.bad_images import jpeg, png
from tests.support.tars import END, header, member, samples, write_tar

pytestmark = pytest.mark.quick
Members = dict[str, bytes] | list[tuple[str, bytes]]


@pytest.fixture
def listed(tmp_path: Path):
    def make(members: Members, **choice: str) -> Listing:
        return list_source(write_tar(tmp_path / "t.tar", members), **choice)

    return make


def classes_of(listing: Listing) -> dict[str, str]:
    """Member -> class."""
    return {
        path.removeprefix("t.tar/"): listing.classes[label]
        for path, label in zip(listing.paths, listing.labels.tolist(), strict=True)
    }


@pytest.mark.parametrize("endings", [("JPG", "CLS"), ("cls", "JPG"), ("Jpg", "Cls")])
def test_endings_count_in_lower_case(endings: tuple[str, str], listed) -> None:
    listing = listed(samples(*endings))
    assert listing.labels.tolist() == [0, 1, 0]
    assert (listing.classes, listing.origin, dict(listing.left_out)) == (["0", "1"], ".cls members", {})


@pytest.mark.parametrize("second", ["seg.png", "thumb.jpg", "png", "JPEG"])
def test_a_sample_of_several_images_is_refused_until_one_is_chosen(second: str, listed) -> None:
    members = [*samples("jpg", "cls"), ("0001." + second, png())]
    with pytest.raises(UserError, match=rf"0001.jpg and 0001.{second} in .* are images of one sample.*--ext jpg"):
        listed(members)
    listing = listed(members, ext="jpg")
    assert classes_of(listing) == {"0000.jpg": "0", "0001.jpg": "1", "0002.jpg": "0"}
    assert listing.left_out == {f".{second.lower()}": (1, f"t.tar/0001.{second}")}


def test_several_images_without_labels_are_told(listed) -> None:
    listing = listed({"cat/0.jpg": jpeg(), "cat/0.seg.png": png(), "dog/1.jpg": jpeg(1)})
    (remark,) = listing.remarks()
    assert "cat/0.jpg and cat/0.seg.png" in remark
    assert remark.endswith("to take one kind: --ext jpg")
    assert len(listed({"cat/0.jpg": jpeg(), "cat/0.seg.png": png()}, ext=".JPG, jpeg").paths) == 1


LIKE_LABELS = {
    "class.cls": (b"1", "class.cls"),
    "cls.txt": (b"1", "cls.txt"),
    "label": (b"1", "label"),
    "target.txt": (b"1", "target.txt"),
    "json": (b'{"caption": "a cat", "species": 1}', "json:species"),
    "meta.json": (b'{"species": 1}', "meta.json:species"),
}


@pytest.mark.parametrize("ending", LIKE_LABELS)
def test_members_like_labels_are_used_or_refused(ending: str, listed) -> None:
    content, choice = LIKE_LABELS[ending]
    members = [*samples("jpg"), *((f"{number:04d}.{ending}", content) for number in range(3))]
    with pytest.raises(UserError, match=rf"0000.{ending} in .* looks like a label.*--class-from {ending}"):
        listed(members)
    assert listed(members, class_from=choice).labels.tolist() == [1, 1, 1]
    by_tar = listed(members, class_from="tar")
    assert set(classes_of(by_tar).values()) == {"t"}
    assert by_tar.left_out == {f".{ending} like a label": (3, f"t.tar/0000.{ending}")}


def test_what_goes_with_no_image_is_told(listed) -> None:
    listing = listed([*samples("jpg", "cls"), ("9.cls", b"1"), ("0000.json", b"{}"), ("a.txt", b""), ("x.heic", b"")])
    assert listing.left_out == {
        ".txt": (1, "t.tar/a.txt"),
        ".heic": (1, "t.tar/x.heic"),
        "label without an image": (1, "t.tar/9.cls"),
        ".json like a label": (1, "t.tar/0000.json"),
    }
    assert listed({"cat/0.jpg": b"", "dog/0.jpg": b"", "label.txt": b""}).left_out == {
        ".txt like a label": (1, "t.tar/label.txt")
    }


def test_of_a_member_stored_twice_the_last_counts_with_its_own_label(listed) -> None:
    first, last = jpeg(1), jpeg(2)
    names = [("a.jpg", first), ("a.cls", b"3"), ("b.jpg", jpeg()), ("b.cls", b"1"), ("a.jpg", last), ("a.cls", b"2")]
    listing = listed(names)
    assert classes_of(listing) == {"a.jpg": "2", "b.jpg": "1"}
    assert listing.read(0) == last
    assert listing.left_out == {"earlier copy of a member stored twice": (2, "t.tar/a.jpg")}


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["/etc/abs.jpg", "/usr/x.jpg"], ["etc", "usr"]),
        (["./a/b.jpg", "b/./c.jpg"], ["a", "b"]),
        (["../x/1.jpg", "../../y/2.jpg"], ["x", "y"]),
        (["a/../../z/1.jpg", "//y/2.jpg"], ["y", "z"]),
        (["/1.jpg", "./2.jpg", "../3.jpg"], ["t"]),
    ],
)
def test_names_are_those_that_tar_extracts(names: list[str], classes: list[str], listed) -> None:
    assert listed([(name, jpeg(seed)) for seed, name in enumerate(names)]).classes == classes


def test_no_class_is_without_a_name(tmp_path: Path) -> None:
    content = b"".join(member(name, jpeg()) for name in ("x.jpg", "/y.jpg", "./z.jpg")) + END
    (tmp_path / ".tar").write_bytes(content)
    assert list_source(tmp_path / ".tar").classes == [".tar"]


def test_folders_and_no_folders_are_refused_until_one_is_chosen(listed) -> None:
    members = {"cat/0.jpg": jpeg(), "loose.jpg": jpeg(1)}
    with pytest.raises(
        UserError, match=r"lie in folders \(cat/0.jpg\), some do not \(loose.jpg\).*--class-from folder"
    ):
        listed(members)
    listing = listed(members, class_from="folder")
    assert classes_of(listing) == {"cat/0.jpg": "cat"}
    assert listing.left_out == {"image outside any class folder": (1, "t.tar/loose.jpg")}
    assert set(classes_of(listed(members, class_from="tar")).values()) == {"t"}


def test_one_class_that_holds_the_classes_is_told(listed) -> None:
    members = {"data/cat/0.jpg": jpeg(), "data/dog/1.jpg": jpeg(1)}
    (remark,) = listed(members).remarks()
    assert "the only class, data, has 2 sub-folders with images (cat, dog)" in remark
    assert classes_of(listed(members, class_from="parent")) == {"data/cat/0.jpg": "cat", "data/dog/1.jpg": "dog"}
    (remark,) = listed({"train/cat/0.jpg": jpeg(), "val/cat/0.jpg": jpeg(1)}).remarks()
    assert "are called train, val, as splits are" in remark


def test_names_of_systems_are_skipped(listed) -> None:
    listing = listed({
        "cat/0.jpg": jpeg(), "__MACOSX/cat/._0.jpg": b"", "cat/@eaDir/0.jpg": b"", "cat/.x.jpg": b"", "Thumbs.db": b"",
    })  # fmt: skip
    assert classes_of(listing) == {"cat/0.jpg": "cat"}
    assert listing.left_out == {
        "of the operating system": (3, "t.tar/__MACOSX/cat/._0.jpg"),
        "hidden": (1, "t.tar/cat/.x.jpg"),
    }


SOUND_LABELS = [b"3", b"3\n", b"003", b" 3\r\n", b"\xef\xbb\xbf3\r\n", "3\r\n".encode("utf-16")]


@pytest.mark.parametrize("content", SOUND_LABELS)
def test_labels_as_programs_write_them(content: bytes, listed) -> None:
    assert listed({"a.jpg": jpeg(), "a.cls": content}).labels.tolist() == [3]
    assert listed({"a.jpg": jpeg(), "a.json": b'\xef\xbb\xbf{"label": 3}'}).labels.tolist() == [3]


BAD_LABELS = {
    "3.0": b"3.0", "empty": b"", "digits": b"1" * 5000, "nested": b"[" * 100_000, "two": b"1 2", "true": b"true",
    "escape": b"\x1b[31m1", "many": b"1000000", "negative": b"-1", "other digits": "٣".encode(), "nul": b"3\0",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_LABELS)
def test_labels_that_are_no_class_numbers_are_refused(name: str, listed) -> None:
    with pytest.raises(UserError, match=r"a.cls in .*t.tar holds '.*', not a class number from 0 to 999999") as error:
        listed({"a.jpg": jpeg(), "a.cls": BAD_LABELS[name]})
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300


BAD_JSON = {
    "digits": b'{"label": ' + b"1" * 5000 + b"}", "nested": b"[" * 100_000, "nested label": b'{"label": ' * 100_000,
    "float": b'{"label": 3.0}', "text": b'{"label": "3"}', "true": b'{"label": true}', "list": b"[3]", "none": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_JSON)
@pytest.mark.parametrize("choice", ["", "json:label"])
def test_json_without_a_class_number_is_refused(name: str, choice: str, listed) -> None:
    with pytest.raises(
        UserError, match=r"a.json in .*t.tar (looks like a label|holds .*, not a class number)"
    ) as error:
        listed({"a.jpg": jpeg(), "a.json": BAD_JSON[name]}, class_from=choice)
    assert len(str(error.value)) < 300


def test_large_members_and_links_are_not_read(tmp_path: Path) -> None:
    for name, size in (("a/x.jpg", 40 << 30), ("x.cls", 40 << 30), ("y.cls", (1 << 20) + 1)):
        with open(tmp_path / f"{name[0]}.tar", "wb") as file:
            file.write(header(name, size))
            file.truncate(512 + -(-size // 512) * 512 + 1024)
    with pytest.raises(Unreadable, match=r"too large \(42949672960 bytes, the limit is 512 MiB\)"):
        list_source(tmp_path / "a.tar").read(0)
    for name in ("x", "y"):
        with pytest.raises(UserError, match=rf"the label {name}.cls in .* has \d+ bytes, the limit is 1048576"):
            list_source(tmp_path / f"{name}.tar")
    (tmp_path / "l.tar").write_bytes(header("x.cls", 0, b"2") + END)
    with pytest.raises(UserError, match=r"the label x.cls in .* is no plain file"):
        list_source(tmp_path / "l.tar")


def test_fingerprints_follow_files_and_choices_and_not_places(tmp_path: Path) -> None:
    source = write_tar(tmp_path / "one/t.tar", samples("jpg", "cls"))
    shutil.copytree(tmp_path / "one", tmp_path / "two/deep")
    (tmp_path / "two/deep/README.txt").touch()
    assert fingerprint(tmp_path / "two/deep") == fingerprint(source)
    assert fingerprint(tmp_path / "two/deep/t.tar") == fingerprint(source)
    for choice in ({"ext": "jpg"}, {"class_from": "cls"}, {"class_from": "tar"}):
        assert fingerprint(source, **choice) == list_source(source, **choice).fingerprint != fingerprint(source)


def test_other_files_beside_tar_files_are_told(tmp_path: Path) -> None:
    write_tar(tmp_path / "cat.TAR", {"0.jpg": jpeg()})
    for name in ("loose.jpg", "index.csv", ".hidden"):
        (tmp_path / name).touch()
    listing = list_source(tmp_path)
    assert (listing.classes, listing.origin) == (["cat"], "names of the tar files")
    assert listing.left_out == {
        "hidden": (1, ".hidden"),
        "image outside any class folder": (1, "loose.jpg"),
        ".csv": (1, "index.csv"),
    }


def test_a_tar_file_behind_a_broken_link_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"0.jpg": jpeg()})
    (tmp_path / "b.tar").symlink_to("gone.tar")
    with pytest.raises(UserError, match=r"cannot read the tar file .*b.tar: No such file"):
        list_source(tmp_path)


@pytest.mark.parametrize("pattern", ["t-{5..2}.tar", "t-{0..999999999}.tar", "t-{0..9999999999999999999999}.tar"])
def test_patterns_that_name_no_files_or_too_many(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"names .* tar files; write|do not exist"):
        list_source(tmp_path / pattern)
