"""Queue-softmax, augmentation and nearest-row kernels. A leaf: torch and triton only."""

from bingo.kernels.augment import augment, cutmix
from bingo.kernels.bag_loss import bag_loss
from bingo.kernels.dispatch import resolve_impl
from bingo.kernels.knn import nearest
from bingo.kernels.queue_softmax import queue_logsumexp, queue_ranks, queue_softmax
from bingo.kernels.ring import NewKeys
from bingo.kernels.view_params import ViewParams

__all__ = [
    "NewKeys",
    "ViewParams",
    "augment",
    "bag_loss",
    "cutmix",
    "nearest",
    "queue_logsumexp",
    "queue_ranks",
    "queue_softmax",
    "resolve_impl",
]
