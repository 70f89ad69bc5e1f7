"""The `bingo` command. `--help` and typos answer without importing torch: every verb imports what it needs."""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bingo import __version__
from bingo.errors import UserError, did_you_mean
from bingo.watch import Leaving, Watch


class Verb(NamedTuple):
    """A verb: its group in the help, one line of help, and the function that gets the remaining arguments."""

    group: str
    help: str
    run: Callable[[list[str]], int]


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit status: 0 done, 1 problems found, 2 wrong input, 75 left when asked to, 130 interrupted."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        print(f"bingo {__version__}")
        return 0
    logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("bingo").setLevel(logging.INFO)  # and not what libraries say while they load
    try:
        if words[0] not in VERBS:
            raise UserError(f"unknown verb {words[0]!r}; {did_you_mean(words[0], VERBS)} (`bingo --help` lists all)")
        return VERBS[words[0]].run(words[1:])
    except UserError as error:
        print(f"bingo {words[0]}: {error}", file=sys.stderr)
        return 2
    except Leaving as leaving:
        print(f"{leaving}; run the same command again to resume", file=sys.stderr)
        return 75
    except BrokenPipeError:  # the reader of a pipe (`| head`) has left: not an error of ours, and nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return 130


def usage() -> str:
    """The top-level help."""
    lines = ["usage: bingo VERB [arguments]   (bingo VERB --help for its settings)", ""]
    groups: dict[str, list[str]] = {}
    for name, verb in VERBS.items():
        groups.setdefault(verb.group, []).append(f"  {name:10s} {verb.help}")
    for group, rows in groups.items():
        lines += [group, *rows, ""]
    return "\n".join(lines).rstrip()


def import_tyro() -> Any:
    """The module, or a sentence that says how to get it."""
    try:
        import tyro
    except ImportError as error:
        raise UserError(f"tyro is needed to read the flags but does not import ({error}); pip install tyro") from None
    return tyro


def parse(cls: type, argv: list[str], verb: str, default: Any = None, note: str = "") -> Any:
    """Command line -> config dataclass through tyro (nested flags, hints for typos); exits with 2 on wrong flags."""
    tyro = import_tyro()
    kwargs = {} if default is None else {"default": default}
    description = f"{cls.__doc__}\n\n{note}".strip()
    return tyro.cli(cls, args=argv, prog=f"bingo {verb}", description=description, **kwargs)


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
    from dataclasses import replace

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


def stage_verb(kind: str, more: str = "") -> Callable[[list[str]], int]:
    """The verb that runs one kind of stage in this process (or under torchrun / srun, as one of several ranks)."""

    def run(argv: list[str]) -> int:
        from bingo.recipes import DISTILL
        from bingo.stages import KINDS, Stage, run_stage

        note = "--config FILE takes the settings of a run's config.json as defaults"
        note += f", --recipe NAME those of a recipe ({', '.join(DISTILL)})." if kind == "distill" else "."
        rest, default = with_defaults(KINDS[kind].config, argv)
        config = parse(KINDS[kind].config, rest, kind, default, f"{note}{more}")
        watch = Watch()
        if KINDS[kind].resumable:  # the others would only hear, and never leave
            watch.listen()
        return say(run_stage(Stage(kind, kind, config), watch=watch), config.out)

    return run


def say(record: dict[str, Any], out: Path) -> int:
    """Print one line about a finished stage (rank 0)."""
    if os.environ.get("RANK", "0") == "0":
        known = {name: value for name, value in record["figures"].items() if value is not None}
        figures = "  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in known.items())
        print(f"{out}: {'already done' if record['skipped'] else format(record['seconds'], '.1f') + ' s'}  {figures}")
    return 0


def demo_data(argv: list[str]) -> int:
    """`bingo demo-data DIR`."""
    return stage_verb("demo-data")(positional(argv, ["--out"]))


