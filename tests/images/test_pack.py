"""A packed dataset holds the images byte for byte, refuses damage, and survives kills and a full disk."""

import io
import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bingo.errors import UserError
from bingo.images.convert import ConversionError
from bingo.images.dataset import JPEG, PNG, Dataset
from bingo.images.jpeg_markers import parse_jpeg
from bingo.images.jpeg_strict import StrictDecoder
from bingo.images.open import open_dataset
from bingo.images.pack import pack_folder
from tests.support import bad_images
from tests.support.small_pack import contents


def rgb(data: bytes | np.ndarray) -> np.ndarray:
    with Image.open(io.BytesIO(bytes(data))) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of file in one folder."""
    root = tmp_path_factory.mktemp("mixed")
    bad_images.write(root / "bad", {name: data for name, (data, _) in bad_images.bad_files().items()})
    bad_images.write(root / "odd", {name: data for name, (data, _) in bad_images.convertible_files().items()})
    return bad_images.write(root / "sound", bad_images.sound_files()).parent


@pytest.fixture(scope="module")
def lenient(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return pack_folder(mixed, tmp_path_factory.mktemp("out") / "packed", convert=True, allow_bad=True, workers=2)


def test_round_trip(lenient: Dataset, mixed: Path) -> None:
    sound = [index for index, path in enumerate(lenient.paths) if path.startswith("sound/")]
    assert len(sound) == len(bad_images.sound_files())
    for index in sound:
        if lenient.paths[index] == "sound/progressive.jpg":
            continue
        stored = (mixed / lenient.paths[index]).read_bytes()
        assert lenient.encoded(index).tobytes() == stored
        assert lenient.formats[index] == (JPEG if stored[:2] == b"\xff\xd8" else PNG)
        assert lenient.classes[lenient.labels[index]] == "sound"
        assert tuple(lenient.sizes[index]) == rgb(stored).shape[:2]
    assert lenient.verify() == []


def test_columns_have_the_stated_types(lenient: Dataset) -> None:
    rows = len(lenient)
    assert (lenient.sizes.shape, lenient.sizes.dtype) == ((rows, 2), np.int32)
    assert (lenient.labels.shape, lenient.labels.dtype) == ((rows,), np.int32)
    assert lenient.classes == ["bad", "odd", "sound"]
    first, second = lenient.encoded(0), lenient.encoded(1)
    assert first.dtype == np.uint8
    assert not first.flags.writeable
    assert not first.flags.owndata
    assert second.ctypes.data == first.ctypes.data + len(first)


def outcomes(packed: Dataset) -> dict[str, tuple[str, str]]:
    """Path -> what became of the file, and why; from the file that is written beside the index."""
    files = json.loads((packed.path / "verdicts.json").read_text())["files"]
    return {file["path"]: (file["verdict"], file["reason"]) for file in files}


def test_what_became_of_each_file_is_written_down(lenient: Dataset) -> None:
    found = outcomes(lenient)
    for name, (_, reason) in bad_images.bad_files().items():
        assert found[f"bad/{name}"][0] == "excluded"
        assert reason in found[f"bad/{name}"][1]
    for name, (_, reason) in bad_images.convertible_files().items():
        assert found[f"odd/{name}"] == ("converted", reason)
    for name in bad_images.sound_files():
        slow = name == "progressive.jpg"
        expected = ("converted", "progressive or several scans") if slow else ("ok", "")
        assert found[f"sound/{name}"] == expected
    stored = [path for path, (outcome, _) in found.items() if outcome != "excluded"]
    assert stored == list(lenient.paths)
    assert lenient.counts == {
        word: sum(outcome == word for outcome, _ in found.values()) for word in ("ok", "converted", "excluded")
    }


def test_duplicates_point_to_the_first_image(lenient: Dataset) -> None:
    encoded = [lenient.encoded(index).tobytes() for index in range(len(lenient))]
    assert lenient.duplicates.tolist() == [encoded.index(data) for data in encoded]
    assert (lenient.duplicates < np.arange(len(lenient))).sum() >= 2  # there are some
    groups = json.loads((lenient.path / "verdicts.json").read_text())["duplicate_groups"]
    assert ["odd/really_jpeg.png", "sound/plain.jpg"] in groups
    assert sum(len(group) for group in groups) == sum(encoded.count(data) > 1 for data in encoded)


@pytest.mark.parametrize("path", ["sound/progressive.jpg", "odd/slow.png"])
def test_progressive_becomes_baseline_with_the_same_pixels(lenient: Dataset, mixed: Path, path: str) -> None:
    before = (mixed / path).read_bytes()
    after = lenient.encoded(lenient.paths.index(path)).tobytes()
    assert not parse_jpeg(before).single_scan
    assert parse_jpeg(after).single_scan
    assert lenient.formats[lenient.paths.index(path)] == JPEG
    np.testing.assert_array_equal(rgb(after), rgb(before))


def test_every_stored_jpeg_suits_a_hardware_decoder(lenient: Dataset) -> None:
    jpegs = np.flatnonzero(lenient.formats == JPEG)
    assert len(jpegs) > 5
    assert all(parse_jpeg(lenient.encoded(int(index)).tobytes()).single_scan for index in jpegs)


def test_without_convert_progressive_is_stored_as_it_is(tmp_path: Path) -> None:
    slow = bad_images.jpeg(progressive=True)
    source = bad_images.write(tmp_path / "images", {"a/x.jpg": slow})
    packed = pack_folder(source, tmp_path / "packed", workers=1)
    assert packed.encoded(0).tobytes() == slow
    assert outcomes(packed) == {"a/x.jpg": ("ok", "")}


@pytest.mark.parametrize(("name", "kind"), [("x.jpg", "JPEG"), ("x.png", "PNG")])
def test_giants_are_shrunk_with_convert(tmp_path: Path, name: str, kind: str) -> None:
    giant = Image.new("RGB", (5200, 4000), (200, 30, 30))
    giant.paste((20, 60, 220), (0, 0, 2600, 4000))
    source = bad_images.write(tmp_path / "images", {f"a/{name}": bad_images.encode(giant, kind)})
    packed = pack_folder(source, tmp_path / "packed", workers=1, convert=True)
    (height, width), pixels = packed.sizes[0].tolist(), rgb(packed.encoded(0))
    assert pixels.shape == (height, width, 3)
    assert 19_900_000 < height * width <= 20_000_000
    assert abs(width / height - 1.3) < 0.001
    assert abs(pixels[height // 2, 10].astype(int) - (20, 60, 220)).max() < 4
    assert abs(pixels[height // 2, -10].astype(int) - (200, 30, 30)).max() < 4
    assert outcomes(packed) == {f"a/{name}": ("converted", "giant")}


def test_without_convert_giants_are_stored_as_they_are(tmp_path: Path) -> None:
    giant = bad_images.encode(Image.new("L", (5200, 4000)), "PNG")
    packed = pack_folder(bad_images.write(tmp_path / "images", {"a/x.png": giant}), tmp_path / "packed", workers=1)
    assert packed.sizes.tolist() == [[4000, 5200]]
    assert packed.encoded(0).tobytes() == giant
    assert outcomes(packed) == {"a/x.png": ("ok", "")}


def test_what_cannot_be_made_baseline_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: StrictDecoder, action: str, data: bytes) -> bytes:
        raise ConversionError("no library")

    monkeypatch.setattr(StrictDecoder, "convert", fail)
    slow, bitmap = bad_images.jpeg(progressive=True), bad_images.encode(bad_images.picture(), "BMP")
    source = bad_images.write(tmp_path / "images", {"a/x.jpg": slow, "a/y.bmp": bitmap})
    packed = pack_folder(source, tmp_path / "packed", workers=1, convert=True, allow_bad=True)
    assert packed.encoded(0).tobytes() == slow
    assert outcomes(packed) == {
        "a/x.jpg": ("ok", "kept as it is (no library)"),
        "a/y.bmp": ("excluded", "cannot be converted (no library)"),
    }


BY_PILLOW = ["cmyk.jpg", "ycck.jpg", "palette.png", "alpha.png", "keyed.png"]
BY_PILLOW += ["gif.jpg", "moving.webp", "screen.bmp", "page.tif", "map.ppm", "map.pgm"]


@pytest.mark.parametrize("name", BY_PILLOW)
def test_converted_pixels_equal_pillows_conversion(lenient: Dataset, mixed: Path, name: str) -> None:
    index = lenient.paths.index(f"odd/{name}")
    with Image.open(io.BytesIO(lenient.encoded(index))) as stored:
        assert (stored.format, stored.mode, stored.info) == ("PNG", "RGB", {})
    assert lenient.formats[index] == PNG
    np.testing.assert_array_equal(rgb(lenient.encoded(index)), rgb((mixed / "odd" / name).read_bytes()))


@pytest.mark.parametrize("name", ["deep.png", "deep.tiff"])
def test_sixteen_bits_keep_the_high_byte(lenient: Dataset, name: str) -> None:
    expected = np.asarray(bad_images.grey16()) // 256
    stored = rgb(lenient.encoded(lenient.paths.index(f"odd/{name}")))
    for channel in range(3):
        np.testing.assert_array_equal(stored[..., channel], expected)


@pytest.mark.parametrize(("name", "kind"), [("really_png.jpg", PNG), ("really_jpeg.png", JPEG)])
def test_misnamed_files_are_stored_as_they_are(lenient: Dataset, mixed: Path, name: str, kind: int) -> None:
    index = lenient.paths.index(f"odd/{name}")
    assert lenient.formats[index] == kind
    assert lenient.encoded(index).tobytes() == (mixed / "odd" / name).read_bytes()


def test_refusal_names_files_and_flags_and_writes_nothing(tmp_path: Path) -> None:
    names = {f"a/{index:02d}.png": bad_images.png()[:-20] for index in range(12)}
    palette = bad_images.convertible_files()["palette.png"][0]
    source = bad_images.write(tmp_path / "images", names | {"b/palette.png": palette, "b/good.png": bad_images.png()})
    with pytest.raises(UserError) as refused:
        pack_folder(source, tmp_path / "packed", workers=1)
    text = str(refused.value)
    assert text.startswith("13 of 14 images in")
    assert text.count("truncated (no IEND chunk) [bad]") == 10
    assert "a/09.png" in text
    assert "a/10.png" not in text
    assert "and 3 more" in text
    assert "--allow-bad leaves out the bad files (12)" in text
    assert "--convert stores the convertible ones (1)" in text
    with pytest.raises(UserError, match="is not a packed dataset"):
        open_dataset(tmp_path / "packed")

    with pytest.raises(UserError, match=r"(?s)^1 of 14 .*palette PNG \[convertible\]\nno dataset .*; --convert"):
        pack_folder(source, tmp_path / "packed", allow_bad=True, workers=1)
    assert len(pack_folder(source, tmp_path / "packed", allow_bad=True, convert=True, workers=1)) == 2


def test_refusal_leaves_the_old_dataset(tmp_path: Path) -> None:
    source = bad_images.png_folder(tmp_path / "images")
    pack_folder(source, tmp_path / "packed", workers=1)
    before = contents(tmp_path / "packed")
    (source / "b/new.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"b/new\.png: zero bytes"):
        pack_folder(source, tmp_path / "packed", workers=1)
    assert contents(tmp_path / "packed").items() >= before.items()
    assert open_dataset(tmp_path / "packed").verify() == []


def test_nothing_left_to_pack(tmp_path: Path) -> None:
    source = bad_images.write(tmp_path / "images", {"a/x.png": b""})
    with pytest.raises(UserError, match=r"every image of .* is bad"):
        pack_folder(source, tmp_path / "packed", allow_bad=True, workers=1)
    with pytest.raises(UserError, match="is not a packed dataset"):
        open_dataset(tmp_path / "packed")


def test_hash_depends_on_content_labels_and_classes_only(tmp_path: Path) -> None:
    source = bad_images.png_folder(tmp_path / "images")
    packed = pack_folder(source, tmp_path / "one", workers=1)
    elsewhere = shutil.copytree(source, tmp_path / "else/where")
    assert pack_folder(elsewhere, tmp_path / "two", workers=3).hash == packed.hash
    assert contents(tmp_path / "two").keys() == contents(tmp_path / "one").keys()

    (elsewhere / "a").rename(elsewhere / "aa")
    assert pack_folder(elsewhere, tmp_path / "two", workers=1).hash != packed.hash
    (elsewhere / "aa").rename(elsewhere / "a")
    (elsewhere / "a/000.png").write_bytes(bad_images.png(0) + b"\0")
    changed = pack_folder(elsewhere, tmp_path / "two", workers=1)
    assert changed.hash != packed.hash
    (elsewhere / "a/000.png").write_bytes(bad_images.png(0))
    (elsewhere / "b/001.png").rename(elsewhere / "a/001.png")
    assert pack_folder(elsewhere, tmp_path / "two", workers=1).hash not in (packed.hash, changed.hash)


def test_a_new_pack_replaces_the_old_files(tmp_path: Path) -> None:
    source = bad_images.png_folder(tmp_path / "images")
    old = pack_folder(source, tmp_path / "packed", workers=1)
    first = old.encoded(0).tobytes()
    (source / "a/000.png").write_bytes(bad_images.png(50))
    new = pack_folder(source, tmp_path / "packed", workers=1)
    names = " ".join(sorted(contents(tmp_path / "packed")))
    assert re.fullmatch(r"images-[0-9a-f]{12}-000\.bin index\.npz verdicts\.json", names)
    assert new.encoded(0).tobytes() == bad_images.png(50)
    assert old.encoded(0).tobytes() == first  # a reader that has the old one open keeps it


FULL = """
    import resource, signal, sys
    from pathlib import Path
    from bingo.errors import UserError
    from bingo.images.pack import pack_folder

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
    try:
        pack_folder(Path(sys.argv[1]), Path(sys.argv[2]), workers=1)
    except UserError as error:
        print(error)
        sys.exit(2)
