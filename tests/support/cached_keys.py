"""A small cache of keys: its config, and where it is made."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bingo.config import KeysConfig
from bingo.config_parts import Augmentation, Runtime
from bingo.distributed import World

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU, 1)
VIEWS = 3
SMALL = Augmentation(size=16)


def keys_config(digits: Path, teacher: Path, out: Path, **changes: Any) -> KeysConfig:
    config = KeysConfig(data=digits / "train", teacher=teacher, out=out, views=VIEWS, augment=SMALL, batch=100)
    return replace(config, runtime=Runtime(threads=1), **changes)
