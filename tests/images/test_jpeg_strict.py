"""The strict JPEG decoder: what it is for, and a process of it that dies or does not start."""

import io
from pathlib import Path

import pytest
from PIL import Image

from bingo.errors import UserError
from bingo.images.check import check_folder
from bingo.images.jpeg_strict import StrictDecoder
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