"""


def pack_with_limit(source: Path, out: Path, most: int) -> str:
    """What a pack prints that may write no file of more than `most` bytes."""
    command = [sys.executable, "-c", textwrap.dedent(FULL), source, out, str(most)]
    full = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert full.returncode == 2, full.stderr
    return full.stdout


FULL_SAYS = r"cannot write .*: File too large; the previous .* is intact; free space .*\n"


def test_a_disk_full_of_images_leaves_the_old_dataset(tmp_path: Path) -> None:
    source, out = bad_images.png_folder(tmp_path / "images"), tmp_path / "packed"
    pack_folder(source, out, workers=1)
    before = contents(out)
    bad_images.png_folder(source, first=30)
    assert re.fullmatch(FULL_SAYS, pack_with_limit(source, out, next(out.glob("*.bin")).stat().st_size // 2))
    assert contents(out).items() >= before.items()
    assert open_dataset(out).verify() == []
    assert len(pack_folder(source, out, workers=1)) == 6
    assert not list(out.glob(".pack*"))


def test_a_disk_full_at_the_index_leaves_the_old_dataset(tmp_path: Path) -> None:
    """Tiny images under long names: the index is the larger file, and the flat file is already in place."""
    tiny = bad_images.encode(Image.new("1", (1, 1)), "PNG")
    source = bad_images.write(tmp_path / "images", {f"a/{'n' * 200}{index}.png": tiny for index in range(40)})
    out = tmp_path / "packed"
    pack_folder(source, out, workers=1)
    before = contents(out)
    (source / "b").mkdir()  # another class, hence another hash
    assert re.fullmatch(FULL_SAYS, pack_with_limit(source, out, next(out.glob("*.bin")).stat().st_size + 100))
    assert contents(out).items() >= before.items()
    assert open_dataset(out).verify() == []
    assert len(pack_folder(source, out, workers=1)) == 40
    assert not list(out.glob(".pack*"))


def test_only_one_pack_at_a_time(tmp_path: Path) -> None:
    source, out = bad_images.png_folder(tmp_path / "images"), tmp_path / "packed"
    refusals: list[str] = []

    def second(done: int, total: int) -> None:
        with pytest.raises(UserError, match="another pack is writing") as refused:
            pack_folder(source, out, workers=1)
        refusals.append(str(refused.value))

    assert pack_folder(source, out, workers=1, advance=second).verify() == []
    assert len(refusals) == 6


def test_places_that_are_not_for_packing(tmp_path: Path) -> None:
    source = bad_images.png_folder(tmp_path / "images")
    bad_images.write(tmp_path / "home", {"letter.txt": b"dear"})
    for out, message in {
        source: "lies inside the image folder",
        source / "packed": "lies inside the image folder",
        tmp_path / "home": "holds 'letter.txt' and no packed dataset",
        tmp_path / "home/letter.txt": "it is a file",
        tmp_path / "home/letter.txt/packed": "Not a directory",
    }.items():
        with pytest.raises(UserError, match=message):
            pack_folder(source, out, workers=1)
    assert contents(tmp_path / "home").keys() == {"letter.txt"}


def test_dali_reads_the_slices_as_pillow_does(lenient: Dataset) -> None:
    dali = pytest.importorskip("nvidia.dali", reason="DALI is not installed")

    @dali.pipeline_def(batch_size=len(lenient), num_threads=1, device_id=None)
    def pipeline() -> object:
        encoded = dali.fn.external_source(
            lambda: [lenient.encoded(index) for index in range(len(lenient))],
            dtype=dali.types.UINT8,
            ndim=1,
            no_copy=True,
        )
        return dali.fn.decoders.image(encoded, adjust_orientation=False, jpeg_fancy_upsampling=True)

    pipe = pipeline(prefetch_queue_depth=1)
    pipe.build()
    (decoded,) = pipe.run()
    for index, (height, width) in enumerate(lenient.sizes):
        pixels = np.asarray(decoded[index])
        assert pixels.shape == (height, width, 3)
        np.testing.assert_array_equal(pixels, rgb(lenient.encoded(index)), err_msg=lenient.paths[index])


def test_evaluation_reads_all_that_is_packed(lenient: Dataset) -> None:
    """A folder with every kind of bad, odd and sound file in it ends in batches of pixels."""
    pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    import torch

    from bingo.config_parts import Augmentation
    from bingo.views.loader import evaluation_batches

    rows = np.array_split(np.arange(len(lenient)), 7)
    batches = evaluation_batches(lenient, Augmentation(size=32), rows, device=torch.device("cpu"), threads=1)
    images = torch.cat([batch.clone() for batch in batches])
    assert images.shape == (len(lenient), 3, 32, 32)
    assert images.isfinite().all()
    first = lenient.duplicates
    assert torch.equal(images, images[torch.from_numpy(first)])
    flat = images[np.unique(first)].flatten(1)
    assert len(torch.unique(flat, dim=0)) > len(flat) // 2  # pictures, not one picture
