"""Trained-looking networks to export, real photographs, and detectron2's ResNet by its documented names."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from bingo.config import PretrainConfig
from bingo.config_json import to_json
from bingo.config_parts import Augmentation
from bingo.files import write_json
from bingo.models import Encoder, save_encoder, seeded_encoder

NAMES = [f"class {i}" for i in range(10)]


def photographs() -> list[Image.Image]:
    """scikit-learn's two, 640 x 427 pixels."""
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(image) for image in load_sample_images().images]


def real_images(size: int, count: int = 6) -> Tensor:
    """count x 3 x size x size float32: normalised pieces of the photographs."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    pieces = []
    for i in range(count):
        piece = photographs()[i % 2].crop((40 * i, 20 * i, 40 * i + 200, 20 * i + 200)).resize((size, size))
        pieces.append(torch.from_numpy(np.array(piece)).permute(2, 0, 1).float() / 255)
    return (torch.stack(pieces) - mean) / std


def settled_encoder(name: str, size: int) -> Encoder:
    """An encoder whose batch norms know real images: without that a deep network of random weights answers nothing."""
    encoder = seeded_encoder(name, dim=8, hidden=16, seed=0).eval()
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        encoder.backbone(real_images(size))
    return encoder.eval()


def run_folder(root: Path, encoder: Encoder, size: int) -> Path:
    """A trained model with the settings of its training beside it."""
    save_encoder(root / "model.pt", encoder)
    settings = PretrainConfig(data=Path("d"), out=root, model=encoder.name, augment=Augmentation(size=size))
    write_json(root / "config.json", {"kind": "pretrain", **to_json(settings)})
    return root


def evaluation_folder(root: Path, encoder: Encoder) -> Path:
    """A linear classifier of ten classes with random weights, whose logits are of the size of trained ones."""
    draw = torch.Generator().manual_seed(3)
    weight, bias = torch.randn(10, encoder.feature_dim, generator=draw), torch.randn(10, generator=draw)
    root.mkdir()
    weight *= 1.5 / answers(encoder.features, real_images(64)).norm(dim=1).mean()
    torch.save({"weight": weight, "bias": bias, "classes": NAMES}, root / "linear.pt")
    return root


class Conv(nn.Conv2d):
    """detectron2's `Conv2d`: its batch norm is a child called `norm`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


class Block(nn.Module):
    """A residual block: two 3 x 3 convolutions, or 1 x 1, 3 x 3 (with the stride) and 1 x 1."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, deep: bool) -> None:
        super().__init__()
        self.shortcut = Conv(inputs, outputs, 1, stride) if inputs != outputs else None
        self.conv1 = Conv(inputs, inner, 1) if deep else Conv(inputs, outputs, 3, stride)
        self.conv2 = Conv(inner, inner, 3, stride) if deep else Conv(outputs, outputs, 3)
        self.conv3 = Conv(inner, outputs, 1) if deep else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(F.relu(self.conv1(x)))
        out = self.conv3(F.relu(out)) if self.conv3 else out
        return F.relu(out + (self.shortcut(x) if self.shortcut else x))


class DetectronResNet(nn.Module):
    """The backbone of detectron2's `modeling/backbone/resnet.py` (STRIDE_IN_1X1 off): its names, its order."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}[depth]
        self.stem = nn.Module()
        self.stem.conv1 = Conv(3, 64, 7, 2)
        inputs = 64
        for i, count in enumerate(blocks):
            inner, outputs = 64 << i, (256 if depth == 50 else 64) << i
            stage = [Block(inputs, inner, outputs, 1 + (i > 0), depth == 50)]
            stage += [Block(outputs, inner, outputs, 1, depth == 50) for _ in range(count - 1)]
            self.add_module(f"res{i + 2}", nn.Sequential(*stage))
            inputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        """B x 3 x H x W -> B x channels, pooled."""
        x = F.max_pool2d(F.relu(self.stem.conv1(x)), 3, 2, 1)
        for stage in range(2, 6):
            x = self.get_submodule(f"res{stage}")(x)
        return x.mean((2, 3))


def answers(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(images)
