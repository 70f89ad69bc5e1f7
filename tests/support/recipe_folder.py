"""A finished recipe's folder with made-up results, written by hand."""

import json
import shutil
from pathlib import Path
from typing import Any

from bingo.bags.file import label_bags, random_bags, save_bags
from bingo.config import BagsConfig, DistillConfig, PretrainConfig
from bingo.config_evaluation import EvalConfig
from bingo.config_json import to_json
from bingo.config_parts import Augmentation, Monitor, Optimiser
from bingo.files import write_json
from bingo.images.open import open_dataset

WRITTEN = Path("runs") / "elsewhere"  # where the configs say the run is: it has been moved since
AUGMENT = Augmentation(size=16)
ENVIRONMENT = {
    "python": "3.12.1", "system": "Linux 6", "cpu": "A <fast> CPU", "cores": 2, "memory_gib": 7.5,
    "packages": {"torch": "2.14.1"}, "gpu": [], "driver": None, "git": "abc+dirty", "slurm": {}, "argv": [],
}  # fmt: skip
Scores = dict[str, list[tuple[float, float, float]]]  # arm -> (few-label, kNN, linear) per seed
SCORES: Scores = {
    "no teacher": [(0.50, 0.90, 0.80), (0.54, 0.92, 0.80), (0.52, 0.91, 0.80)],
    "knn": [(0.60, 0.90, 0.70), (0.66, 0.91, 0.80), (0.60, 0.92, 0.90)],
    "label": [(0.50, 0.95, 0.80), (0.56, 0.97, 0.80), (0.52, 0.96, 0.80)],
}


class Folder:
    """Writes a recipe folder by hand, stage by stage, in the format that `bingo run` leaves."""

    def __init__(self, root: Path, digits: Path) -> None:
        self.root, self.stages = root, list[dict[str, Any]]()
        self.arms: dict[str, list[str]] = {}
        for split in ("train", "val"):
            shutil.copytree(digits / split, root / split)

    def stage(self, name: str, kind: str, config: Any, figures: dict[str, Any], files: dict[str, str]) -> None:
        out = self.root / config.out.relative_to(WRITTEN)
        self.stages.append({"name": name, "kind": kind, "config": to_json(config)})
        for file, text in files.items():
            out.mkdir(parents=True, exist_ok=True)
            (out / file).write_text(text)
        write_json(out / "config.json", {"kind": kind, **to_json(config)})
        write_json(out / "environment.json", ENVIRONMENT)
        record = {"name": name, "kind": kind, "key": "k", "seconds": 30.0, "figures": figures, "ranks": 2}
        write_json(out / "stage.json", record)

    def bags(self, kind: str) -> None:
        dataset = open_dataset(self.root / "train")
        members = random_bags(len(dataset), 3, 0) if kind == "random" else label_bags(dataset.labels, 3, 0)
        path = self.root / "bags" / kind / "bags.npz"
        save_bags(path, members, kind=kind, dataset_hash=dataset.hash, features_hash=None, teacher_hash=None,
                  engine="numpy", seed=0)  # fmt: skip
        config = BagsConfig(data=WRITTEN / "train", out=WRITTEN / "bags" / kind, kind=kind, k=3)  # type: ignore[arg-type]
        self.stage(f"bags {kind}", "bags", config, {}, {})

    def judged_teacher(self) -> None:
        place = {name: WRITTEN / name for name in ("train", "val")}
        config = EvalConfig(run=WRITTEN / "teacher", out=WRITTEN / "eval" / "teacher", **place)
        results = {"knn": 0.97, "fewshot": 0.90, "linear": 0.95, "shots": 2}
        self.stage("eval teacher", "eval", config, {}, {"results.json": json.dumps(results)})

    def arm(self, arm: str, scores: list[tuple[float, float, float]], epochs: int) -> None:
        number = len(self.arms)
        for seed, (fewshot, knn, linear) in enumerate(scores):
            place = Path("students") / f"{number}-{seed}"
            common: dict[str, Any] = {
                "data": WRITTEN / "train", "out": WRITTEN / place, "augment": AUGMENT, "seed": seed,
                "optim": Optimiser(epochs=epochs, batch=64), "monitor": Monitor(val=WRITTEN / "val"),
            }  # fmt: skip
            config: Any = PretrainConfig(model="tiny", **common)
            if arm != "no teacher":
                config = DistillConfig(
                    teacher=WRITTEN / "teacher", bags=WRITTEN / "bags", student="tiny", objective="paper", **common
                )
            lines: list[dict[str, Any]] = [
                {"kind": "train", "step": s, "epoch": s // 16, "lr": 0.1, "time": 1e9 + s, "loss": 5 - 0.01 * s}
                for s in range(16 * epochs)
            ]
            for line in lines[15::16]:
                line.update(top1=0.1, top5=0.3, spread=1.0)
            lines.append({"kind": "eval", "step": 16 * epochs, "epoch": epochs, "knn": knn})
            kind = "pretrain" if arm == "no teacher" else "distill"
            metrics = {"metrics.jsonl": "".join(json.dumps(line) + "\n" for line in lines)}
            weights = f"weights of {arm} {seed}"
            self.stage(f"{kind} {arm} {seed}", kind, config, {"weights": weights, "resumed_from": 16 * seed}, metrics)
            evaluation = EvalConfig(
                run=WRITTEN / place, train=WRITTEN / "train", val=WRITTEN / "val", out=WRITTEN / "eval" / place.name
            )
            results = {"model": weights, "knn": knn, "fewshot": fewshot, "linear": linear, "shots": 2}
            self.stage(f"eval {arm} {seed}", "eval", evaluation, {}, {"results.json": json.dumps(results)})
            self.arms.setdefault(arm, []).append(f"eval {arm} {seed}")

    def close(self, name: str = "digits") -> Path:
        write_json(self.root / "recipe.json", {"recipe": name, "arms": self.arms, "stages": self.stages})
        return self.root


def write_recipe(root: Path, digits: Path, scores: Scores, *, name: str = "digits", bags: bool = False) -> Path:
    """Equal student passes: 4 epochs of one view, 2 epochs of two."""
    folder = Folder(root, digits)
    teacher = PretrainConfig(data=WRITTEN / "train", out=WRITTEN / "teacher", model="tiny-8")
    folder.stage("teacher", "pretrain", teacher, {"knn": 0.97}, {})
    for kind in ("random", "label") if bags else ():
        folder.bags(kind)
    if bags:
        folder.judged_teacher()
    for arm, values in scores.items():
        folder.arm(arm, values, 4 if arm == "no teacher" else 2)
    return folder.close(name)
