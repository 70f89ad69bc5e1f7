"""Small arrays from the host to a device, without waiting for it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray, device: torch.device) -> Tensor:
    """Copy a small host array without waiting for the device (pinned memory, asynchronous).

    RuntimeError while a CUDA graph is captured: it would read the array's memory again at every replay.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cpu":
        return tensor
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("a captured step copies an array from the host; such arrays go through its buffers")
    return tensor.pin_memory().to(device, non_blocking=True)
