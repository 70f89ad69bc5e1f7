"""The rivals of the loader benchmark: the same work as ours, right pixels, and a sentence where they are absent."""

import io
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bingo.bench.loader import rivals
from bingo.bench.loader.chains import AUGMENT
from bingo.bench.loader.images import picture
from bingo.bench.loader.rivals import RIVALS, InProcess, Rival, Tools
from bingo.bench.loader.variants import build, names, stages
from bingo.errors import UserError
from bingo.images.image_folder import ImageFolder

CPU = torch.device("cpu")


def encoded(height: int = 90, width: int = 120) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(np.random.default_rng(0), height, width)).save(file, "jpeg", quality=90)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    for number in range(6):
        path = tmp_path / "images" / "a" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded())
    return ImageFolder(tmp_path / "images")


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_gives_finished_views(name: str) -> None:
    try:
        tools = rivals.made(RIVALS[name])
    except UserError as error:
        pytest.skip(str(error))
    image = tools.decode(encoded())
    rivals.check_pixels(tools.decode, encoded())
    assert (tools.crop is None, tools.rest is None) == (RIVALS[name].stages < 2, RIVALS[name].stages < 3)
    if tools.crop:
        crop = tools.crop(image)
        shape = crop.size if isinstance(crop, Image.Image) else tuple(crop.shape)
        assert tuple(n for n in shape if n != 3) == (AUGMENT.size, AUGMENT.size)
        view = tools.rest(crop) if tools.rest else torch.zeros(3, AUGMENT.size, AUGMENT.size)
        assert (view.shape, view.dtype) == ((3, AUGMENT.size, AUGMENT.size), torch.float32)
        assert view.abs().max() < 3


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_every_image_is_decoded_once_for_two_views(folder: ImageFolder, stage: int, threads: int) -> None:
    done = Counter[str]()

    def crop(image: Any) -> Any:
        done["crop"] += 1
        return image

    def rest(image: Any) -> torch.Tensor:
        done["rest"] += 1
        return torch.zeros(1)

    def decode(file: bytes) -> Any:
        done["decode"] += 1
        return np.array(Image.open(io.BytesIO(file)).convert("RGB"))

    variant = InProcess(Rival(lambda: Tools(decode, crop, rest), 3, "", ""), folder, stage, 2, threads)
    done.clear()  # of the check of its pixels
    variant.burst(0, 3)
    variant.close()
    assert done == Counter({"decode": 6, **({"crop": 12} if stage > 0 else {}), **({"rest": 12} if stage > 1 else {})})


def test_a_decoder_that_saves_work_is_refused() -> None:
    def half(file: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))[::2, ::2]

    with pytest.raises(UserError, match="are not PIL's"):
        rivals.check_pixels(half, encoded())


def test_random_boxes_lie_within_the_image() -> None:
    random.seed(0)
    for height, width in ((90, 120), (8, 300)):
        for _ in range(200):
            top, left, h, w = rivals.random_box(height, width)
            assert 0 <= top <= top + h <= height
            assert 0 <= left <= left + w <= width


def test_who_is_absent_says_how_to_get_it(folder: ImageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(rivals, "import_module", absent)
    for name in RIVALS:
        assert stages(name) == ("decode", "crop", "augment")[: RIVALS[name].stages]
    assert set(RIVALS) < set(names())
    with pytest.raises(UserError, match="pip install opencv"):
        build("opencv", "crop", folder.path, folder.path, batch=2, threads=1, device=CPU)
