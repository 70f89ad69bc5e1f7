"""Whether this machine has a GPU, asked without torch."""

import contextlib
import ctypes


def gpu_count() -> int:
    """How many GPUs CUDA's driver shows to this process."""
    count = ctypes.c_int(0)
    with contextlib.suppress(OSError):
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuInit(0) == 0:
            driver.cuDeviceGetCount(ctypes.byref(count))
    return count.value
