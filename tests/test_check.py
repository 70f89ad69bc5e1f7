"""Every kind of bad file is named with its reason; sound files pass; folders without images are refused."""

import io
import json
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import bad_images
import pytest
from PIL import Image

from bingo.check import CheckResult, check_folder, list_images
from bingo.errors import UserError
from bingo.jpeg_strict import StrictDecoder

BAD = bad_images.bad_files()
CONVERTIBLE = bad_images.convertible_files()
SOUND = bad_images.sound_files()
NO_FILE = {
    "link.jpg": "a link to nothing",
    "folder.jpg": "a folder",
    "socket.png": "not a regular file",
    "unreadable.png": "cannot be read (",
}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> CheckResult:
    """One check of a folder that holds every kind."""
    root = tmp_path_factory.mktemp("kinds")
    bad_images.write(root / "bad", {name: data for name, (data, _) in BAD.items()})
    bad_images.write(root / "odd", {name: data for name, (data, _) in CONVERTIBLE.items()})
    bad_images.write(
        root / "sound", SOUND | {"deep/er/x.png": bad_images.png(9), ".hidden.jpg": b"", "notes.txt": b"a"}
    )
    bad_images.write(root, {"README.md": b"", ".cache/x.jpg": b""})
    (root / "bad" / "link.jpg").symlink_to("nowhere.jpg")
    (root / "bad" / "folder.jpg").mkdir()
    (root / "bad" / "unreadable.png").symlink_to("/proc/self/mem")  # which refuses root too, unlike a permission
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(root / "bad", os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/socket.png")  # the path of a socket must be short
        os.close(here)
    return check_folder(root, workers=2)


def reason_of(result: CheckResult, path: str) -> tuple[str, str]:
    (found,) = [file for file in result.files if file.path == path]
    return found.verdict, found.reason


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_with_their_reason(result: CheckResult, name: str) -> None:
    verdict, reason = reason_of(result, f"bad/{name}")
    assert verdict == "bad"
    assert BAD[name][1] in reason


@pytest.mark.parametrize("name", NO_FILE)
def test_what_is_no_file_is_bad(result: CheckResult, name: str) -> None:
    verdict, reason = reason_of(result, f"bad/{name}")
    assert verdict == "bad"
    assert reason.startswith(NO_FILE[name])


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_convertible_files_are_named_with_their_reason(result: CheckResult, name: str) -> None:
    assert reason_of(result, f"odd/{name}") == ("convertible", CONVERTIBLE[name][1])


@pytest.mark.parametrize("name", SOUND)
def test_sound_files_pass_with_the_stored_size(result: CheckResult, name: str) -> None:
    (found,) = [file for file in result.files if file.path == f"sound/{name}"]
    assert (found.verdict, found.reason) == ("ok", "")
    assert (found.height, found.width) == (bad_images.HEIGHT, bad_images.WIDTH)
    assert found.bytes == len(SOUND[name])


def test_counts_hidden_and_ignored_files(result: CheckResult) -> None:
    assert result.counts == {"ok": len(SOUND) + 1, "convertible": len(CONVERTIBLE), "bad": len(BAD) + len(NO_FILE)}
    assert result.classes == ["bad", "odd", "sound"]
    assert result.ignored == 2
    assert len(result.problems) == result.counts["bad"] + result.counts["convertible"]


def test_the_result_is_json(result: CheckResult) -> None:
    value = json.loads(json.dumps(result.to_json()))
    assert value["counts"] == result.counts
    assert {problem["path"] for problem in value["problems"]} == {file.path for file in result.problems}


@pytest.mark.parametrize("name", ["garbage.jpg", "zeroed.jpg"])
def test_pillow_alone_would_pass_the_damage(name: str) -> None:
    """Otherwise the strict decoder would be of no use, or these files too badly damaged to test it."""
    with Image.open(io.BytesIO(BAD[name][0])) as image:
        image.load()


def test_a_decoder_that_dies_costs_one_verdict() -> None:
    with StrictDecoder(1) as decoder:
        assert decoder.problem(bad_images.jpeg()) == ""
        process = decoder._children[0]._process
        assert process is not None
        process.kill()
        process.wait()
        assert decoder.problem(bad_images.jpeg()).startswith("the JPEG decoder died on it")
        assert decoder.problem(bad_images.jpeg()) == ""
    assert decoder._children[0]._process is None


def test_a_decoder_that_does_not_start_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torchvision that cannot be imported stands in front of the real one."""
    bad_images.write(tmp_path, {"torchvision/__init__.py": b"raise ImportError('no image library here')"})
    source = bad_images.write(tmp_path / "images", {"a/x.jpg": bad_images.jpeg()})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match=r"decoder .* does not start: no image library here; reinstall torchvision"):
        check_folder(source, workers=1)


def test_the_order_is_that_of_torchvision(tmp_path: Path) -> None:
    names = ["b/2.png", "b/10.png", "a b/1.png", "a/z/1.png", "a/y.png", "a/z-/0.png", "a/Z.png", "a-/q.png"]
    bad_images.write(tmp_path, dict.fromkeys(names, bad_images.png()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchvision.datasets import ImageFolder
    expected = ImageFolder(str(tmp_path))
    listing = list_images(tmp_path)
    assert listing.classes == expected.classes
    assert [str(tmp_path / path) for path in listing.paths] == [path for path, _ in expected.samples]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    bad_images.png_folder(tmp_path / "images", count=2)
    (tmp_path / "images/a/loop").symlink_to(tmp_path / "images/a")
    (tmp_path / "images/c").symlink_to(tmp_path / "images/b")
    assert list_images(tmp_path / "images").paths == ["a/000.png", "b/001.png", "c/001.png"]


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    bad_images.write(tmp_path / "flat", {"x.jpg": b"x"})
    bad_images.write(tmp_path / "texts", {"a/x.txt": b"x"})
    expected = {
        "missing": "does not exist",
        "flat/x.jpg": "is a file, not an image folder",
        "empty": "is empty; put images in one sub-folder per class",
        "flat": "has no class sub-folders; put images in one sub-folder per class",
        "texts": "no .jpg, .jpeg, .png file in any class folder",
    }
    for name, message in expected.items():
        with pytest.raises(UserError, match=message):
            check_folder(tmp_path / name)


def test_progress_counts_every_file(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    check_folder(
        bad_images.png_folder(tmp_path / "images", count=20),
        workers=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(done, 20) for done in range(1, 21)]


def test_torch_is_not_imported_at_module_level() -> None:
    program = "import sys, bingo.check, bingo.pack, bingo.dataset, bingo.demo_data; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
