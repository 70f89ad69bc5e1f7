"""Flags of the verbs -> stages with their settings: read alike by verbs, `bingo submit`, `bingo sweep`."""

import argparse
import inspect
import logging
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bingo.arguments import Parser
from bingo.config import EvalKind
from bingo.config_flags import MISSING, Setting, add_setting, build, defaults, settings, shown, values_of
from bingo.config_json import from_record
from bingo.errors import UserError
from bingo.files import read_object
from bingo.inputs import check_input, kind_of, recorded
from bingo.recipes import DISTILL
from bingo.stages import KINDS, Stage
from bingo.variables import place

log = logging.getLogger(__name__)

# Parts of the shared groups that a stage which trains nothing, or draws no views, does not read.
TRAINING = ("runtime.compile", "runtime.impl", "runtime.checkpoint_every", "runtime.log_every")
DRAWN = ("scale", "brightness", "contrast", "saturation", "hue", "jitter_p", "grey_p", "blur_p", "blur_sigma", "flip_p")
VIEWS = tuple(f"augment.{name}" for name in DRAWN)
# How a network sees images. A key cache answers for what was drawn too: `distill` refuses one with other views.
SEEN = ("augment.size", "augment.mean", "augment.std", "loader.fancy_upsampling")
INHERITED: dict[str, dict[str, tuple[str, ...]]] = {
    "features": {"model": SEEN},
    "keys": {"teacher": SEEN},
    "distill": {"teacher": SEEN, "keys": ("augment.", "loader.fancy_upsampling")},
    "eval": {"run": ("augment.", "loader.")},
}
"""Kind -> setting that names a folder -> settings (or their beginnings) that its config.json answers."""
HOW = ("runtime.device", "runtime.precision")
FIT = ("optim.epochs", "optim.batch", "optim.lr", "monitor.val", *HOW, "seed")


class Door(NamedTuple):
    """How a verb is entered: the words it needs, an example, the usual settings in their order, those it does not use.

    words: settings that are given by leading words without a flag.
    """

    needs: str
    example: str
    usual: tuple[str, ...]
    unused: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


DOORS = {
    "demo-data": Door("OUT", "data/digits", ("out", "size"), words=("out",)),
    "pack": Door(
        "SOURCE OUT",
        "images/train data/train --convert",
        ("source", "out", "convert", "allow_bad"),
        words=("source", "out"),
    ),
    "pretrain": Door(
        "--data DIR --out DIR",
        "--data data/train --out runs/teacher --model resnet50 --runtime.precision bf16",
        ("data", "out", "model", *FIT),
    ),
    "features": Door(
        "--data DIR --model PATH --out DIR",
        "--data data/train --model runs/teacher --out runs/features",
        ("data", "model", "out", "batch", *HOW),
        unused=(*VIEWS, "runtime.channels_last", *TRAINING),
    ),
    "bags": Door(
        "--data DIR --features DIR --out DIR",
        "--data data/train --features runs/features --out runs/bags --k 5",
        ("data", "features", "out", "kind", "k", "engine", "runtime.device", "seed"),
        unused=("runtime.precision", "runtime.channels_last", *TRAINING),
    ),
    "keys": Door(
        "--data DIR --teacher PATH --out DIR",
        "--data data/train --teacher runs/teacher --out runs/keys --views 16",
        ("data", "teacher", "out", "views", "dtype", "batch", *HOW, "seed"),
        unused=TRAINING,
    ),
    "distill": Door(
        "--data DIR (--teacher PATH | --keys DIR) --bags DIR --out DIR",
        "--data data/train --teacher runs/teacher --bags runs/bags --student resnet18 --out runs/r18",
        ("data", "teacher", "keys", "bags", "out", "student", "objective", *FIT),
    ),
    "eval": Door(
        "linear|knn|fewshot RUN",
        "knn runs/r18 --val data/val",
        ("val", "train", "out", "k", "shots", "draws", "solver", *HOW),
        unused=("kinds", "run", *VIEWS, "runtime.channels_last", *TRAINING),
    ),
    "export": Door(
        "--model PATH --out DIR",
        "--model runs/r18 --classifier runs/r18/eval/linear --out runs/export",
        ("model", "classifier", "out"),
    ),
}


