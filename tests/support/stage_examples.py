"""A small stage of every kind, in two variants, and processes that run it: two at once, or one that is killed.

As campaigns: `python -m tests.support.stage_examples pairs|kills COUNT [KIND...]` prints a table; `chain COUNT` kills
`bingo run digits` so often, with all its ranks, and compares every stage with those of a run that was left alone.
"""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bingo.identity import read_record
from bingo.stages import KINDS, Stage, run_stage
from tests.support.inputs import make_bags, make_digits, make_teacher

# Children are forked from a server that has imported what takes seconds, and has run nothing of it.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "torchvision", "nvidia.dali.fn", "faiss", "bingo.train.distill"])


@dataclass(frozen=True)
class Inputs:
    """What the stages read; made once."""

    root: Path

    def make(self) -> "Inputs":
        make_digits(self.root)
        make_teacher(self.root / "teacher" / "model.pt")
        make_bags(self.root, self.root, self.root / "teacher" / "model.pt")
        for kind, name in (("keys", "keys"), ("distill", "student"), ("eval linear", "linear")):
            run_stage(self.stage(kind, self.root / name))
        return self

    def stage(self, kind: str, out: Path, variant: int = 0) -> Stage:
        """The stage of a kind; two variants differ in one setting, and in what they write."""
        return Stage(kind, kind.partition(" ")[0], EXAMPLES[kind](self.root, out, variant))


def _training(root: Path, out: Path, variant: int, epochs: int = 2) -> dict[str, Any]:
    from bingo.config_parts import Augmentation, Contrast, Optimiser, Runtime

    return {
        "data": root / "train", "out": out, "seed": variant, "augment": Augmentation(size=16),
        "contrast": Contrast(dim=16, hidden=32, queue=100), "optim": Optimiser(epochs=epochs, batch=64),
        "runtime": Runtime(threads=1, checkpoint_every=5, log_every=1),
    }  # fmt: skip


def _demo_data(root: Path, out: Path, variant: int) -> Any:
    from bingo.config import DemoDataConfig

    return DemoDataConfig(out=out, size=8 + variant)


def _pack(root: Path, out: Path, variant: int) -> Any:
    from bingo.config import PackConfig

    return PackConfig(source=root / "images" / "val", out=out, workers=1, shard_gib=(64.0, 1e-4)[variant])


def _pretrain(root: Path, out: Path, variant: int) -> Any:
    from bingo.config import PretrainConfig

    return PretrainConfig(**_training(root, out, variant), model="tiny")


def _features(root: Path, out: Path, variant: int) -> Any:
    from bingo.config import FeaturesConfig
    from bingo.config_parts import Augmentation, Runtime

    size, model = Augmentation(size=16 + 8 * variant), root / "teacher" / "model.pt"
    return FeaturesConfig(data=root / "train", model=model, out=out, augment=size, runtime=Runtime(threads=1))


def _teacher(root: Path, out: Path, variant: int) -> Any:
    from bingo.config import TeacherConfig
    from bingo.config_parts import Augmentation

    model = root / "teacher" / "model.pt"
    return TeacherConfig(model=model, out=out, head="orthogonal", dim=8, seed=variant, augment=Augmentation(size=16))


def _bags(root: Path, out: Path, variant: int) -> Any:
    from bingo.config import BagsConfig

    return BagsConfig(data=root / "train", features=root / "features", out=out, k=3 + variant)


def _keys(root: Path, out: Path, variant: int) -> Any:
    from tests.support.cached_keys import keys_config

    return keys_config(root, root / "teacher" / "model.pt", out, seed=variant)


def _distill(root: Path, out: Path, variant: int) -> Any:
    from bingo.config import DistillConfig

    teacher = root / "teacher" / "model.pt"
    return DistillConfig(**_training(root, out, variant), bags=root / "bags", teacher=teacher, student="tiny")


def _distill_keys(root: Path, out: Path, variant: int) -> Any:
    from bingo.config import DistillConfig

    return DistillConfig(**_training(root, out, variant), bags=root / "bags", keys=root / "keys", student="tiny")


def _eval(kind: str) -> Callable[[Path, Path, int], Any]:
    def config(root: Path, out: Path, variant: int) -> Any:
        from bingo.config_evaluation import EvalConfig
        from bingo.config_parts import Augmentation, Runtime

        return EvalConfig(
            run=root / "student", train=root / "train", val=root / "val", out=out, kinds=(kind,),  # type: ignore[arg-type]
            augment=Augmentation(size=16), k=(5 + variant,), linear_epochs=5 + variant, runtime=Runtime(threads=1),
        )  # fmt: skip

    return config


def _export(root: Path, out: Path, variant: int) -> Any:
    from bingo.config_evaluation import ExportConfig

    if variant:
        return ExportConfig(model=root / "student", out=out, classifier=root / "linear")
    return ExportConfig(model=root / "student", out=out, classes=12)


EXAMPLES: dict[str, Callable[[Path, Path, int], Any]] = {
    "demo-data": _demo_data,
    "pack": _pack,
    "pretrain": _pretrain,
    "features": _features,
    "teacher": _teacher,
    "bags": _bags,
    "keys": _keys,
    "distill": _distill,
    "distill --keys": _distill_keys,
    "eval knn": _eval("knn"),
    "eval linear": _eval("linear"),
    "export": _export,
}


def outputs(out: Path) -> dict[str, str]:
    """Name -> hash of what a finished stage wrote."""
    return dict(read_record(out)["outputs"])


