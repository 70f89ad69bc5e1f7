"""One rank of a run that is interrupted and goes on with other ranks; a program.

python -m tests.support.elastic DIGITS TEACHER BAGS OUT KINDS whole|cut

It runs the stages below OUT one after the other. With "whole" to their ends; with "cut" it is asked to leave the first
ones in the middle of an epoch, and dies in the middle of the last one.
"""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from bingo.config import DistillConfig, PretrainConfig
from bingo.config_parts import Augmentation, Contrast, Optimiser, Runtime
from bingo.distributed import world
from bingo.objectives import OBJECTIVES
from bingo.stages import Stage, run_stage
from bingo.watch import Leaving, Watch

EPOCHS, PER_EPOCH, LEFT, SAVED, KILLED = 2, 11, 13, 16, 18


def stage(kind: str, digits: Path, teacher: Path, bags: Path, out: Path) -> Stage:
    """A training with hidden layers wide enough for gradients to be summed in several pieces."""
    shared: dict[str, Any] = {
        "data": digits / "train",
        "out": out / kind,
        "contrast": Contrast(dim=16, hidden=512, queue=100),
        "augment": Augmentation(size=16),
        "optim": Optimiser(epochs=EPOCHS, batch=96, lr=1.0),
        "runtime": Runtime(device="cpu", threads=1, checkpoint_every=8, log_every=4),
    }
    if kind == "pretrain":
        return Stage(kind, "pretrain", PretrainConfig(**shared, model="tiny", key_momentum=0.9))
    if kind == "shuffle":
        return Stage(kind, "pretrain", PretrainConfig(**shared, model="tiny", key_momentum=0.9, key_bn="shuffle"))
    if kind == "batch":
        shared["teacher_bn"] = "batch"
    name, _, cached = kind.partition("@")
    if name in OBJECTIVES:  # NAME@keys: with cached keys. Their losses are of other sizes, and one has a queue to fill.
        shared |= {"objective": name, "student_ema": 0.9, "optim": Optimiser(epochs=EPOCHS, batch=96, lr=0.02)}
        cached = cached or "teacher"
    source = {"keys": bags.parent / "keys"} if "keys" in (kind, cached) else {"teacher": teacher}
    return Stage(kind, "distill", DistillConfig(**shared, **source, bags=bags, student="tiny", warm_epochs=1))


class Cut(Watch):
    """Asks to leave at step LEFT, or kills this process at step KILLED."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank, self.kill = rank, False

    def beat(self, step: int) -> None:
        if self.kill and step == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        if not self.kill and step == LEFT and self.rank == 0:
            self.asked = "SIGUSR2"


def run(digits: Path, teacher: Path, bags: Path, out: Path, kinds: list[str], cut: bool) -> None:
    watch = Cut(int(os.environ["RANK"])) if cut else Watch()
    with world(Runtime(device="cpu", threads=1), watch) as peers:
        for kind in kinds:
            if isinstance(watch, Cut):
                watch.asked, watch.kill = None, kind == kinds[-1]
            try:
                run_stage(stage(kind, digits, teacher, bags, out), world=peers)
            except Leaving as leaving:
                print(leaving)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    digits, teacher, bags, out, kinds, cut = sys.argv[1:]
    run(Path(digits), Path(teacher), Path(bags), Path(out), kinds.split(), cut == "cut")