class Use(NamedTuple):
    """Settings that count only in some runs: typed for another one they are a mistake."""

    names: tuple[str, ...]
    where: str
    holds: Callable[[Mapping[str, Any]], bool]


MONITORED = Use(("monitor.every",), "with --monitor.val", lambda v: v["monitor.val"] is not None)
COUNTED = Use(("loader.max_bad",), "without --loader.allow-bad", lambda v: not v["loader.allow_bad"])
USES = {
    "pretrain": (MONITORED, COUNTED),
    "distill": (
        MONITORED,
        COUNTED,
        Use(("warm_epochs", "cutmix"), "with --objective release", lambda v: v["objective"] == "release"),
    ),
    "bags": (
        Use(("clusters",), "with --kind kmeans", lambda v: v["kind"] == "kmeans"),
        Use(("features",), "with --kind knn or kmeans", lambda v: v["kind"] in ("knn", "kmeans")),
    ),
    "eval": (
        Use(("k",), "by `eval knn`", lambda v: "knn" in v["kinds"]),
        Use(("shots", "draws"), "by `eval fewshot`", lambda v: "fewshot" in v["kinds"]),
        Use(("solver", "linear_lr", "linear_epochs"), "by `eval linear`", lambda v: "linear" in v["kinds"]),
        Use(("linear_lr", "linear_epochs"), "with --solver sgd", lambda v: v["solver"] == "sgd"),
        Use(("seed",), "by `eval linear` and `eval fewshot`", lambda v: v["kinds"] != ("knn",)),
    ),
    "export": (Use(("classes",), "without --classifier", lambda v: v["classifier"] is None),),
}


def stage_of(kind: str, argv: list[str], *, parser: Parser | None = None, mixed: bool = False) -> Stage:
    """The stage that `bingo KIND` with these flags runs; `UserError` for wrong flags and values.

    parser: that of `flags_of(kind)`, with more flags if need be. mixed: a flag that this run does not use is no
    mistake, because other runs of the same sweep may.
    """
    parser = parser or flags_of(kind)
    given = vars(parser.parse_args(leading(argv, DOORS[kind].words)))
    config, recipe = given.pop("config", None), given.pop("recipe", None)
    usual = of_run(given["run"], given["kinds"]) if kind == "eval" else starting_point(kind, config, recipe)
    if config is None and recipe is None:
        usual = inherit(kind, usual, given, tell=not mixed)
    if kind == "distill" and {"keys", "teacher"} & set(given):  # one takes the place of the other
        usual |= {"keys": None, "teacher": None}
    values = {**usual, **given}
    if missing := [name for name in DOORS[kind].usual if values[name] is MISSING]:
        parser.error(f"missing: {', '.join(named(kind, name) for name in missing)}")
    if not mixed:
        refuse_unused(kind, given, values)
    name = f"eval {given['kinds'][0]}" if kind == "eval" else kind
    return Stage(name, kind, build(KINDS[kind].config, values))


def leading(argv: list[str], names: tuple[str, ...]) -> list[str]:
    """Leading bare words become the named flags, in order."""
    flags: list[str] = []
    rest = list(argv)
    for name in names:
        if rest and not rest[0].startswith("-"):
            flags += [f"--{name}", rest.pop(0)]
    return flags + rest


def named(kind: str, name: str) -> str:
    """A setting as the help has it: by its flag, or as a word."""
    return name.upper() if name in DOORS[kind].words else f"--{name.replace('_', '-')}"


