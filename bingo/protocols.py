"""Protocols of linear evaluation and of fine-tuning, as data: rates, schedules, what becomes of features."""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Schedule:
    """Learning rates by epoch: from `lr` along a cosine to `min_lr`, or times `gamma` at every drop.

    drops: shares of the epochs as (a, b): after a / b of them, rounded down.
    """

    lr: float
    epochs: int
    min_lr: float | None = None
    drops: tuple[tuple[int, int], ...] = ()
    gamma: float = 0.1

    def at(self, epoch: int) -> float:
        """The learning rate of an epoch (0-based)."""
        if self.min_lr is not None:
            return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        return self.lr * self.gamma ** sum(0 < milestone <= epoch for milestone in self.milestones)

    @property
    def milestones(self) -> tuple[int, ...]:
        """The epochs that begin with a lower rate."""
        return tuple(self.epochs * a // b for a, b in self.drops)


@dataclass(frozen=True)
class Linear:
    """How a linear classifier is trained on a frozen network.

    augmented: on a new crop of each image in each epoch, otherwise on features that were computed once. standardise: on
    features of unit length, less their mean and by their deviation over the training images' centre crops.
    """

    schedule: Schedule
    weight_decay: float = 0.0
    augmented: bool = True
    standardise: bool = False

    def changed(self, lr: float | None, min_lr: float | None, epochs: int | None) -> "Linear":
        """The same with other rates or another length; None leaves what the protocol says."""
        given = {"lr": lr, "min_lr": min_lr, "epochs": epochs}
        changes = {name: value for name, value in given.items() if value is not None}
        return replace(self, schedule=replace(self.schedule, **changes))  # type: ignore[arg-type]


PROTOCOLS = {
    "cached": Linear(Schedule(30.0, 100, drops=((3, 5), (4, 5))), augmented=False),
    "release": Linear(Schedule(30.0, 120, min_lr=0.01)),
    "moco": Linear(Schedule(30.0, 100, drops=((3, 5), (4, 5)))),
    "simreg": Linear(Schedule(0.01, 40, drops=((3, 8), (3, 4))), weight_decay=1e-4, standardise=True),
}
"""Name -> what the published scripts do: BINGO's release (`main_lincls.py`, cosine, 120 epochs; EfficientNet: lr 3, min
0.001), MoCo (`main_lincls.py`), SimReg and CompRess (`eval_linear.py`). All use batches of 256 and no scaling of rates.
`cached` is our quick estimate: MoCo's optimiser on features of centre crops."""
FINETUNE_DROPS, FINETUNE_GAMMA = ((3, 5), (4, 5)), 0.2
"""Fine-tuning as in SwAV's `eval_semisup.py`: 20 epochs, rates times 0.2 after 12 and 16 of them."""
