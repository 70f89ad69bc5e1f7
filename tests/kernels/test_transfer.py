"""A host array arrives on the device as it is."""

import numpy as np
import pytest

from bingo.kernels.transfer import to_device
from tests.support.naive import DEVICE


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_values_and_dtype_are_kept_whatever_the_strides(dtype: type) -> None:
    array = np.arange(24).reshape(4, 6).astype(dtype)
    for given in (array, array.T, array[::2, ::-1], array[:0]):
        there = to_device(given, DEVICE)
        assert there.device.type == DEVICE.type
        assert there.is_contiguous()
        back = there.cpu().numpy()
        assert back.dtype == dtype
        np.testing.assert_array_equal(back, given)
