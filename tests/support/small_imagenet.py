"""The ImageNet chain of a recipe, with its own wiring, on a dozen images of 32 pixels; other settings as they are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bingo.config import DistillConfig
from bingo.config_parts import Augmentation
from bingo.protocols import PROTOCOLS
from bingo.recipes.chains import distillation


def submitted_here(recipe: str, root: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write the images below `root`; the words of `bingo submit` that run the chain in this process, in `root/out`."""
    for at in range(18):
        path = root / "images" / ("train" if at < 12 else "val") / f"class{at % 2}" / f"{at}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((48, 48), 20 + 8 * at).convert("RGB").save(path)

    def small(*words: Any) -> DistillConfig:
        config = distillation(*words)
        contrast = replace(config.contrast, dim=16, hidden=32, queue=8)
        return replace(config, contrast=contrast, optim=replace(config.optim, batch=4), augment=Augmentation(size=32))

    monkeypatch.setattr("bingo.recipes.chains.distillation", small)
    monkeypatch.setitem(PROTOCOLS, "release", PROTOCOLS["release"].changed(None, None, 2))  # 120 epochs take minutes
    words = ["--images", root / "images", "--teacher", teacher, "--out", root / "out", "--epochs", "1"]
    return ["submit", recipe, "--cluster", "debug", "--device", "cpu", *map(str, words)]
