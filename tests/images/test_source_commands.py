"""What `bingo check`, `pack` and a training on a folder say about a source: classes, what is left out, what to type."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bingo.cli import main
from bingo.config_parts import Loader
from bingo.images.open import open_dataset, open_images
from tests.support.bad_images import encode, picture, png, write
from tests.support.ranks import ROOT
from tests.support.tars import samples, write_tar


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    files = {f"{'ab'[i % 2]}/{i}.png": png(i) for i in range(4)} | {"a/x.heic": b"", "b/y.heic": b"", "loose.jpg": b""}
    (tmp_path / "images/c").mkdir(parents=True)
    return write(tmp_path / "images", files | {"__MACOSX/a/._0.png": b""})


SAID = (
    "left out 4: 2 .heic (",
    "1 image outside any class folder (loose.jpg)",
    "1 of the operating system (__MACOSX)",
    "\n1 class folder(s) hold no image: c\n",
)


def test_check_says_what_there_is_and_what_to_type_next(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(source), "--json", str(tmp_path / "v.json")]) == 0
    printed = capsys.readouterr().out
    for words in (*SAID, "images               4\n", "classes              3  from folders\n"):
        assert words in printed
    assert printed.endswith(f"next: bingo pack {source} OUT\n")
    found = json.loads((tmp_path / "v.json").read_text())
    assert (found["ignored"], found["empty_classes"], found["warnings"]) == (4, ["c"], [])
    assert found["left_out"]["of the operating system"] == {"files": 1, "example": "__MACOSX"}
    write(source, {"a/bad.png": b"", "b/x.gif": encode(picture(), "GIF")})
    assert main(["check", str(source)]) == 1
    assert capsys.readouterr().out.endswith(f"next: bingo pack {source} OUT --convert --allow-bad\n")


def test_pack_says_the_same_and_keeps_it(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", str(source), str(tmp_path / "packed")]) == 0
    printed = capsys.readouterr().out
    assert all(words in printed for words in SAID)
    assert json.loads((tmp_path / "packed/verdicts.json").read_text())["left_out"][".heic"]["files"] == 2
    assert open_dataset(tmp_path / "packed").classes == ["a", "b", "c"]


def test_a_file_that_is_not_read_leaves_a_finished_pack_finished(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pack", str(source), str(tmp_path / "packed")]
    assert main(command) == 0
    write(source, {"a/.DS_Store": b"", "a/@eaDir/0.png": b"", "notes.txt": b""})
    assert main(command) == 0
    assert "already done" in capsys.readouterr().out


def test_what_a_folder_leaves_out_is_in_the_log(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="bingo"):
        open_images(source, Loader())
    assert "left out 4: 2 .heic" in caplog.text
    assert "1 class folder(s) hold no image: c" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="bingo"):
        open_images(source, Loader(), tell=False)
    assert caplog.text == ""


def test_choices_go_through_check_and_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = [
        (name.replace("jpg", "png"), png(3) if name.endswith("jpg") else data)
        for name, data in samples("jpg", "class.cls")
    ]
    tar = write_tar(tmp_path / "t.tar", [*members, ("0000.seg.png", png(4))])
    choice = ["--class-from", "class.cls", "--ext", "png"]
    for words in (["check", str(tar)], ["pack", str(tar), str(tmp_path / "packed")]):
        assert main(words) == 2
        assert "--class-from class.cls" in capsys.readouterr().err
    assert main(["check", str(tar), *choice]) == 0
    assert capsys.readouterr().out.endswith(f"next: bingo pack {tar} OUT --class-from class.cls --ext png\n")
    assert main(["pack", str(tar), str(tmp_path / "packed"), *choice]) == 0
    assert open_dataset(tmp_path / "packed").labels.tolist() == [0, 1, 0]
    assert main(["pack", str(tar), str(tmp_path / "other"), "--class-from", "a b"]) == 2
    assert "class-from='a b' is not allowed" in capsys.readouterr().err


def test_names_are_printed_harmless(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, hidden = "\x1b[31m\u202ered\n.png", b"bytes \xff.png"
    write(tmp_path / "images", {f"cl\x1b]0;x\x07/{name}": b"", "b/x.png": png(), "cl\x1b]0;x\x07/a\x1b.heic": b""})
    (tmp_path / "images/empty\x1b[2J").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "images/b") + b"/" + hidden)).write_bytes(b"")
    assert main(["check", str(tmp_path / "images")]) == 1
    assert main(["pack", str(tmp_path / "images"), str(tmp_path / "packed")]) == 2
    assert main(["pack", str(tmp_path / "images"), str(tmp_path / "packed"), "--allow-bad"]) == 0
    assert main(["check", str(tmp_path / "images/empty\x1b[2J")]) == 2
    printed = capsys.readouterr()
    text = (printed.out + printed.err).replace("\n", "")
    assert "\\x1b[31m\\u202ered\\n.png" in text
    assert text.isprintable()


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_names_in_a_locale_without_utf_8(locale: str, tmp_path: Path) -> None:
    write(tmp_path / "images", {"café/ü.png": png(), "b/漢.png": png(1), "b/bad ü.png": b"", "b/ü.heic": b""})
    (tmp_path / "images/leer é").mkdir()
    assert main(["pack", str(tmp_path / "images"), str(tmp_path / "here"), "--allow-bad"]) == 0
    plain = {"LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "bingo", "pack", tmp_path / "images", tmp_path / "there", "--allow-bad"]
    done = subprocess.run(words, env=os.environ | plain, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "b/bad ü.png: zero bytes".encode() in done.stdout, "the command starts itself again in UTF-8 mode"
    assert "1 class folder(s) hold no image: leer é\n".encode() in done.stdout
    for name in ("index.npz", "verdicts.json"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    assert list(open_dataset(tmp_path / "there").paths) == ["b/漢.png", "café/ü.png"]


@pytest.mark.parametrize("names", [["me"], ["me", "a"]])
def test_features_on_a_folder_with_a_link_to_itself(
    names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    for name in names:
        (tmp_path / "images" / name).symlink_to(name)
    model = write(tmp_path, {"m.pt": b""}) / "m.pt"
    assert (
        main(["features", "--data", str(tmp_path / "images"), "--model", str(model), "--out", str(tmp_path / "o")]) == 2
    )
    assert len(capsys.readouterr().err.splitlines()) == 1
