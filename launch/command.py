"""`bingo run` and its kin: flags in, words out."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bingo.errors import UserError
from bingo.files import write_json
from bingo.launch.chain import Chain, Job, run_chain, run_inline
from bingo.recipes import CHAINS, Recipe, build

Report = Callable[[list[str]], int]


def run(argv: list[str], report: Report) -> int:
    """`bingo run RECIPE`: the chain through submitit's local executor, then the report."""
    parser = argparse.ArgumentParser(
        prog="bingo run", description="Run a whole recipe on this machine; what is done is skipped."
    )
    add_recipe_flags(parser)
    parser.add_argument(
        "--ranks", type=int, default=None, help="processes per job (default 2, or one per GPU if fewer)"
    )
    options = parser.parse_args(argv)
    return run_here(options, options.ranks, report)


def add_recipe_flags(parser: argparse.ArgumentParser) -> None:
    """The recipe's name, its folder and its settings; None where the recipe's own value is wanted."""
    parser.add_argument("recipe", help="one of: " + ", ".join(CHAINS))
    parser.add_argument("--out", type=Path, default=None, help="folder for everything (default: runs/RECIPE)")
    parser.add_argument("--seeds", type=int, default=None, help="digits: seeds per arm (default 5)")
    parser.add_argument(
        "--epochs",
        type=int,
        default=None,
        help="epochs of distilled students (digits: the undistilled one makes twice, the teacher five times as many)",
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default=None)
    parser.add_argument("--images", type=Path, default=None, help="ImageNet: folder with train and val")
    parser.add_argument("--teacher", type=Path, default=None, help="ImageNet: run folder or MoCo-v2 checkpoint")


def recipe_of(options: Any, root: Path) -> Recipe:
    """The chain that the flags describe."""
    names = ("seeds", "epochs", "device", "images", "teacher")
    return build(options.recipe, root, {name: getattr(options, name) for name in names})


def run_here(options: Any, ranks: int | None, report: Report, *, inline: bool = False) -> int:
    """Run a recipe on this machine (inline: in this process, as one rank), then write the report beside it."""
    root = options.out or Path("runs") / options.recipe
    recipe = recipe_of(options, root)
    gpus = visible_gpus(options.device or "auto")
    if ranks is None:
        ranks = min(2, gpus) if gpus else 2
    if ranks < 1:
        raise UserError(f"--ranks {ranks} is not allowed: it must be at least 1")
    chain = Chain(root, tuple(Job(group.stages, ranks if group.parallel else 1) for group in recipe.jobs))
    records = run_inline(chain) if inline else run_chain(chain, gpus=gpus)
    if recipe.arms:
        _report(options.recipe, recipe, root, any(not record["skipped"] for record in records), report)
    return 0


def _report(name: str, recipe: Recipe, root: Path, changed: bool, report: Report) -> None:
    if changed or not (root / "report.html").exists():
        write_json(root / "recipe.json", summary(name, recipe))
        report([str(root)])
    else:
        print(f"{'report':28s} {'done before':>11s}   {root / 'report.html'}")


def summary(name: str, recipe: Recipe) -> dict[str, Any]:
    """What recipe.json says: the stages, and which evaluations belong to which arm."""
    stages = [stage.to_json() for group in recipe.jobs for stage in group.stages]
    return {"recipe": name, "arms": recipe.arms, "stages": stages}


def visible_gpus(device: str) -> int:
    """GPUs that a local job may have, counted without importing torch."""
    if device == "cpu":
        return 0
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        len([d for d in named.split(",") if d])
        if named is not None
        else len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    )
