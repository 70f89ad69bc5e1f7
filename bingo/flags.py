"""Flags of the verbs -> stages with their settings: read alike by verbs, `bingo submit`, `bingo sweep`."""

import argparse
import inspect
import logging
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bingo.arguments import Parser
from bingo.config_evaluation import EvalKind
from bingo.config_flags import MISSING, Setting, add_setting, build, defaults, settings, shown, values_of
from bingo.config_json import from_record
from bingo.config_parts import Finetune
from bingo.errors import UserError
from bingo.files import read_object
from bingo.inputs import MODEL, check_input, kind_of, recorded, seen_by
from bingo.paths import library_name
from bingo.recipes import DISTILL
from bingo.stages import KINDS, Stage
from bingo.variables import place

log = logging.getLogger(__name__)

# Parts of the shared groups that a stage which trains nothing, or draws no views, does not read.
TRAINING = (
    *("runtime.compile", "runtime.graph", "runtime.impl", "runtime.checkpoint_every", "runtime.log_every"),
    "runtime.profile",
)
DRAWN: tuple[str, ...] = ("scale", "brightness", "contrast", "saturation", "hue", "jitter_p", "grey_p", "flip_p")
DRAWN += ("blur_p", "blur_sigma", "blur")
VIEWS = tuple(f"augment.{name}" for name in DRAWN)
LOADING = tuple(f"loader.{name}" for name in ("hw_decoder_load", "size_hints", "prefetch", "allow_bad", "verify"))
# How a network sees images. A key cache answers for what was drawn too: `distill` refuses one with other views.
SEEN = ("augment.size", "augment.mean", "augment.std", "loader.fancy_upsampling")
INHERITED: dict[str, dict[str, tuple[str, ...]]] = {
    "teacher": {"model": SEEN},
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
    "demo-data": Door("OUT", "data/digits", ("out", "size", "from_idx"), words=("out",)),
    "pack": Door(
        "SOURCE OUT",
        "images/train data/train --convert",
        ("source", "out", "convert", "allow_bad"),
        words=("source", "out"),
    ),
    "pretrain": Door(
        "--data DIR --out DIR",
        "--data data/train --out runs/teacher --model resnet50",
        ("data", "out", "model", *FIT),
        unused=("runtime.engine",),
    ),
    "teacher": Door(
        "--model PATH --out DIR",
        "--model swav_RN50w2_400ep_pretrain.pth.tar --out runs/teacher",
        ("model", "out", "head", "features", "dim", "whiten", "seed"),
        unused=(*VIEWS, *LOADING),
    ),
    "features": Door(
        "--data DIR --model PATH --out DIR",
        "--data data/train --model runs/teacher --out runs/features",
        ("data", "model", "out", "dtype", "batch", *HOW),
        unused=(*VIEWS, "runtime.channels_last", *TRAINING),
    ),
    "bags": Door(
        "--data DIR --features DIR --out DIR",
        "--data data/train --features runs/features --out runs/bags --k 5",
        ("data", "features", "out", "kind", "k", "engine", "runtime.device", "seed"),
        unused=("runtime.precision", "runtime.engine", "runtime.channels_last", *TRAINING),
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
        "linear|knn|fewshot|finetune|transfer RUN",
        "linear runs/r18 --val data/val --protocol release",
        ("val", "train", "out", "protocol", "k", "shots", "draws", "solver", *HOW, "seed"),
        unused=(
            *("kinds", "run", *VIEWS, "runtime.channels_last", "runtime.compile", "runtime.graph", "runtime.impl"),
            "runtime.profile",
        ),
    ),
    "export": Door(
        "--model PATH --out DIR",
        "--model runs/r18 --classifier runs/r18/eval/linear --out runs/export",
        ("model", "classifier", "out", "format"),
    ),
}


class Use(NamedTuple):
    """Settings that count only in some runs: typed for another one they are a mistake."""

    names: tuple[str, ...]
    where: str
    holds: Callable[[Mapping[str, Any]], bool]


