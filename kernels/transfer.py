"""Small arrays from the host to a device, without waiting for it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray, device: torch.device) -> Tensor:
    """Copy a small host array without waiting for the device (pinned memory, asynchronous)."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