def pack(argv: list[str]) -> int:
    """`bingo pack SOURCE OUT`, `bingo pack --verify DIR`: what became of each file; or each damaged image."""
    rest, packed = take(argv, "--verify")
    if packed is not None:
        return verify(Path(packed), rest)
    more = " --verify DIR [--workers N] instead hashes every image of a packed dataset and names the damaged ones."
    return stage_verb("pack", more)(positional(argv, ["--source", "--out"]))


def verify(packed: Path, argv: list[str]) -> int:
    """`bingo pack --verify DIR`."""
    import argparse

    parser = argparse.ArgumentParser(prog="bingo pack --verify DIR", description="Hash every packed image again.")
    parser.add_argument("--workers", type=int, default=0, help="threads (0: all cores)")
    options = parser.parse_args(argv)
    from bingo.dataset import Dataset
    from bingo.names import printable
    from bingo.progress import progress

    dataset = Dataset.open(packed)
    with progress("verify") as advance:
        damaged = dataset.verify(workers=options.workers, progress=advance)
    for path in damaged:
        print(f"{'damaged':12s} {printable(path)}")
    print(f"{packed}: {len(dataset)} images, {len(damaged)} damaged{'; pack them again' if damaged else ''}")
    return 1 if damaged else 0


def positional(argv: list[str], names: list[str]) -> list[str]:
    """Leading bare words become the named flags, in order."""
    flags: list[str] = []
    rest = list(argv)
    for name in names:
        if rest and not rest[0].startswith("-"):
            flags += [name, rest.pop(0)]
    return flags + rest


def check(argv: list[str]) -> int:
    """`bingo check SOURCE [--json FILE]`: every file that is not plainly usable is named with the reason."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="bingo check", description="Decode every image of a source strictly and name what is wrong."
    )
    parser.add_argument("source", type=Path, help="folder of class folders, .tar file, folder of them, or pattern")
    parser.add_argument(
        "--json", type=Path, help="write the verdict of every file here; a check that is interrupted goes on"
    )
    parser.add_argument("--workers", type=int, default=0, help="decoding threads (0: all cores)")
    options = parser.parse_args(argv)
    from bingo.check import check_folder
    from bingo.files import make_folder
    from bingo.progress import progress

    journal = None
    if options.json:
        make_folder(options.json.parent)
        journal = options.json.with_name(f".{options.json.name}.journal")
    with progress("check") as advance:
        result = check_folder(options.source, workers=options.workers, progress=advance, journal=journal)
    if journal:
        result.write_json(options.json)
        journal.unlink()
    for line in result.lines():
        print(line)
    return 1 if result.counts["ok"] < len(result.rows) else 0


def evaluate(argv: list[str]) -> int:
    """`bingo eval linear|knn|fewshot RUN`: datasets and augmentation default to those of the run."""
    import typing

    from bingo.config import EvalConfig, EvalKind
    from bingo.stages import Stage, run_stage

    kinds = typing.get_args(EvalKind)
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: bingo eval linear|knn|fewshot RUN [--train DIR] [--val DIR] [settings]")
        return 0
    if argv[0] not in kinds:
        raise UserError(f"unknown evaluation {argv[0]!r}; {did_you_mean(argv[0], kinds)}")
    if len(argv) == 1 or argv[1].startswith("-"):
        raise UserError(f"eval {argv[0]} needs a run folder or a model.pt: bingo eval {argv[0]} RUN")
    config = parse(EvalConfig, argv[2:], f"eval {argv[0]}", evaluation_defaults(Path(argv[1]), argv[0]))
    return say(run_stage(Stage(f"eval {argv[0]}", "eval", config)), config.out)


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


def run_recipe(argv: list[str]) -> int:
    """`bingo run digits`: the chain through submitit, then the report."""
    import argparse

    from bingo.recipes import CHAINS

    parser = argparse.ArgumentParser(
        prog="bingo run", description="Run a whole recipe on this machine; what is done is skipped."
    )
    parser.add_argument("recipe", help="one of: " + ", ".join(CHAINS))
    parser.add_argument("--out", type=Path, default=None, help="folder for everything (default: runs/RECIPE)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds per arm (default 5)")
    parser.add_argument(
        "--ranks", type=int, default=None, help="processes per job (default 2, or one per GPU if fewer)"
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=None,
        help="epochs of the distilled arms (the undistilled one makes twice, the teacher five times as many)",
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    options = parser.parse_args(argv)
    if options.recipe not in CHAINS:
        raise UserError(f"recipe {options.recipe!r} is unknown; {did_you_mean(options.recipe, CHAINS)}")
    options.gpus = visible_gpus(options.device)
    if options.ranks is None:
        options.ranks = min(2, options.gpus) if options.gpus else 2
    if options.seeds < 1 or options.ranks < 1:
        raise UserError("--seeds and --ranks must be at least 1")
    return run_chain_and_report(options)


def run_chain_and_report(options: Any) -> int:
    """Run the chain, then write the report beside it."""
    from bingo.files import write_json
    from bingo.launch import Chain, Job, run_chain
    from bingo.recipes import CHAINS

    extra = {} if options.epochs is None else {"epochs": options.epochs}
    root = options.out or Path("runs") / options.recipe
    recipe = CHAINS[options.recipe](root, seeds=options.seeds, device=options.device, **extra)
    chain = Chain(root, tuple(Job(group.stages, options.ranks if group.parallel else 1) for group in recipe.jobs))
    records = run_chain(chain, gpus=options.gpus)
    summary = {
        "recipe": options.recipe,
        "arms": recipe.arms,
        "stages": [stage.to_json() for group in recipe.jobs for stage in group.stages],
    }
    changed = any(not record["skipped"] for record in records) or not (root / "report.html").exists()
    if changed:
        write_json(root / "recipe.json", summary)
        report([str(root)])
    else:
        print(f"{'report':28s} {'done before':>11s}   {root / 'report.html'}")
    return 0


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


def report(argv: list[str]) -> int:
    """`bingo report ROOT`."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="bingo report", description="One self-contained HTML page about a finished recipe."
    )
    parser.add_argument("root", type=Path, help="the folder given to `bingo run`")
    parser.add_argument("--out", type=Path, default=None, help="default: ROOT/report.html")
    options = parser.parse_args(argv)
    from bingo.bench.report import write_report

    for text in write_report(options.root, options.out or options.root / "report.html"):
        print(text)
    return 0


