"""Writes a step's new keys into the queue, a ring buffer: what `bag_loss` does once it has read it."""

from typing import NamedTuple

import torch
from torch import Tensor


class NewKeys(NamedTuple):
    """What a step writes into the ring buffer `queue` (and `queue_ids`) once the queue has been read.

    keys: (N, C); of more than K rows the last K stay. cursor: int64 (2), the next slot and a count that is 0 between
    launches; both are advanced on the device, so a captured step moves on at every replay. ids: int64 (N), or None.
    """

    keys: Tensor
    cursor: Tensor
    ids: Tensor | None = None


@torch.no_grad()  # keys that want a gradient must not make the queue want one
def write_keys(queue_KC: Tensor, queue_ids_K: Tensor | None, new: NewKeys) -> None:
    """Write the new keys in PyTorch, without waiting for the device; triton_combine.py does the same in the loss."""
    slots = len(queue_KC)
    skipped = max(0, len(new.keys) - slots)
    offsets = torch.arange(skipped, len(new.keys), device=queue_KC.device)
    where = (new.cursor[0] + offsets) % slots
    queue_KC.index_copy_(0, where, new.keys[skipped:].to(queue_KC.dtype))
    if queue_ids_K is not None and new.ids is not None:
        queue_ids_K.index_copy_(0, where, new.ids[skipped:])
    new.cursor[0].add_(len(new.keys)).remainder_(slots)
