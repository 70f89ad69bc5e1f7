"""Inputs of `bag_loss`, drawn from a seed."""

import torch
from torch import Tensor

from tests.support.naive import DEVICE, unit_rows


def draw(views: int, images: int, positives: int, slots: int, channels: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Raw queries of various lengths, unit keys, weights, a unit queue."""
    generator = torch.Generator().manual_seed(views * 1000 + images)
    rows = views * images
    lengths = 0.5 + 3 * torch.rand(rows, 1, generator=generator, dtype=torch.float64).to(DEVICE)
    return {
        "q": (lengths * unit_rows(rows, channels, 0)).to(dtype),
        "keys": unit_rows(images * positives, channels, 1, dtype).view(images, positives, channels),
        "weights": torch.rand(views, positives, generator=generator).to(
            DEVICE, torch.promote_types(dtype, torch.float32)
        ),
        "queue": unit_rows(slots, channels, 2, dtype),
    }