MONITORED = Use(("monitor.every",), "with --monitor.val", lambda v: v["monitor.val"] is not None)
COUNTED = Use(("loader.max_bad",), "without --loader.allow-bad", lambda v: not v["loader.allow_bad"])
FINETUNED = tuple(setting.name for setting in settings(Finetune, "finetune."))
USES = {
    "demo-data": (Use(("train_images", "val_images", "seed"), "with --from-idx", lambda v: v["from_idx"] is not None),),
    "pretrain": (MONITORED, COUNTED),
    "teacher": (
        Use(("features", "whiten"), "with --head pca", lambda v: v["head"] == "pca"),
        Use(("dim",), "with --head pca or orthogonal", lambda v: v["head"] in ("pca", "orthogonal")),
        Use(("seed",), "with --head orthogonal", lambda v: v["head"] == "orthogonal"),
    ),
    "distill": (
        Use(("arch",), "with --teacher", lambda v: v["teacher"] is not None),
        MONITORED,
        COUNTED,
        Use(
            ("warm_epochs", "cutmix", "cutmix_block"),
            "with --objective release",
            lambda v: v["objective"] == "release",
        ),
        Use(("cutmix_block",), "with --cutmix", lambda v: v["cutmix"]),
    ),
    "bags": (
        Use(("clusters",), "with --kind kmeans", lambda v: v["kind"] == "kmeans"),
        Use(("features",), "with --kind knn or kmeans", lambda v: v["kind"] in ("knn", "kmeans")),
    ),
    "eval": (
        Use(("k",), "by `eval knn`", lambda v: "knn" in v["kinds"]),
        Use(("shots", "draws"), "by `eval fewshot`", lambda v: "fewshot" in v["kinds"]),
        Use(
            ("protocol", "solver", "linear_lr", "linear_min_lr", "linear_epochs", "linear_batch"),
            "by `eval linear`",
            lambda v: "linear" in v["kinds"],
        ),
        Use(("solver",), "with --protocol cached", lambda v: v["protocol"] == "cached"),
        Use(("linear_min_lr",), "with --protocol release", lambda v: v["protocol"] == "release"),
        Use(
            ("linear_lr", "linear_epochs", "linear_batch"),
            "with --solver sgd",
            lambda v: v["solver"] == "sgd" or v["protocol"] != "cached",
        ),
        Use(
            ("crop_scale", "flip_p", "runtime.checkpoint_every", "runtime.log_every"),
            "by `eval finetune`, and by `eval linear` with --protocol release, moco or simreg",
            lambda v: "finetune" in v["kinds"] or ("linear" in v["kinds"] and v["protocol"] != "cached"),
        ),
        Use(("runtime.engine",), "by all but `eval finetune`", lambda v: v["kinds"] != ("finetune",)),
        Use(FINETUNED, "by `eval finetune`", lambda v: "finetune" in v["kinds"]),
        Use(("finetune.fraction",), "without --finetune.names", lambda v: v["finetune.names"] is None),
        Use(("transfer_l2", "holdout"), "by `eval transfer`", lambda v: "transfer" in v["kinds"]),
        Use(
            ("seed",),
            "by `eval linear`, `eval fewshot`, `eval finetune` and `eval transfer`",
            lambda v: v["kinds"] != ("knn",),
        ),
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
    usual = of_run(given["run"], given) if kind == "eval" else starting_point(kind, config, recipe)
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
        parser.add_argument("kinds", action=_Kind, choices=kinds, metavar="|".join(kinds), help="what is measured")
        parser.add_argument("run", type=Path, metavar="RUN", help=MODEL.words)
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
        return "RUN/eval/KIND; with -PROTOCOL or -FRACTION where there is one"
    if kind == "eval" and setting.name in ("train", "val"):
        return "the run's, but for transfer"
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


def of_run(run: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a run folder's own config.json answers; what it does not stays required. given: what was typed.

    Each protocol and each fraction of the labels has a folder of its own.
    """
    check_input("run", run)
    values = defaults(KINDS["eval"].config)
    (name,) = given["kinds"]
    if name == "linear" and given.get("protocol", "cached") != "cached":
        name = f"{name}-{given['protocol']}"
    if name == "finetune" and not given.get("finetune.names"):
        name = f"{name}-{given.get('finetune.fraction', values['finetune.fraction']):g}"
    folder = run if run.is_dir() else run.parent
    if library := library_name(run):
        folder = Path("runs", library.replace(":", "-"))
    values["out"] = folder / "eval" / name
    if (found := recorded(run)) and name != "transfer":  # which is about other images than the run's
        values["train"] = found[0].data
        values["val"] = found[0].monitor.val or MISSING
    return values


def inherit(kind: str, usual: dict[str, Any], given: Mapping[str, Any], *, tell: bool) -> dict[str, Any]:
    """The usual settings, those of how images are seen as the run says whose network the stage is given.

    tell: say in the log which of them are unusual.
    """
    parts = INHERITED.get(kind, {})
    source = next((name for name in parts if given.get(name)), None)
    known = _known_of(given[source]) if source else None
    if source is None or known is None:
        return usual
    values, file = known
    taken = {name: value for name, value in values.items() if name.startswith(parts[source])}
    news = [f"{name}={shown(value)}" for name, value in taken.items() if name not in given and value != usual[name]]
    if news and tell and place().rank == 0:
        log.info("%s: as %s says; flags say otherwise", " ".join(news), file)
    return {**usual, **taken}


def _known_of(path: Path) -> tuple[dict[str, Any], Path | str] | None:
    """What is known of how the network, or the key cache, at `path` sees images, and who says so."""
    if found := recorded(path):
        return values_of(found[0]), found[1]
    seen = seen_by(path)
    return (seen, library_name(path) or path) if seen else None
