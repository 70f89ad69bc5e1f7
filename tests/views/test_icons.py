"""Real colour images with alpha, Debian's Tango icons: packed, seen as torchvision sees them, in bags by colour."""

import io
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from PIL import Image

from bingo.bags.file import load_bags
from bingo.config_parts import Augmentation
from bingo.distributed import World
from bingo.errors import UserError
from bingo.images.dataset import Dataset
from bingo.images.pack import pack_folder
from bingo.views.loader import augmenter, training_batches
from bingo.views.plan import Plan
from tests.support.inputs import make_bags, make_teacher
from tests.support.views import torchvision_blur, torchvision_jitter

ICONS = Path("/usr/share/icons/Tango/32x32")
CONFIG = Augmentation(size=32, hue=0.5, saturation=0.8, jitter_p=1.0, grey_p=0.3)  # colours far more than usual
WORLD = World(0, 1, torch.device("cpu"), 1)

pytestmark = pytest.mark.skipif(not ICONS.is_dir(), reason="Debian's package tango-icon-theme is not installed")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every icon that is a file of its own (others are links to it), in folders by topic."""
    root = tmp_path_factory.mktemp("icons") / "images"
    for path in sorted(ICONS.glob("*/*.png")):
        if not path.is_symlink():
            (root / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / path.parent.name)
    return root


@pytest.fixture(scope="module")
def packed(source: Path) -> Dataset:
    return pack_folder(source, source.parent / "train", convert=True, workers=1)


def pixels(packed: Dataset, index: int) -> npt.NDArray[np.uint8]:
    """What is stored, decoded."""
    with Image.open(io.BytesIO(packed.encoded(index).tobytes())) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def test_alpha_needs_convert(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="convert"):
        pack_folder(source, tmp_path / "packed", workers=1)


def test_alpha_is_dropped_and_every_colour_kept(source: Path, packed: Dataset) -> None:
    """Below transparent pixels too: what is there is shown, as documented in `bingo.images.check`."""
    hidden = 0
    assert len(packed) == len(list(source.glob("*/*.png"))) > 200
    for i, name in enumerate(packed.paths):
        with Image.open(source / name) as icon:
            assert icon.format == "PNG"
            rgba = np.asarray(icon.convert("RGBA"))
        stored = pixels(packed, i)
        assert np.array_equal(stored, rgba[..., :3])
        hidden += int(((rgba[..., 3] == 0) & rgba[..., :3].any(-1)).sum())
    print(f"{hidden} transparent pixels have a colour")


def test_views_of_icons_are_torchvisions(packed: Dataset) -> None:
    """Jitter of hue and saturation on saturated colours, and grey: within what docs/fidelity.md allows."""
    plan = Plan(packed.sizes, len(packed), CONFIG, seed=3, views=(2,))
    (step,) = training_batches(packed, plan, WORLD, start=0, stop=1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CONFIG.mean, CONFIG.std))
    for v, crops in enumerate(step.crops[0]):
        params = step.params(0, v)
        ours = ((augmenter(CONFIG, torch.float32)(crops, params) * std + mean) * 255).round()
        colourful = (crops.float().amax(-1) - crops.float().amin(-1)).mean((1, 2)) > 20
        assert colourful.sum() > len(packed) // 3, "these are colour images"
        expected = []
        for i, crop in enumerate(crops):
            image = torchvision_jitter(crop.permute(2, 0, 1), params, i)
            image = TF.rgb_to_grayscale(image, num_output_channels=3) if params.grey[i] else image
            image = torchvision_blur(image, float(params.blur_sigma[i]), CONFIG.blur_kernel)
            expected.append(TF.horizontal_flip(image) if params.flip[i] else image)
        difference = (ours - torch.stack(expected).float()).abs()
        assert (difference == 0).float().mean() >= 0.999
        assert difference.mean() < 0.01
        grey = torch.from_numpy(params.grey)
        spread = (ours.amax(1) - ours.amin(1)).mean((1, 2))
        assert spread[grey].max() <= 1
        assert spread[~grey & colourful].median() > 10


def test_bags_of_a_network_that_sees_colour_are_alike_in_colour(packed: Dataset, tmp_path: Path) -> None:
    """No training: average pooling of random convolutions keeps mean colours, so neighbours have near ones."""
    root = packed.path.parent
    make_teacher(tmp_path / "model.pt")
    bags = make_bags(tmp_path, root, tmp_path / "model.pt")
    members = load_bags(bags / "bags.npz", dataset_hash=packed.hash, teacher_hash=None).members
    colours = np.stack([pixels(packed, i).mean((0, 1)) for i in range(len(packed))])
    near = np.linalg.norm(colours[:, None] - colours[members], axis=-1).mean()
    by_chance = np.linalg.norm(colours[:, None] - colours[None], axis=-1).mean()
    assert near < 0.5 * by_chance
