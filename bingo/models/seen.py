"""How networks of others see images, where their kind says so: pixels per side, mean and standard deviation."""

from pathlib import Path

from bingo.config_parts import Augmentation
from bingo.models.layouts import read_layout
from bingo.models.library import seen_in_library
from bingo.paths import library_name
from bingo.torch_files import read_network

LITE = "timm:tf_efficientnet_lite"
LITE_SIZES = {"0": 224, "1": 240, "2": 260, "3": 280, "4": 300}
LITE_MEAN, LITE_STD = 127 / 255, 128 / 255
"""EfficientNet-Lite takes pixels less 127, by 128."""


def seen(path: Path) -> Augmentation | None:
    """Of `timm:NAME` and `torchvision:NAME` what the library says; of files what their kind says; None: as usual.

    `UserError`: as for `load_encoder`.
    """
    if name := library_name(path):
        return seen_in_library(name)
    saved = read_network(path, "")
    if isinstance(saved, dict) and str(saved.get("format", "")).startswith("bingo-"):
        return None
    network = read_layout(saved, path, "").network
    if not network.startswith(LITE):
        return None
    size = LITE_SIZES[network.removeprefix(LITE)]
    return Augmentation(size=size, mean=(LITE_MEAN,) * 3, std=(LITE_STD,) * 3)
