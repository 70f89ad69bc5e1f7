"""What images a network is evaluated on, as JSON."""

from typing import Any

from bingo.config_parts import Augmentation


def input_of(augment: Augmentation) -> dict[str, Any]:
    """RGB from 0 to 1, the shorter side resized to `resize` pixels, the central `size` x `size` of it, less `mean`, by
    `std`."""
    return {
        "size": augment.size, "resize": augment.eval_resize, "crop": "centre", "interpolation": "bilinear, antialiased",
        "mean": list(augment.mean), "std": list(augment.std),
    }  # fmt: skip
