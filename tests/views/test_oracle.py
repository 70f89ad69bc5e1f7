"""Real files through pack, plan, loader and chain against torchvision's operations on the same crops, one by one."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from PIL import Image
from torch import Tensor

from bingo.config_parts import Augmentation
from bingo.distributed import World
from bingo.images.pack import pack_folder
from bingo.kernels.augment import augment
from bingo.kernels.view_params import ViewParams
from bingo.views.loader import Batch, augmenter, evaluation_batches, training_batches
from bingo.views.plan import Plan
from tests.support.bad_images import encode, picture
from tests.support.views import torchvision_blur, torchvision_jitter

IMAGES = 96
CONFIG = Augmentation(size=96)  # large enough for a blur in bands
SHAPES = ((8, 8), (20, 2000), (2000, 20), (300, 400), (97, 131), (33, 500))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """Two views of every image, in one step: noise over smooth colours, every fifth image grey, both chroma formats."""
    root, rng = tmp_path_factory.mktemp("oracle"), np.random.default_rng(0)
    (root / "images" / "one").mkdir(parents=True)
    for i in range(IMAGES):
        height, width = SHAPES[i % len(SHAPES)]
        noisy = np.asarray(picture(i, height, width)) + rng.normal(0, 12, (height, width, 3))
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        image = image.convert("L") if i % 5 == 0 else image
        data = encode(image, quality=60 + i % 40, subsampling=("4:4:4", "4:2:0")[i // len(SHAPES) % 2])
        (root / "images" / "one" / f"{i:03}.jpg").write_bytes(data)
    dataset = pack_folder(root / "images", root / "packed", workers=1)
    plan = Plan(dataset.sizes, IMAGES, CONFIG, seed=7, views=(2,))
    (step,) = training_batches(dataset, plan, World(0, 1, CPU, 1), start=0, stop=1)
    return step


def torchvisions(crop: Tensor, params: ViewParams, i: int) -> Tensor:
    """(3, H, W) uint8."""
    image = torchvision_jitter(crop.permute(2, 0, 1), params, i)
    image = TF.rgb_to_grayscale(image, num_output_channels=3) if params.grey[i] else image
    image = torchvision_blur(image, float(params.blur_sigma[i]), CONFIG.blur_kernel)
    return TF.horizontal_flip(image) if params.flip[i] else image


def to_levels(views: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CONFIG.mean, CONFIG.std))
    return ((views * std + mean) * 255).round()


@pytest.mark.slow
def test_views_of_real_files_are_torchvisions(batch: Batch) -> None:
    crops, shares = batch.crops[0], []
    assert [len(crop) for crop in crops] == [IMAGES, IMAGES]
    for v, crop in enumerate(crops):
        params = batch.params(0, v)
        expected = torch.stack([torchvisions(image, params, i) for i, image in enumerate(crop)])
        ours = to_levels(augmenter(CONFIG, torch.float32)(crop, params))
        assert not torch.equal(expected, crop.permute(0, 3, 1, 2))
        shares.append((ours == expected.float()).float().mean().item())
        assert (ours - expected.float()).abs().mean() < 0.01
    print(f"identical pixels: {', '.join(f'{share:.5%}' for share in shares)}")
    assert min(shares) >= 0.999


def test_evaluation_crops_of_photographs_are_torchvisions(tmp_path: Path) -> None:
    """scikit-learn's two photographs in shapes whose offsets fall between pixels: Resize(256), CenterCrop(224)."""
    datasets = pytest.importorskip("sklearn.datasets")
    shapes = ((427, 640), (375, 500), (256, 257), (257, 256), (400, 225), (300, 300))
    (tmp_path / "images" / "one").mkdir(parents=True)
    expected = []
    for i, (height, width) in enumerate(shapes):
        picture = datasets.load_sample_image(("china.jpg", "flower.jpg")[i % 2])[:height, :width]
        assert picture.shape == (height, width, 3)
        Image.fromarray(picture).save(tmp_path / "images" / "one" / f"{i}.png")
        resized = TF.resize(torch.from_numpy(picture.copy()).permute(2, 0, 1), 256)
        expected.append(TF.center_crop(resized, 224))
    dataset, whole = pack_folder(tmp_path / "images", tmp_path / "packed", workers=1), Augmentation()
    (found,) = evaluation_batches(dataset, whole, [np.arange(len(shapes))], device=CPU, threads=1)
    differences = (to_levels(found) - torch.stack(expected)).abs()
    assert differences.max() <= 1
    assert differences.mean(dim=(1, 2, 3)).max() < 0.25, "roundings between the two passes of the resize"


@pytest.mark.slow
@pytest.mark.usefixtures("gpu")
def test_the_kernels_agree_on_real_files(batch: Batch) -> None:
    """A few of the views through the Triton kernels too."""
    some = slice(0, 4)
    crop, params = batch.crops[0][0][some], batch.params(0, 0)[some]
    run = {"mean": CONFIG.mean, "std": CONFIG.std, "blur_kernel": CONFIG.blur_kernel}
    found, expected = (to_levels(augment(crop, params, impl=impl, **run)) for impl in ("triton", "reference"))
    share = (found == expected).float().mean().item()
    print(f"identical to the reference: {share:.5%}")
    assert share >= 0.999
