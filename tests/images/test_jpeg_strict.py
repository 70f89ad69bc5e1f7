"""The strict JPEG decoder: what it is for, how it hears of damage, and a process of it that dies or does not start."""

import io
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from bingo.errors import TransientError, UserError
from bingo.images.check import check_folder
from bingo.images.jpeg_strict import StrictDecoder, _take
from tests.support import bad_images
from tests.support.checked_folder import BAD


@pytest.mark.parametrize("name", ["garbage.jpg", "zeroed.jpg"])
def test_pillow_alone_would_pass_the_damage(name: str) -> None:
    """Otherwise the strict decoder would be of no use, or these files too badly damaged to test it."""
    with Image.open(io.BytesIO(BAD[name][0])) as image:
        image.load()


@pytest.mark.slow
def test_a_decoder_that_dies_costs_one_verdict() -> None:
    with StrictDecoder(1) as decoder:
        assert decoder.problem(bad_images.jpeg()) == ""
        process = decoder._children[0]._process
        assert process is not None
        process.kill()
        process.wait()
        assert decoder.problem(bad_images.jpeg()).startswith("the decoder died on it")
        assert decoder.problem(bad_images.jpeg()) == ""
    assert decoder._children[0]._process is None


def test_a_decoder_that_does_not_start_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torchvision that cannot be imported stands in front of the real one."""
    bad_images.write(tmp_path, {"torchvision/__init__.py": b"raise ImportError('no image library here')"})
    source = bad_images.write(tmp_path / "images", {"a/x.jpg": bad_images.jpeg()})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match=r"decoder .* does not start: no image library here; reinstall torchvision"):
        check_folder(source, workers=1)


def test_a_process_that_does_not_start_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = bad_images.png_folder(tmp_path / "images", count=1)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(
        TransientError, match=r"the decoding process .* does not start: No such file or directory; free"
    ):
        check_folder(source, workers=1)


def test_a_decoder_that_hears_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torchvision that decodes and never complains, as a build whose warnings go nowhere would."""
    silent = b"class ImageReadMode:\n    UNCHANGED = 0\n\ndef decode_jpeg(data, mode):\n    return data\n"
    bad_images.write(tmp_path, {"torchvision/__init__.py": b"", "torchvision/io.py": silent})
    source = bad_images.write(tmp_path / "images", {"a/x.jpg": bad_images.jpeg()})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match="does not start: it does not complain of a damaged image; reinstall"):
        check_folder(source, workers=1)


DAMAGED = """
    import sys
    from pathlib import Path
    from bingo.images.check import check_folder

    result = check_folder(Path(sys.argv[1]), workers=1)
    print(result.file(0)["verdict"], result.file(0)["reason"])
"""


def test_damage_is_heard_where_no_file_can_be_written(tmp_path: Path) -> None:
    """No folder for temporary files, and not one byte may be written into any file."""

    def nothing_to_write() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    source = bad_images.write(tmp_path / "images", {"a/x.jpg": BAD["garbage.jpg"][0]})
    command = [sys.executable, "-B", "-c", textwrap.dedent(DAMAGED), str(source)]
    env = os.environ | {"TMPDIR": str(tmp_path / "missing")}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env, preexec_fn=nothing_to_write, timeout=900)
    assert done.stdout.startswith("bad corrupt (")


def test_more_complaints_than_a_pipe_holds_are_damage() -> None:
    """And the next image is judged by what is said of it alone."""
    heard, complaints = os.pipe2(os.O_NONBLOCK)
    try:
        with open(complaints, "wb", buffering=0) as said:
            while said.write(b"Corrupt JPEG data: bad Huffman code\n" * 100) is not None:
                pass
            assert _take(heard).startswith("Corrupt JPEG data: bad Huffman code\n")
            assert _take(heard) == ""
    finally:
        os.close(heard)


@pytest.mark.slow
def test_a_child_that_dies_in_its_answer_is_no_sound_image() -> None:
    with StrictDecoder(1) as decoder:
        child = decoder._children[0]
        child._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys; sys.stdin.buffer.read(24); sys.stdout.buffer.write(b'\\x05' + bytes(15))",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        child._proven = True
        assert decoder.problem(bad_images.jpeg()).startswith("the decoder died on it")
