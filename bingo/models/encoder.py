"""Encoders: a classifier without its last layer, and a projection head; their seeds, hashes and files."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bingo.config_parts import Engine
from bingo.files import new_hash, write_torch
from bingo.models.architectures import build_classifier, canonical, split_classifier
from bingo.models.heads import Head, mlp

FORMAT = "bingo-model-1"
FORMAT_HEADS = "bingo-model-2"
"""Of a network whose head is not Linear-ReLU-Linear: the head's form and widths are in the file."""


class Encoder(nn.Module):
    """Backbone and projection head, Linear-ReLU-Linear unless told; the forward pass gives unit rows.

    head: another head, or `Head()` for none: then the pooled features are projected by nothing.
    """

    def __init__(self, name: str, *, dim: int = 128, hidden: int = 2048, head: Head | None = None) -> None:
        super().__init__()
        self.name, self.form = canonical(name), mlp(hidden, dim) if head is None else head
        self.backbone = build_classifier(name)
        self.classifier_name, self.feature_dim = split_classifier(self.backbone, name)
        self.head = self.form.build(self.feature_dim)
        self.dim = self.form.widths[-1] if self.form.widths else self.feature_dim
        self.hidden = self.form.widths[0] if len(self.form.widths) > 1 else 0
        self.engine: Engine = "plain"  # see `frozen_engine`

    def forward(self, images: torch.Tensor, *, lengths: bool = False) -> torch.Tensor:
        """B x 3 x H x W -> B x dim float32 rows of unit length; lengths: of those that the head gives them."""
        rows = self.project(images)
        return rows if lengths else F.normalize(rows, dim=1)

    def project(self, images: torch.Tensor) -> torch.Tensor:
        """B x 3 x H x W -> B x dim float32 rows as the head gives them: the loss normalises on its way."""
        return self.head(self.backbone(images)).float()

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """B x 3 x H x W -> B x feature_dim float32, pooled, before the head."""
        return self.backbone(images).float()


def seeded_encoder(name: str, *, dim: int, hidden: int, seed: int, layers: int = 2) -> Encoder:
    """An encoder whose initial weights are a function of the seed alone; layers: of its head, see `mlp`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(name, head=mlp(hidden, dim, layers))


def state_hash(state: dict[str, torch.Tensor]) -> str:
    """Content hash of weights: names, shapes, dtypes and bytes, independent of the file they came in."""
    digest = new_hash()
    for name, tensor in sorted(state.items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_encoder(path: Path, encoder: Encoder, *, content: str | None = None) -> str:
    """Write backbone and head atomically; returns the content hash of the weights.

    content: the hash of the network that this one was made of by another head: features and bags of that one are
    those of this one, so `load_encoder` gives this hash in place of its own.
    """
    state = {name: tensor.detach().cpu() for name, tensor in encoder.state_dict().items()}
    if content is None and encoder.form.form == "LRL":
        header: dict[str, Any] = {
            "format": FORMAT, "model": encoder.name, "dim": encoder.dim, "hidden": encoder.hidden
        }  # fmt: skip
    else:
        form = {"head": encoder.form.form, "widths": list(encoder.form.widths)}
        header = {"format": FORMAT_HEADS, "model": encoder.name, **form, "content": content or state_hash(state)}
    write_torch(path, {**header, "state_dict": state})
    return content or state_hash(state)
