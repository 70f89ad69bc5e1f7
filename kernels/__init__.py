"""Queue-softmax and augmentation kernels. A leaf: torch and triton only."""

from bingo.kernels.queue_softmax import queue_softmax, resolve_impl

__all__ = ["queue_softmax", "resolve_impl"]
