"""Flags of the verbs -> stages with their settings: read alike by verbs, `bingo submit`, `bingo sweep`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from bingo.errors import UserError, did_you_mean
from bingo.stages import KINDS, Stage

POSITIONAL = {"demo-data": ("--out",), "pack": ("--source", "--out")}


def stage_of(kind: str, argv: list[str], more: str = "") -> Stage:
    """The stage that `bingo KIND` with these flags runs; exits with 2 on wrong flags, `UserError` for wrong values."""
    if kind == "eval":
        return evaluation(argv)
    from bingo.recipes import DISTILL

    argv = positional(argv, POSITIONAL.get(kind, ()))
    note = "--config FILE takes the settings of a run's config.json as defaults"
    note += f", --recipe NAME those of a recipe ({', '.join(DISTILL)})." if kind == "distill" else "."
    rest, default = with_defaults(KINDS[kind].config, argv)
    return Stage(kind, kind, parse(KINDS[kind].config, rest, kind, default, f"{note}{more}"))


def evaluation(argv: list[str]) -> Stage:
    """`eval linear|knn|fewshot RUN`: datasets and augmentation default to those of the run."""
    import typing

    from bingo.config import EvalConfig, EvalKind

    kinds = typing.get_args(EvalKind)
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: bingo eval linear|knn|fewshot RUN [--train DIR] [--val DIR] [settings]")
        raise SystemExit(0)
    if argv[0] not in kinds:
        raise UserError(f"unknown evaluation {argv[0]!r}; {did_you_mean(argv[0], kinds)}")
    if len(argv) == 1 or argv[1].startswith("-"):
        raise UserError(f"eval {argv[0]} needs a run folder or a model.pt: bingo eval {argv[0]} RUN")
    defaults = evaluation_defaults(Path(argv[1]), argv[0])
    return Stage(f"eval {argv[0]}", "eval", parse(EvalConfig, argv[2:], f"eval {argv[0]}", defaults))


def evaluation_defaults(run: Path, kind: Any) -> Any:
    """The settings that a run folder's own config.json answers; what it does not stays required."""
    from bingo.config import EvalConfig
    from bingo.config_json import from_json
    from bingo.config_parts import Augmentation, Loader
    from bingo.files import read_json

    if not run.exists():
        raise UserError(f"run {run} does not exist; give a run folder written by pretrain or distill, or a model.pt")
    missing = import_tyro().MISSING
    path = run / "config.json"
    known = read_json(path) if path.exists() else {}
    val = known.get("monitor", {}).get("val")
    loader = {name: value for name, value in known.get("loader", {}).items() if name in Loader.__dataclass_fields__}
    return EvalConfig(
        run=run,
        train=Path(known["data"]) if known else missing,
        val=Path(val) if val else missing,
        out=(run if run.is_dir() else run.parent) / "eval" / kind,
        kinds=(kind,),
        augment=from_json(Augmentation, known["augment"], str(path)) if known else Augmentation(),
        loader=from_json(Loader, loader, str(path)),
    )


def parse(cls: type, argv: list[str], verb: str, default: Any = None, note: str = "") -> Any:
    """Command line -> config dataclass through tyro (nested flags, hints for typos); exits with 2 on wrong flags."""
    tyro = import_tyro()
    kwargs = {} if default is None else {"default": default}
    description = f"{cls.__doc__}\n\n{note}".strip()
    return tyro.cli(cls, args=argv, prog=f"bingo {verb}", description=description, **kwargs)


def import_tyro() -> Any:
    """The module, or a sentence that says how to get it."""
    try:
        import tyro
    except ImportError as error:
        raise UserError(f"tyro is needed to read the flags but does not import ({error}); pip install tyro") from None
    return tyro


def with_defaults(cls: type, argv: list[str]) -> tuple[list[str], Any]:
    """Take `--config FILE` (a run's config.json) or `--recipe NAME` out: (the other arguments, settings or None)."""
    argv, path = take(argv, "--config")
    argv, recipe = take(argv, "--recipe")
    if path is not None:
        from bingo.config_json import from_json
        from bingo.files import read_json

        values = read_json(Path(path))
        values.pop("kind", None)
        return argv, key_source_of(argv, from_json(cls, values, path))
    if recipe is None:
        return argv, None
    from bingo.recipes import DISTILL

    if cls.__name__ != "DistillConfig" or recipe not in DISTILL:
        raise UserError(f"recipe {recipe!r} is unknown here; distill takes one of: {', '.join(DISTILL)}")
    missing: Any = import_tyro().MISSING  # the paths stay required
    return argv, key_source_of(argv, DISTILL[recipe](missing, missing, missing, missing))


def key_source_of(argv: list[str], default: Any) -> Any:
    """Settings of a distillation without the teacher where the flags name cached keys, and the other way round."""
    missing: Any = import_tyro().MISSING
    if hasattr(default, "keys"):
        for given, other in (("keys", "teacher"), ("teacher", "keys")):
            if any(word.split("=")[0] == f"--{given}" for word in argv):
                return replace(default, **{given: missing, other: None})
    return default


def take(argv: list[str], flag: str) -> tuple[list[str], str | None]:
    """Remove `flag VALUE` from the arguments."""
    if flag not in argv:
        return argv, None
    at = argv.index(flag)
    if at + 1 == len(argv):
        raise UserError(f"{flag} needs a value")
    return argv[:at] + argv[at + 2 :], argv[at + 1]


def positional(argv: list[str], names: tuple[str, ...]) -> list[str]:
    """Leading bare words become the named flags, in order."""
    flags: list[str] = []
    rest = list(argv)
    for name in names:
        if rest and not rest[0].startswith("-"):
            flags += [name, rest.pop(0)]
    return flags + rest
