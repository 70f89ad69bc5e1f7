"""How the queue is cut into splits, and when no running maximum is needed.

Rows of unit length bound the base-2 logits z = log2(e) / temperature * q . n by `scale` = log2(e) / temperature. While
that is at most `FAST_LOGIT`, a plain sum of 2^z neither overflows nor loses its largest terms, and the kernels keep no
running maximum. Rows of any other length are caught by `FAST_RANGE` afterwards.
Legend: R rows, K keys, C channels, S splits of the queue.
"""

import functools
import math

import torch

# Splits are whole multiples of this, so that every kernel's tile divides them.
SPLIT_KEYS = 128
# In fp32 a sum over 2^24 keys of 2^100 fits. In fp16 the weights themselves must neither overflow (2^16) nor fall among
# the denormals (2^-14).
FAST_LOGIT = {torch.float32: 100.0, torch.bfloat16: 100.0, torch.float16: 14.0}
# Where a split's partials are trusted: log2 of its mean weight at least the first (smaller weights were lost), log2 of
# its sum at most the second (in fp32 the sum of keys still has room for keys longer than one; in fp16 no weight passed
# the largest number).
FAST_RANGE = {torch.float32: (-60.0, 84.0), torch.bfloat16: (-60.0, 84.0), torch.float16: (-10.0, 15.9)}


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up; Triton's own is a compile-time function that takes microseconds on the host."""
    return -(-a // b)


def pad_channels(channels: int) -> int:
    """The next power of two, which a Triton tile needs."""
    return 1 << (channels - 1).bit_length()


def is_fast(scale: float, keys: int, dtype: torch.dtype) -> bool:
    """Whether logits of unit rows (at most `scale` in base 2) need no running maximum over `keys` keys."""
    return scale + max(0.0, math.log2(keys) - 24) <= FAST_LOGIT[dtype]


@functools.lru_cache
def plan_splits(rows: int, keys: int, row_tile: int, slots: int) -> tuple[int, int]:
    """(keys per split, splits) that keep `slots` concurrent blocks busiest; ties go to fewer splits.

    The time is waves of blocks times blocks of keys per split: at 132 multiprocessors this loses 1 to 3 %, where powers
    of two lose up to 27 %.
    """
    row_tiles = ceil_div(rows, row_tile)

    def time(splits: int) -> int:
        per_split, count = split_evenly(keys, splits)
        return ceil_div(row_tiles * count, slots) * per_split

    most = max(1, min(ceil_div(keys, SPLIT_KEYS), slots))
    return split_evenly(keys, min(range(1, most + 1), key=time))


def split_evenly(keys: int, splits: int) -> tuple[int, int]:
    """(keys per split, number of splits), none of them empty."""
    blocks = ceil_div(keys, SPLIT_KEYS)
    per_split = ceil_div(blocks, splits)
    return per_split * SPLIT_KEYS, ceil_div(blocks, per_split)
