"""The small distillation that all trials are about: its inputs, its uninterrupted run, what came out of one."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bingo.config import DistillConfig
from bingo.config_parts import Augmentation, Contrast, Optimiser, Runtime
from bingo.stages import Stage
from tests.cluster.faults import CHECKPOINT_EVERY, EPOCHS
from tests.support.inputs import make_bags, make_digits, make_teacher
from tests.support.ranks import finish, start_ranks


@dataclass(frozen=True)
class Inputs:
    """A folder of images that is read in place, a teacher's model file, bags; see `tests.support.inputs`."""

    images: Path
    teacher: Path
    bags: Path


@dataclass(frozen=True)
class Runs:
    """The inputs below a folder, and the uninterrupted runs, each made when it is first asked for."""

    folder: Path

    @property
    def inputs(self) -> Inputs:
        images = self.folder / "digits" / "images"
        found = Inputs(images / "train", self.folder / "teacher" / "model.pt", self.folder / "bags" / "bags")
        if not (found.bags / "stage.json").exists():
            make_digits(self.folder / "digits")
            make_teacher(found.teacher)
            make_bags(self.folder / "bags", images, found.teacher)
        return found

    def reference(self, ranks: int) -> Path:
        """The folder of the trials' distillation as so many ranks, without a cluster and without a fault."""
        out = self.folder / f"reference-{ranks}"
        if not (out / "model.pt").exists():
            order = out.with_suffix(".json")
            order.write_text(json.dumps(Stage("distill", "distill", distillation(self.inputs, out)).to_json()))
            results = finish(start_ranks([order], ranks, ["-c", RUN]))
            assert [code for code, _ in results] == [0] * ranks, results
        return out


RUN = """
import json, pathlib, sys
from bingo.stages import Stage, run_stage
run_stage(Stage.from_json(json.loads(pathlib.Path(sys.argv[1]).read_text())))
"""


def distillation(inputs: Inputs, out: Path) -> DistillConfig:
    """64 steps of the release objective on a global batch of 64; a checkpoint every 7 steps and at each epoch's end."""
    return DistillConfig(
        data=inputs.images,
        teacher=inputs.teacher,
        bags=inputs.bags,
        out=out,
        student="tiny",
        warm_epochs=1,
        augment=Augmentation(size=16),
        contrast=Contrast(dim=16, hidden=32, queue=100),
        optim=Optimiser(epochs=EPOCHS, batch=64),
        runtime=Runtime(device="cpu", threads=1, checkpoint_every=CHECKPOINT_EVERY, log_every=1),
    )


def weights(model: Path) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = torch.load(model, weights_only=True)["state_dict"]
    return found


def same_weights(a: Path, b: Path) -> bool:
    """Bit for bit."""
    import torch

    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def steps_of(metrics: Path) -> list[int]:
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [line["step"] for line in lines if line["kind"] == "train"]
