"""The flags that `bingo run`, `submit` and `sweep` share: of recipes, and of where and how jobs run."""

from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from bingo.arguments import Parser, number, path, whole
from bingo.errors import UserError, brief
from bingo.inputs import check_input
from bingo.launch.cluster.site import FLAGS, minutes_of
from bingo.paths import library_name
from bingo.recipes import CARDS, REST, Recipe, build
from bingo.recipes.given import sentence

MOST_WORD = 1000
HERE = ("local", "debug")


def cluster_name(text: str) -> str:
    """A word of `HERE`, or the path of a site file."""
    return text if text in HERE else str(path(text))


CLUSTER = "site file (docs/cluster.md); local: here; debug: in this process"
RECIPE_SETTINGS = ("seeds", "epochs", "device", "images", "teacher", "compare", "match")


PLACED = "For this submission and its repairs. A key that [cpu] has itself stays for jobs on one rank."
WORDS_OF_SITE = {
    "--partition": "partition",
    "--qos": "quality of service",
    "--account": "account that pays",
    "--constraint": "features that the nodes must have",
    "--reservation": "reservation",
    "--exclude": "nodes that are never used, such as n3,n[7-9]",
    "--nodelist": "nodes that a job on all ranks must have",
}


def word(text: str) -> str:
    """One word for Slurm."""
    if not text or not text.isprintable() or " " in text or len(text) > MOST_WORD:
        raise ArgumentTypeError(f"{brief(text)} is not one word of at most {MOST_WORD} characters")
    return text


def time_limit(text: str) -> int:
    """A time limit, in minutes."""
    try:
        return minutes_of(text)
    except ValueError:
        raise ArgumentTypeError(f"{brief(text)} is no time: write minutes, H:MM:SS or D-HH:MM:SS") from None


def divided(argv: list[str]) -> tuple[list[str], list[str] | None]:
    """The words before `--`, and those after it (None: there is no `--`)."""
    at = argv.index("--") if "--" in argv else None
    return argv[:at], None if at is None else argv[at + 1 :]


def add_replace_flag(parser: Parser) -> None:
    text = "move work of other settings or inputs aside, to OUT.replaced-TIME (default: refuse)"
    parser.add_argument("--replace", action="store_true", help=text)


def add_cluster_flags(parser: Parser) -> None:
    """Where and how jobs run."""
    add_replace_flag(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would be sent")
    nodes = "nodes of a job on all ranks (default: the site's)"
    parser.add_argument("--nodes", type=whole, metavar="N", help=nodes)
    ranks = "ranks on each node (default: the site's; --cluster local: 2, or one per GPU if fewer)"
    parser.add_argument("--ranks-per-node", type=whole, metavar="N", help=ranks)
    fewer = "go on with as few, with the same global batch (default: all nodes)"
    parser.add_argument("--min-nodes", type=whole, metavar="N", help=fewer)
    parser.add_argument("--preflight", action="store_true", help="test the nodes first and leave slow ones out")
    group = parser.add_argument_group("in place of the site's keys", PLACED)
    for flag, what in WORDS_OF_SITE.items():
        group.add_argument(flag, type=word, metavar=flag[2:].upper(), help=what)
    time = "time limit, in minutes or as Slurm writes it: 90, 2:00:00, 1-12:00:00"
    group.add_argument("--time", type=time_limit, dest="time_min", metavar="TIME", help=time)
    starts = "how often a job may start (0: as often as there is progress)"
    group.add_argument("--max-starts", type=whole, metavar="N", help=starts)
    group.add_argument("--max-hours", type=number, metavar="H", help="of all starts of a job together (0: no limit)")


def refuse_elsewhere(options: Any) -> None:
    """`UserError` for a flag that says something about a cluster, where there is none."""
    flags = {"dry_run": "--dry-run", "min_nodes": "--min-nodes", "preflight": "--preflight", **FLAGS}
    if options.cluster == "local":  # it has ranks
        flags.pop("ranks_per_node")
    for name, flag in flags.items() if options.cluster in HERE else ():
        value = getattr(options, name)
        if value is not None and value is not False:
            raise UserError(f"{flag} is for a cluster, and --cluster {options.cluster} is none: leave it out")


def overrides(options: Any) -> dict[str, Any]:
    """What flags say in place of the site file; None: nothing."""
    return {key: getattr(options, key) for key in FLAGS}


def add_recipe_flags(parser: Parser) -> None:
    """The recipe's folder and its settings; None where the recipe's own value is wanted."""
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for everything (default: runs/RECIPE)")
    add_recipe_settings(parser)


def add_recipe_settings(parser: Parser) -> None:
    """The settings of recipes, as in `RECIPE_SETTINGS`."""
    images = "ImageNet, your own: folder with train and val; fashion: of IDX files (default: Debian's)"
    parser.add_argument("--images", type=Path, metavar="DIR", help=images)
    parser.add_argument("--teacher", type=Path, metavar="PATH", help="ImageNet, your own: run folder or checkpoint")
    parser.add_argument("--seeds", type=whole, metavar="N", help="seeds per arm (default: 5; fashion 4)")
    epochs = "epochs of distilled students (default: digits 30, fashion 4, ImageNet 200; in the first two"
    rest = "the undistilled one makes twice as many, the teacher five or ten times); leaderboards: passes of an image "
    rest += "through each student (default: digits 60, fashion 18, others 200)"
    parser.add_argument("--epochs", type=whole, metavar="N", help=f"{epochs} {rest}")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], help="where it runs (default: auto)")
    compare = "leaderboards: objectives, ingredients, caches, or names of arms (default: objectives)"
    parser.add_argument("--compare", metavar="ARMS", help=compare)
    match = "leaderboards: what is equal, the student's passes or compute (default: passes)"
    parser.add_argument("--match", choices=["passes", "compute"], help=match)


def recipe_of(options: Any, root: Path, flags: list[str] | None) -> Recipe:
    """The chain that the flags describe. flags: those after `--`; None: there is none."""
    return build(options.recipe, root, {name: getattr(options, name) for name in RECIPE_SETTINGS} | {REST: flags})


def tell_of_teacher(options: Any, *, here: bool) -> None:
    """Print which published number a card is to give with this teacher; `UserError` for one that it is not for.

    here: the jobs run on this machine, so one that is not there is told before what may take hours.
    """
    path = options.teacher
    if here and path is not None:
        check_input("teacher", path)
    if options.recipe in CARDS and path is not None and (library_name(path) or path.exists()):
        print(sentence(options.recipe, path))


def refuse_settings(options: Any, verb: str) -> None:
    for name in RECIPE_SETTINGS:
        if getattr(options, name) is not None:
            raise UserError(f"--{name} is a setting of recipes; {verb} takes its flags after `--`")


def combined(options: Any, flags: list[str] | None, words: list[str]) -> Recipe:
    """The chain of one combination: its own words, and the sweep's options and flags after `--` for all."""
    parser = Parser("bingo sweep", "", "")
    add_recipe_flags(parser)
    given = parser.parse_args(words)
    for name in RECIPE_SETTINGS:
        if getattr(options, name) is not None and getattr(given, name) is not None:
            raise UserError(f"--{name} is given by --set too: leave one of them out")
        setattr(given, name, getattr(options, name) if getattr(given, name) is None else getattr(given, name))
    given.recipe = options.verb
    return recipe_of(given, given.out, flags)