def doctor(argv: list[str]) -> int:
    """`bingo doctor`."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="bingo doctor",
        description="What is installed, what hardware and scheduler there is, and what would not work.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    from bingo.doctor import examine, show

    findings = examine()
    print(json.dumps(findings, indent=2) if options.json else show(findings))
    return 0


def bench(argv: list[str]) -> int:
    """`bingo bench env | aot | kernels | step | loader | bags | gpu`."""
    from bingo.bench.command import main as bench_main

    return bench_main(argv)


VERBS = {
    "doctor": Verb("look", "what is installed, which hardware and scheduler there is, what would not work", doctor),
    "check": Verb("look", "decode images strictly and name every bad file", check),
    "demo-data": Verb("data", "write scikit-learn's handwritten digits as JPEG files", demo_data),
    "pack": Verb("data", "images as flat files with an index; --verify looks for damage", pack),
    "pretrain": Verb("method", "MoCo-v2: make a teacher, or the undistilled baseline", stage_verb("pretrain")),
    "features": Verb("method", "pooled teacher features of every image", stage_verb("features")),
    "bags": Verb("method", "nearest neighbours (or clusters, labels, random) of every image", stage_verb("bags")),
    "keys": Verb("method", "teacher keys of many views of every image, once, for distill --keys", stage_verb("keys")),
    "distill": Verb("method", "train a student on bags under a frozen teacher", stage_verb("distill")),
    "eval": Verb("method", "linear, kNN and few-label accuracy of a run", evaluate),
    "export": Verb("method", "plain torchvision weights", stage_verb("export")),
    "run": Verb("whole", "a whole recipe on this machine: bingo run digits", run_recipe),
    "report": Verb("whole", "one self-contained HTML page about a recipe's run", report),
    "bench": Verb("measure", "env, aot, kernels, step, loader, bags, gpu", bench),
}
