"""Transfer: a linear classifier on frozen features of another dataset, its penalty chosen on held-out training images.

As published for CIFAR and the like (Kornblith et al. 2019; BYOL): multinomial logistic regression by L-BFGS on centre
crops, without augmentation. The validation images are looked at once, with the penalty that is already chosen.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.errors import UserError
from bingo.evaluate.accuracy import LinearProbe, linear_probe

PROTOCOL = "transfer: L-BFGS on centre crops, penalty by held-out training images"
STREAM = 0x7472616E73666572  # second Philox key word of the held-out draw

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Transfer:
    """The classifier fitted on all training features, and how it was chosen.

    per_class: mean over the classes of the share of their validation images that is right; penalty: the chosen one;
    held_out: penalty -> accuracy on the held-out images, in the order given.
    """

    probe: LinearProbe
    per_class: float
    penalty: float
    held_out: dict[float, float]


def transfer_probe(
    train_x: Tensor,
    train_y: Tensor,
    val_x: Tensor,
    val_y: Tensor,
    *,
    classes: int,
    penalties: Sequence[float],
    holdout: float,
    seed: int,
) -> Transfer:
    """Fit with each penalty on a part of the training features, judge on the rest, fit the best on all of them.

    The fit minimises the mean cross-entropy + penalty/2 · |weight|², bias free, on features as they are (N×D floating
    and labels N, as for `linear_probe`). Of equally good penalties the largest is taken.
    `UserError`: as `linear_probe`, and where nothing can be held out (`held_out`).
    """
    aside = torch.from_numpy(held_out(train_y.cpu().numpy(), classes=classes, share=holdout, seed=seed)).to(
        train_x.device
    )
    part = train_x[~aside], train_y[~aside], train_x[aside], train_y[aside]
    found = {penalty: linear_probe(*part, classes=classes, l2=penalty * len(part[0])).top1 for penalty in penalties}
    best = max(found, key=lambda penalty: (found[penalty], penalty))
    if len(found) > 1 and best in (min(found), max(found)):
        log.warning(
            "transfer: the best penalty on held-out images, %g, is at the end of --transfer-l2 %s: a better one may lie"
            " outside", best, ",".join(f"{penalty:g}" for penalty in found),
        )  # fmt: skip
    probe = linear_probe(train_x, train_y, val_x, val_y, classes=classes, l2=best * len(train_x))
    return Transfer(probe, per_class_accuracy(probe, val_x, val_y), best, found)


def held_out(labels: np.ndarray, *, classes: int, share: float, seed: int) -> np.ndarray:
    """Which of N training images are held out (N bool): that share of each class, at least one image stays in each.

    A pure function of its arguments. `UserError` where no class has an image to spare.
    """
    philox = np.random.Philox(key=np.array([seed, STREAM], np.uint64))
    order = np.lexsort((np.random.Generator(philox).random(len(labels)), labels))
    counts = np.bincount(labels, minlength=classes)
    taken = np.minimum(np.rint(share * counts).astype(np.int64), np.maximum(counts - 1, 0))
    if not taken.any():
        raise UserError(
            f"--holdout {share} of {len(labels)} training images in {classes} classes leaves none to choose the "
            "penalty on; raise --holdout, or give more images"
        )
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    aside = np.zeros(len(labels), bool)
    aside[order[place < np.repeat(taken, counts)]] = True
    return aside


def per_class_accuracy(probe: LinearProbe, x: Tensor, y: Tensor) -> float:
    """Mean over the classes that occur in y (N) of the share of their rows of x (N×D) that the probe gets right."""
    right = F.linear(x.float(), probe.weight, probe.bias).argmax(1) == y
    counts = torch.bincount(y, minlength=len(probe.weight)).double()
    hits = torch.bincount(y[right], minlength=len(probe.weight)).double()
    return float((hits / counts)[counts > 0].mean())
