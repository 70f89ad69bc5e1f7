"""`bingo run` and `bingo leaderboard`: chains on this machine, then the page about them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bingo.arguments import Parser, whole
from bingo.errors import UserError, brief
from bingo.files import hash_json, refuse_others_file, write_json
from bingo.launch.local import Chain, Job, run_chain, run_inline
from bingo.launch.submit.flags import add_recipe_flags, add_replace_flag, divided, recipe_of, tell_of_teacher
from bingo.launch.submit.folders import find_other_work, replaced
from bingo.recipes import CHAINS, PAGE, RECIPE, SUMMARY, Recipe, reported, summary
from bingo.variables import named_gpus

Report = Callable[[list[str]], int]
MOST_RANKS = 1024  # on one machine
LEADERBOARD = "leaderboard-"
"""How names of recipes begin that `bingo leaderboard` runs."""
LEADERBOARDS = tuple(name.removeprefix(LEADERBOARD) for name in CHAINS if name.startswith(LEADERBOARD))


def run_flags() -> Parser:
    about = "Run a whole recipe on this machine; what is done is skipped."
    parser = Parser("bingo run", about, "bingo run digits --seeds 2")
    parser.add_argument("recipe", choices=list(CHAINS), metavar="RECIPE", help=f"one of: {', '.join(CHAINS)}")
    add_recipe_flags(parser)
    ranks = "processes per job (default: 2, or one per GPU if fewer)"
    parser.add_argument("--ranks", type=whole, metavar="N", help=ranks)
    add_replace_flag(parser)
    return parser


def run(argv: list[str], report: Report) -> int:
    """`bingo run RECIPE`: the chain through submitit's local executor, then the report."""
    words, flags = divided(argv)
    options = run_flags().parse_args(words)
    _run(options, options.out or Path("runs") / options.recipe, flags, report)
    return 0


def _run(options: Any, root: Path, flags: list[str] | None, report: Report) -> None:
    recipe = recipe_of(options, root, flags)
    tell_of_teacher(options, here=True)
    run_here(options.recipe, options.device or "auto", root, recipe, options.ranks, report, replace=options.replace)


def leaderboard_flags() -> Parser:
    parser = Parser(
        "bingo leaderboard",
        "Train every objective at equal cost, and rank them; what is done is skipped. imagenet and DIR need --teacher, "
        "and take settings of `bingo distill` for all students, after -- at the end.",
        "bingo leaderboard photos --teacher runs/teacher -- --student resnet34 --contrast.queue 4096",
    )
    names = f"one of: {', '.join(LEADERBOARDS)}; or a folder with train and val"
    parser.add_argument("what", metavar="WHAT|DIR", help=names)
    add_recipe_flags(parser)
    ranks = "processes per job (default: 1)"
    parser.add_argument("--ranks", type=whole, default=1, metavar="N", help=ranks)
    add_replace_flag(parser)
    return parser


def leaderboard(argv: list[str], report: Report, tables: Callable[[Path], list[str]]) -> int:
    """`bingo leaderboard WHAT`: the recipe leaderboard-WHAT as `bingo run` runs it, then its table and its picture."""
    words, flags = divided(argv)
    options = leaderboard_flags().parse_args(words)
    known = options.what in LEADERBOARDS
    name = options.what if known else _of_folder(options)
    options.recipe = f"{LEADERBOARD}{name if known else 'imagenet'}"
    root = options.out or Path("runs") / f"{LEADERBOARD}{name}"
    _run(options, root, flags, report)
    for line in tables(root):
        print(line)
    return 0


def _of_folder(options: Any) -> str:
    """The folder of images that a leaderboard is about becomes its --images; its name."""
    folder = Path(options.what)
    if not folder.is_dir():
        raise UserError(
            f"{brief(options.what)} is no leaderboard and no folder; name a folder with train and val, or one of: "
            f"{', '.join(LEADERBOARDS)}"
        )
    if options.images is not None:
        raise UserError(f"--images {options.images} and the folder {folder} are both given: leave one of them out")
    options.images = folder
    return folder.resolve().name


def run_here(
    name: str,
    device: str,
    root: Path,
    recipe: Recipe,
    ranks: int | None,
    report: Report,
    *,
    inline: bool = False,
    replace: bool = False,
) -> int:
    """Run a chain on this machine (inline: in this process, as one rank), then write the report beside it.

    replace: work of other settings or inputs is moved aside; otherwise nothing runs.
    """
    gpus = visible_gpus(device)
    if ranks is None:
        ranks = min(2, gpus) if gpus else 2
    if not 1 <= ranks <= MOST_RANKS:
        raise UserError(f"--ranks {brief(ranks)} is not allowed: it must be between 1 and {MOST_RANKS}")
    if recipe.arms:
        refuse_others_file(root / RECIPE, SUMMARY)
    stale = find_other_work([stage for group in recipe.jobs for stage in group.stages], replace=replace)
    with replaced(stale, print):  # all of it, or nothing
        pass
    chain = Chain(root, tuple(Job(group.stages, ranks if group.parallel else 1) for group in recipe.jobs))
    records = run_inline(chain) if inline else run_chain(chain, gpus=gpus)
    if recipe.arms:
        _report(name, recipe, root, any(not record["skipped"] for record in records), report)
    return 0


def _report(name: str, recipe: Recipe, root: Path, changed: bool, report: Report) -> None:
    told = summary(name, recipe)
    if changed or not reported(root, hash_json(told)):
        write_json(root / RECIPE, told)
        report([str(root)])
    else:
        print(f"{'report':28s} {'done before':>11s}   {root / PAGE}")


def visible_gpus(device: str) -> int:
    """GPUs that a local job may have, counted without importing torch."""
    if device == "cpu":
        return 0
    named = named_gpus()
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) if named is None else named