def refuse_unused(kind: str, given: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """`UserError` for a flag that was typed and that this run would ignore."""
    for use in USES.get(kind, ()):
        for name in use.names:
            if name in given and not use.holds(values):
                raise UserError(f"{named(kind, name)} is used {use.where} only: leave it out")


def flags_of(kind: str) -> Parser:
    """The parser of a verb that runs one kind of stage; its result has what was typed and nothing else."""
    door, config = DOORS[kind], KINDS[kind].config
    found = {setting.name: setting for setting in settings(config) if setting.name not in door.unused}
    usage = f"bingo {kind} {door.needs} [settings]"
    parser = Parser(f"bingo {kind}", inspect.cleandoc(config.__doc__ or ""), f"bingo {kind} {door.example}", usage)
    if kind == "eval":
        kinds = typing.get_args(EvalKind)
        parser.add_argument("kinds", action=_Kind, choices=kinds, metavar="linear|knn|fewshot", help="what is measured")
        parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, or a model.pt")
    for name in door.usual:
        setting = found.pop(name)
        add_setting(parser, setting, usual_value(kind, setting))
    if kind != "eval":
        _add_sources(parser, kind)
    _add_groups(parser, kind, list(found.values()))
    return parser


def usual_value(kind: str, setting: Setting) -> str:
    """The default in words, where it is not the config class that says it."""
    if kind == "eval" and setting.name == "out":
        return "RUN/eval/KIND"
    if kind == "eval" and setting.name in ("train", "val"):
        return "the run's"
    sources = [name for name, parts in INHERITED.get(kind, {}).items() if setting.name.startswith(parts)]
    whose = " or ".join(f"the {name}'" + ("" if name.endswith("s") else "s") for name in sources)
    return f"{whose}, or {shown(setting.default)}" if sources else ""


class _Kind(argparse.Action):
    """One kind of evaluation, as the tuple that the config wants."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, (values,))


def _add_sources(parser: Parser, kind: str) -> None:
    """Where the other settings come from."""
    config = "config.json of an earlier one, whose settings are the defaults"
    parser.add_argument("--config", type=Path, default=argparse.SUPPRESS, metavar="FILE", help=config)
    if kind == "distill":
        recipe = "recipe whose settings are the defaults"
        parser.add_argument("--recipe", default=argparse.SUPPRESS, choices=list(DISTILL), help=recipe)


def _add_groups(parser: Parser, kind: str, rest: list[Setting]) -> None:
    """The settings that are no usual ones: those of the stage, then each shared group under its name."""
    groups: dict[str, list[Setting]] = {}
    for setting in sorted(rest, key=lambda each: "." in each.name):
        groups.setdefault(setting.name.rpartition(".")[0], []).append(setting)
    for prefix, members in groups.items():
        about = inspect.cleandoc(members[-1].owner.__doc__ or "") if prefix else None
        group = parser.add_argument_group(f"more of {prefix}" if prefix else "more settings", about)
        for setting in members:
            add_setting(group, setting, usual_value(kind, setting))


def starting_point(kind: str, config: Path | None, recipe: str | None) -> dict[str, Any]:
    """Values that hold where no flag says otherwise: of a run's config.json, of a recipe, or the usual ones."""
    cls = KINDS[kind].config
    if config is not None:
        record = read_object(config, remedy="give config.json of an earlier run, or a file like it")
        theirs = kind_of(config.parent) if config.name == "config.json" else None
        if theirs not in (None, kind):
            raise UserError(f"--config: {config} holds settings of {theirs}, not of {kind}")
        return values_of(from_record(cls, record, str(config)))
    if recipe is not None:
        absent: Any = MISSING  # the paths stay required
        return values_of(DISTILL[recipe](absent, absent, absent, absent))
    return defaults(cls)


def of_run(run: Path, kinds: tuple[str, ...]) -> dict[str, Any]:
    """The settings that a run folder's own config.json answers; what it does not stays required."""
    check_input("run", run)
    values = defaults(KINDS["eval"].config)
    values["out"] = (run if run.is_dir() else run.parent) / "eval" / kinds[0]
    if found := recorded(run):
        values["train"] = found[0].data
        values["val"] = found[0].monitor.val or MISSING
    return values


def inherit(kind: str, usual: dict[str, Any], given: Mapping[str, Any], *, tell: bool) -> dict[str, Any]:
    """The usual settings, those of how images are seen as the run says whose network the stage is given.

    tell: say in the log which of them are unusual.
    """
    parts = INHERITED.get(kind, {})
    source = next((name for name in parts if given.get(name)), None)
    found = recorded(given[source]) if source else None
    if source is None or found is None:
        return usual
    known, file = found
    taken = {name: value for name, value in values_of(known).items() if name.startswith(parts[source])}
    news = [f"{name}={shown(value)}" for name, value in taken.items() if name not in given and value != usual[name]]
    if news and tell and place().rank == 0:
        log.info("%s: as %s says; flags say otherwise", " ".join(news), file)
    return {**usual, **taken}
