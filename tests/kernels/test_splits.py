"""How the queue is cut into splits."""

import math

import pytest
import torch

from bingo.kernels import splits


@pytest.mark.parametrize("rows", [256, 768, 1536, 3072])
def test_splits_fill_the_last_wave_of_an_h200(rows: int) -> None:
    """132 multiprocessors, tiles of 128 rows: at most 4 % of the time of the blocks is lost."""
    per_split, count = splits.plan_splits(rows, 65536, 128, 132)
    waves = math.ceil(rows / 128 * count / 132)
    assert waves * per_split * 132 * 128 <= 1.04 * rows * 65536
    assert per_split * (count - 1) < 65536 <= per_split * count
    assert count * rows * 128 * 4 <= 9e6 * max(1, rows / 1536)  # bytes of partials


@pytest.mark.parametrize("keys", [1, 128, 129, 1000, 65536])
@pytest.mark.parametrize("parts", [1, 2, 3, 7, 1000])
def test_an_even_split_covers_the_queue_and_leaves_none_empty(keys: int, parts: int) -> None:
    per_split, count = splits.split_evenly(keys, parts)
    assert per_split % splits.SPLIT_KEYS == 0
    assert per_split * (count - 1) < keys <= per_split * count
    assert count <= parts


def test_channels_are_padded_to_a_power_of_two() -> None:
    assert [splits.pad_channels(c) for c in (1, 16, 17, 48, 128, 200)] == [1, 16, 32, 64, 128, 256]


@pytest.mark.parametrize("dtype", splits.FAST_LOGIT)
def test_many_keys_leave_less_room_for_a_plain_sum(dtype: torch.dtype) -> None:
    limit = splits.FAST_LOGIT[dtype]
    assert splits.is_fast(limit, 2**24, dtype)
    assert not splits.is_fast(limit + 0.1, 1, dtype)
    assert splits.is_fast(limit - 2, 2**26, dtype)
    assert not splits.is_fast(limit - 1, 2**26, dtype)
