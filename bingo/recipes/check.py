"""`bingo recipes check`: a card's whole chain on eight images of 28 pixels, with a generated teacher.

The student, its head, the loss and every stage are the card's; what is small is in `SMALL`. Two steps are trained.
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bingo.config_flags import build as config_of
from bingo.config_flags import values_of
from bingo.errors import UserError
from bingo.kinds import KINDS
from bingo.recipes import build
from bingo.recipes.cards import CARDS, Card
from bingo.recipes.generated import write_teacher
from bingo.recipes.given import sentence
from bingo.recipes.teachers import TEACHERS
from bingo.stages import Stage, run_stage

SIDE = 28
"""Pixels: two patches of a vision transformer's fourteen."""
SPLITS = {"train": 8, "val": 4}
"""Split -> images, in two classes."""
STEPS = 2
HERE = {"augment.size": SIDE, "runtime.device": "cpu", "runtime.threads": 1, "batch": 4}
TRAINED = {"optim.epochs": 1, "optim.batch": SPLITS["train"] // STEPS, "contrast.queue": 4, "optim.warmup_epochs": 0.0}
SMALL: dict[str, dict[str, Any]] = {
    "pretrain": TRAINED,
    "distill": TRAINED | {"warm_epochs": 0},
    "teacher": {"dim": 4},
    "keys": {"views": 2},
    "eval": {"linear_epochs": 1, "linear_batch": 4, "k": (2,), "finetune.fraction": 0.5, "finetune.epochs": 1,
             "finetune.batch": 2},
}  # fmt: skip
"""Kind of stage -> what is small there. The loss counts bags from the first step on."""


@dataclass(frozen=True)
class Checked:
    """What became of a card: figures of the training and of the evaluation, or why it failed."""

    name: str
    cpu_s: float
    figures: Mapping[str, float]
    error: str = ""

    def __str__(self) -> str:
        if self.error:
            return f"{self.name:24s} FAILED  {self.error}"
        told = "  ".join(f"{name} {value:.3g}" for name, value in self.figures.items())
        return f"{self.name:24s} ok  {self.cpu_s:.1f} CPU s  {told}"


def check(name: str) -> Checked:
    """Build the card's chain and run it in this process, in a folder that is removed afterwards."""
    began = time.process_time()
    with tempfile.TemporaryDirectory(prefix="bingo-recipe-") as folder:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # what stages print
                figures, error = _run(name, CARDS[name], Path(folder)), ""
        except UserError as refused:
            figures, error = {}, str(refused)
    return Checked(name, time.process_time() - began, figures, error)


def _run(name: str, card: Card, root: Path) -> dict[str, float]:
    given: dict[str, Any] = {"images": _images(root / "images")}
    if card.distils:
        teacher = TEACHERS[next(iter(card.expected))]
        given["teacher"] = write_teacher(teacher, root / (teacher.file or "teacher.pth"))
        sentence(name, given["teacher"])
    recipe = build(name, root / "out", given)
    figures: dict[str, float] = {}
    for stage in (stage for group in recipe.jobs for stage in group.stages):
        record = run_stage(small(stage))
        if stage.kind in ("pretrain", "distill"):
            _expect(record["figures"]["steps"] == STEPS, f"{stage.name} made {record['figures']['steps']} steps")
        if stage.kind in SMALL:
            shown = ("loss", "linear", "knn", "finetune")
            figures |= {n: value for n, value in record["figures"].items() if n in shown and value is not None}
    return figures


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise UserError(otherwise)


def small(stage: Stage) -> Stage:
    """The stage with few and small images; everything else is the card's."""
    values = values_of(stage.config)
    changes = {key: value for key, value in {**HERE, **SMALL.get(stage.kind, {})}.items() if key in values}
    if values.get("contrast.dim") == 256:  # principal components of eight images are fewer
        changes["contrast.dim"] = 4
    return replace(stage, config=config_of(KINDS[stage.kind].config, values | changes))


def _images(folder: Path) -> Path:
    """JPEG files of noise, always the same."""
    drawn = np.random.default_rng(0)
    for split, count in SPLITS.items():
        for at in range(count):
            path = folder / split / f"class{at % 2}" / f"{at}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    return folder