def _child(stage: Stage, begin: float, answers: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    time.sleep(max(0, begin - time.monotonic()))
    try:
        run_stage(stage)
        answers.put("done")
    except ValueError as error:  # UserError
        answers.put(str(error))


def start(stages: list[Stage], waits: list[float]) -> tuple[list[Any], Any]:
    """Processes that begin these stages together, each after its wait in seconds; and where they answer."""
    answers, now = CONTEXT.Queue(), time.monotonic()
    children = [
        CONTEXT.Process(target=_child, args=(stage, now + wait, answers))
        for stage, wait in zip(stages, waits, strict=True)
    ]
    for child in children:
        child.start()
    return children, answers


def pair(inputs: Inputs, kind: str, out: Path, draw: random.Random) -> tuple[list[str], int]:
    """Both variants at once in one folder: what each said, the one done first, and which of them the folder holds."""
    children, answers = start([inputs.stage(kind, out, v) for v in (0, 1)], [0.2 + draw.random() * 0.1 for _ in (0, 1)])
    said = sorted((answers.get(timeout=600) for _ in children), key=lambda text: text != "done")
    for child in children:
        child.join()
    keys = [read_record(out)["key"] == _key(inputs.stage(kind, out, v)) for v in (0, 1)]
    return said, keys.index(True)


def _key(stage: Stage) -> str:
    from bingo.stages import stage_key

    return stage_key(stage)


def killed(inputs: Inputs, kind: str, out: Path, after_s: float) -> str:
    """Run variant 0, kill it after so many seconds, run it again to its end; what the second run said."""
    (child,), unheard = start([inputs.stage(kind, out)], [0])
    time.sleep(after_s)
    if child.pid is not None and child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
    child.join()
    unheard.close()
    (again,), answers = start([inputs.stage(kind, out)], [0])
    said = answers.get(timeout=600)
    again.join()
    return said


def leftovers(out: Path) -> list[str]:
    """Files of killed writers."""
    return [p.name for p in out.rglob(".*") if p.name != ".lock"]


def _campaign_pairs(inputs: Inputs, kind: str, count: int, folder: Path, draw: random.Random) -> Counter[str]:
    whole = [_undisturbed(inputs, kind, folder / f"whole-{variant}", variant) for variant in (0, 1)]
    found: Counter[str] = Counter()
    for trial in range(count):
        out = folder / str(trial)
        (first, second), variant = pair(inputs, kind, out, draw)
        sound = first == "done" and second != "done" and outputs(out) == whole[variant]
        found["one result, one refusal" if sound else f"WRONG: {first} | {second}"] += 1
        shutil.rmtree(out)
    return found


def _undisturbed(inputs: Inputs, kind: str, out: Path, variant: int = 0) -> dict[str, str]:
    run_stage(inputs.stage(kind, out, variant))
    return outputs(out)


def _campaign_kills(inputs: Inputs, kind: str, count: int, folder: Path, draw: random.Random) -> Counter[str]:
    whole, began = _undisturbed(inputs, kind, folder / "whole"), time.monotonic()
    (child,), answers = start([inputs.stage(kind, folder / "timed")], [0])
    assert answers.get(timeout=600) == "done"
    child.join()
    seconds, found = time.monotonic() - began, Counter[str]()
    for trial in range(count):
        out = folder / str(trial)
        said = killed(inputs, kind, out, draw.random() * seconds)
        sound = said == "done" and outputs(out) == whole and not leftovers(out)
        found["same bits" if sound else f"WRONG: {said} {leftovers(out)}"] += 1
        shutil.rmtree(out)
    return found


def chain(count: int, folder: Path, draw: random.Random) -> int:
    """Kill the digits recipe `count` times on its way; 1 if any stage ends with other bits than undisturbed.

    A recipe that ends before it is killed is followed by another one in a new folder.
    """

    def words(out: Path) -> list[str]:
        return [sys.executable, "-m", "bingo", "run", "digits", "--seeds", "1", "--epochs", "1", "--out", str(out)]

    whole, kills, runs = folder / "whole", 0, [folder / "killed-0"]
    subprocess.run(words(whole), check=True, stdout=subprocess.DEVNULL)
    while kills < count:
        process = subprocess.Popen(words(runs[-1]), stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            assert process.wait(3 + 5 * draw.random()) == 0
            runs.append(folder / f"killed-{len(runs)}")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    subprocess.run(words(runs[-1]), check=True, stdout=subprocess.DEVNULL)
    stages = sorted(record.parent.relative_to(whole) for record in whole.rglob("stage.json"))
    wrong = [str(run / stage) for run in runs for stage in stages if outputs(whole / stage) != outputs(run / stage)]
    left = [name for run in runs for name in leftovers(run)]
    print(f"{kills} kills of {len(runs)} run(s) of {len(stages)} stages; other bits: {wrong}, left over: {left}")
    return int(bool(wrong or left))


def main(words: list[str]) -> int:
    """Run a campaign over the kinds and print what came of it; 1 if anything is wrong."""
    if words[0] == "chain":
        with tempfile.TemporaryDirectory() as name:
            return chain(int(words[1]), Path(name), random.Random(0))
    campaign = {"pairs": _campaign_pairs, "kills": _campaign_kills}[words[0]]
    wrong = False
    with tempfile.TemporaryDirectory() as name:
        inputs = Inputs(Path(name) / "inputs").make()
        for at, kind in enumerate(words[2:] or EXAMPLES):
            folder = Path(name) / f"trials-{at}"
            found = campaign(inputs, kind, int(words[1]), folder, random.Random(at))
            wrong |= any(outcome.startswith("WRONG") for outcome in found)
            print(f"{kind:16s} {dict(found)}", flush=True)
    return int(wrong)


assert {kind.partition(" ")[0] for kind in EXAMPLES} == KINDS.keys(), "every kind has an example"

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
