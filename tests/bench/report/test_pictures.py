"""The report's pictures against the packed images."""

import base64
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bingo.bags.file import random_bags
from bingo.bench.report.curves import smooth
from bingo.bench.report.pictures import photograph, view_rows
from bingo.distributed import World
from bingo.images.open import open_dataset
from bingo.images.pack import pack_folder
from bingo.views.loader import augmenter, training_batches
from bingo.views.plan import Plan
from tests.support.recipe_folder import AUGMENT


def test_views_are_those_of_the_run(root: Path) -> None:
    """The pictures of views 1 and 2 equal the pixels that a distillation at batch 64 gets at its first step."""
    dataset = open_dataset(root / "train")
    plan = Plan(dataset.sizes, 64, AUGMENT, 3, views=(2, 1), bags=random_bags(len(dataset), 3, 0))
    device = torch.device("cpu")
    batch = next(training_batches(dataset, plan, World(0, 1, device, 1), start=0, stop=1))
    rows = view_rows(dataset, AUGMENT, 3, 5, 4)
    assert [len(row) for row in rows] == [5] * 5
    mean, std = (np.array(values) for values in (AUGMENT.mean, AUGMENT.std))
    for view in range(2):
        tensors = augmenter(AUGMENT, torch.float32)(batch.crops[0][view], batch.params(0, view))
        for i, row in enumerate(rows):
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(row[1 + view].uri.split(",")[1]))))
            expected = 255 * (tensors[i].permute(1, 2, 0).double().numpy() * std + mean)
            assert np.abs(pixels - expected).max() <= 0.51
    encoded = dataset.encoded(int(plan.permutation(0)[0])).tobytes()
    assert base64.b64decode(rows[0][0].uri.split(",")[1]) == encoded


def test_a_photograph_becomes_a_thumbnail_and_a_small_png_stays(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name, shape, file in (("a", (600, 800, 3), "big.jpg"), ("b", (12, 12, 3), "small.png")):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.fromarray(generator.integers(0, 256, shape, np.uint8)).save(tmp_path / "images" / name / file)
    pack_folder(tmp_path / "images", tmp_path / "packed")
    dataset = open_dataset(tmp_path / "packed")
    big, small = photograph(dataset, 0, "big"), photograph(dataset, 1, "small")
    assert Image.open(io.BytesIO(base64.b64decode(big.uri.split(",")[1]))).size == (96, 72)
    assert len(big.uri) < 20_000
    assert not big.pixelated
    assert small.uri.startswith("data:image/png;base64,")
    assert base64.b64decode(small.uri.split(",")[1]) == dataset.encoded(1).tobytes()
    assert small.pixelated


def test_smoothing_is_a_centred_mean() -> None:
    values = np.random.default_rng(1).normal(size=9)
    expected = [values[max(0, i - 1) : i + 2].mean() for i in range(9)]
    assert np.allclose(smooth(values, 3), expected)
    assert np.allclose(smooth(values, 1), values)
    assert np.allclose(smooth(np.ones(2), 50), 1)
