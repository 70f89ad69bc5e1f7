"""The `bingo` command. `--help` and typos answer without importing torch: every verb imports what it needs."""

import argparse
import importlib
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bingo import __version__, streams
from bingo.arguments import Parser, between
from bingo.config_parts import MOST_THREADS
from bingo.errors import UserError, did_you_mean, escaped, of_process, refusal
from bingo.variables import forget_ranks, place
from bingo.watch import Leaving, Watch

log = logging.getLogger(__name__)
PRINTED = ("doctor", "check", "status", "logs", "history", "prune", "recipes", "bench", "completion")
"""Verbs whose result is what they print."""
JOBS, STATUS = "bingo.launch.command", "bingo.launch.status.command"
STAGES = ("data", "method")
"""Groups of verbs that may be one rank of several."""


class Verb(NamedTuple):
    """A verb: its group in the help, one line of help, and the function that gets the remaining arguments."""

    group: str
    help: str
    run: Callable[[list[str]], int]


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit status: 0 done, 1 problems found, 2 wrong input, 75 left when asked to, 130 interrupted."""
    missing = streams.prepare()
    if argv is None:
        streams.use_utf8()
    words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("bingo").setLevel(logging.INFO)  # and not what libraries say while they load
    status = ended(words[0], words[1:])
    if "stdout" in missing and words[0] in PRINTED and status in (0, 1):
        status = unread(words[0], "it is closed")
    streams.silence()  # whatever cannot be written by now
    return status


def unread(verb: str, why: str) -> int:
    streams.tell(f"bingo {verb}: standard output cannot be written: {why}; what was to be shown is lost")
    return 1


def ended(verb: str, words: list[str]) -> int:
    """Run a verb and say in a sentence why it failed, if it did; the exit status."""
    try:
        try:
            return answer(verb, words)
        finally:
            sys.stdout.flush()  # a reader that has left is noticed here, and not when Python ends
    except UserError as error:
        streams.tell("\n".join(map(escaped, f"bingo {verb}: {error}".split("\n"))))
        return 2
    except Leaving as leaving:
        streams.tell(f"{leaving}; run the same command again to resume")
        return 75
    except BrokenPipeError:  # the reader of a pipe (`| head`) has left: not an error of ours, and nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, MemoryError) as error:
        if not of_process(error) and getattr(error, "filename", None) is None and (why := streams.silence(probe="\n")):
            return unread(verb, why)
        if not (told := refusal(error)):
            raise
        streams.tell(f"bingo {verb}: {escaped(told)}")
        return 2
    except KeyboardInterrupt:
        streams.tell("interrupted; run the same command again to resume")
        return 130


def answer(verb: str, words: list[str]) -> int:
    """Run a verb, or say what there is; the exit status."""
    if verb in VERBS:
        try:
            os.getcwd()
        except OSError as error:
            raise UserError(f"the current folder cannot be used: {error.strerror}; go to another one: cd") from None
        if VERBS[verb].group not in STAGES and verb != "doctor" and words[:1] != ["roof"] and (told := forget_ranks()):
            log.warning("%s does not count here: `bingo %s` is one process", " ".join(told), verb)
        return VERBS[verb].run(words)
    if verb not in ("-h", "--help", "help", "--version"):
        raise UserError(f"unknown verb {verb!r}; {did_you_mean(verb, VERBS)} (`bingo --help` lists all)")
    print(f"bingo {__version__}" if verb == "--version" else usage())
    return 0


def usage() -> str:
    """The top-level help."""
    lines = ["usage: bingo VERB [arguments]   (bingo VERB --help for its settings)", ""]
    groups: dict[str, list[str]] = {}
    for name, verb in VERBS.items():
        groups.setdefault(verb.group, []).append(f"  {name:10s} {verb.help}")
    for group, rows in groups.items():
        lines += [group, *rows, ""]
    return "\n".join(lines).rstrip()


def stage_verb(kind: str) -> Callable[[list[str]], int]:
    """The verb that runs one kind of stage in this process (or under torchrun / srun, as one of several ranks)."""

    def run(argv: list[str]) -> int:
        from bingo.flags import flags_of

        return run_kind(kind, argv, flags_of(kind))

    return run


def run_kind(kind: str, argv: list[str], parser: Parser) -> int:
    """Read the flags of one kind of stage and run it."""
    from bingo.flags import stage_of
    from bingo.stages import run_stage

    stage, watch = stage_of(kind, argv, parser=parser), Watch()
    place()  # wrong variables are refused before there is any work
    if stage.resumable:  # the others would only hear, and never leave
        watch.listen()
    return say(run_stage(stage, watch=watch), stage.out)


def say(record: dict[str, Any], out: Path) -> int:
    """Print one line about a finished stage (rank 0)."""
    if place().rank == 0:
        known = {name: value for name, value in record["figures"].items() if value is not None}
        figures = "  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in known.items())
        print(f"{out}: {'already done' if record['skipped'] else format(record['seconds'], '.1f') + ' s'}  {figures}")
    return 0


def pack(argv: list[str]) -> int:
    """`bingo pack SOURCE OUT`, `bingo pack --verify DIR`: what became of each file; or each damaged image."""
    if any(word.partition("=")[0] == "--verify" for word in argv):
        return verify(argv)
    return run_kind("pack", argv, pack_flags())


def pack_flags() -> Parser:
    """What packing takes, and the flag that asks for something else."""
    from bingo.flags import flags_of

    parser = flags_of("pack")
    text = "instead of packing: hash every image of a packed dataset and name the damaged ones; takes --workers"
    parser.add_argument("--verify", metavar="DIR", default=argparse.SUPPRESS, help=text)
    return parser


def verify_flags() -> Parser:
    parser = Parser("bingo pack", "Hash every image of a packed dataset again.", "bingo pack --verify data/train")
    parser.add_argument("--verify", type=Path, required=True, metavar="DIR", help="the packed dataset")
    parser.add_argument(
        "--workers", type=between(0, MOST_THREADS), default=0, metavar="N", help="threads (default 0: all cores)"
    )
    return parser


def verify(argv: list[str]) -> int:
    """`bingo pack --verify DIR`."""
    options = verify_flags().parse_args(argv)
    from bingo.images.names import printable
    from bingo.images.open import open_dataset
    from bingo.progress import progress_bar

    packed = options.verify
    dataset = open_dataset(packed)
    with progress_bar("verify", unit="images", images=1) as advance:
        damaged = dataset.verify(workers=options.workers, advance=advance)
    for path in damaged:
        print(f"{'damaged':12s} {printable(path)}")
    print(f"{packed}: {len(dataset)} images, {len(damaged)} damaged{'; pack them again' if damaged else ''}")
    return 1 if damaged else 0


def check_flags() -> Parser:
    parser = Parser(
        "bingo check", "Decode every image of a source strictly and name what is wrong.", "bingo check images/train"
    )
    source = "folder of class folders, .tar file, folder of them, or pattern"
    classes = "where classes come from in tar files, as for bingo pack (default: what is found)"
    endings = "take images with these endings only: jpg or jpg,png (default: every kind)"
    parser.add_argument("source", type=Path, metavar="SOURCE", help=source)
    verdicts = "write the verdict of every file here; a check that is interrupted goes on"
    parser.add_argument("--json", type=Path, metavar="FILE", help=verdicts)
    parser.add_argument("--class-from", default="", metavar="NAME", help=classes)
    parser.add_argument("--ext", default="", metavar="NAME", help=endings)
    text = "decoding threads (default 0: all cores)"
    parser.add_argument("--workers", type=between(0, MOST_THREADS), default=0, metavar="N", help=text)
    return parser


def check(argv: list[str]) -> int:
    """`bingo check SOURCE [--json FILE]`: every file that is not plainly usable is named with the reason."""
    options = check_flags().parse_args(argv)
    from bingo.files import make_folder
    from bingo.images.check import check_folder
    from bingo.progress import progress_bar

    journal = None
    if options.json:
        make_folder(options.json.parent)
        journal = options.json.with_name(f".{options.json.name}.journal")
    with progress_bar("check", unit="images", images=1) as advance:
        result = check_folder(
            options.source,
            workers=options.workers,
            advance=advance,
            journal=journal,
            class_from=options.class_from,
            ext=options.ext,
        )
    if journal:
        result.write_json(options.json)
        journal.unlink()
    for line in result.lines():
        print(line)
    if command := result.next_command():
        print(f"next: {command}")
    return 1 if result.counts["ok"] < len(result.rows) else 0


def chains(name: str) -> Callable[[list[str]], int]:
    """`bingo run`, `bingo submit`, `bingo sweep`: what ends with a report."""

    def run(argv: list[str]) -> int:
        from bingo.launch import command, here

        return getattr(here if name == "run" else command, name)(argv, report)

    return run


def leaderboard(argv: list[str]) -> int:
    """`bingo leaderboard WHAT`."""
    from bingo.launch.here import leaderboard as run

    return run(argv, report, tables)


def tables(root: Path) -> list[str]:
    """Write the table and the picture of a finished leaderboard; lines to print."""
    from bingo.bench.report.leaderboard import write

    return write(root)


def elsewhere(module: str, function: str) -> Callable[[list[str]], int]:
    """A verb whose function lies in a module that is imported when it is asked for."""

    def run(argv: list[str]) -> int:
        return getattr(importlib.import_module(module), function)(argv)

    return run


def report_flags() -> Parser:
    about = "Runs, benchmarks and jobs, any of them together, as one self-contained HTML page."
    parser = Parser("bingo report", about, "bingo report runs/a runs/b step.json --out report.html")
    given = "folders of trainings, of `bingo run` or `bingo submit`; result files of `bingo bench --json`"
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help=given)
    usual = "report.html, in the folder of `bingo run` or `bingo submit` if that alone is given"
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"the page (default: {usual})")
    return parser


def report(argv: list[str]) -> int:
    """`bingo report PATH...`."""
    options = report_flags().parse_args(argv)
    from bingo.bench.report.page import write_reports

    for text in write_reports(options.paths, options.out):
        print(text)
    return 0


def doctor_flags() -> Parser:
    about = "What is installed, what hardware and scheduler there is, and what would not work."
    parser = Parser("bingo doctor", about, "bingo doctor --cluster site.toml")
    text = "instead: will jobs checkpoint on this Slurm, does this site file fit? 1: no"
    parser.add_argument("--cluster", nargs="?", type=Path, const=Path(), metavar="SITE.toml", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def doctor(argv: list[str]) -> int:
    """`bingo doctor`, `bingo doctor --cluster [SITE.toml]`."""
    options = doctor_flags().parse_args(argv)
    if options.cluster is not None:
        from bingo.launch.cluster.doctor import doctor_cluster

        return doctor_cluster(options.cluster if options.cluster.name else None, options.json)
    from bingo.doctor import examine, show

    print(json.dumps(examine(), indent=2) if options.json else show(examine()))
    return 0


def bench(argv: list[str]) -> int:
    """`bingo bench MEASUREMENT`, see `bingo.bench.command`."""
    from bingo.bench.command import main as bench_main

    return bench_main(argv)


def completion_flags() -> Parser:
    about = "Print what a shell needs to complete the words of bingo."
    parser = Parser("bingo completion", about, 'eval "$(bingo completion bash)"   (in ~/.bashrc)')
    parser.add_argument("shell", choices=["bash", "zsh"], metavar="bash|zsh", help="the shell")
    return parser


def completion(argv: list[str]) -> int:
    """`bingo completion bash|zsh`."""
    shell = completion_flags().parse_args(argv).shell
    from bingo.completion import script

    print(script(shell, list(VERBS), parsers()), end="")
    return 0


def parsers() -> dict[str, Parser]:
    """The words of every command (`check`, `bench step`) and its flags."""
    from bingo.bench.command import MEASUREMENTS
    from bingo.explain import explain_flags
    from bingo.flags import DOORS, flags_of
    from bingo.launch import command, here
    from bingo.launch.status import command as looks
    from bingo.launch.status.prune import prune_flags
    from bingo.recipes.command import recipes_flags

    found = {"doctor": doctor_flags(), "explain": explain_flags(), "check": check_flags(), "report": report_flags()}
    found |= {kind: flags_of(kind) for kind in DOORS} | {"pack": pack_flags(), "completion": completion_flags()}
    found |= {
        "recipes": recipes_flags(),
        "run": here.run_flags(),
        "leaderboard": here.leaderboard_flags(),
        "submit": command.submit_flags(),
        "sweep": command.sweep_flags(),
    }
    found |= {"repair": command.repair_flags(), "cancel": command.cancel_flags(), "prune": prune_flags()}
    found |= {"status": looks.status_flags(), "logs": looks.logs_flags(), "history": looks.history_flags()}
    return found | {f"bench {name}": measurement.flags() for name, measurement in MEASUREMENTS.items()}


VERBS = {
    "doctor": Verb("look", "what is installed, which hardware and scheduler there is, what would not work", doctor),
    "explain": Verb(
        "look", "what a stage's folder was made of, and what differs now", elsewhere("bingo.explain", "explain")
    ),
    "check": Verb("look", "decode images strictly and name every bad file", check),
    "demo-data": Verb("data", "write scikit-learn's digits, or those of IDX files, as JPEGs", stage_verb("demo-data")),
    "pack": Verb("data", "images as flat files with an index; --verify looks for damage", pack),
    "pretrain": Verb("method", "MoCo-v2: make a teacher, or the undistilled baseline", stage_verb("pretrain")),
    "teacher": Verb("method", "a network of others as a teacher: a head for its keys", stage_verb("teacher")),
    "features": Verb("method", "pooled teacher features of every image", stage_verb("features")),
    "bags": Verb("method", "nearest neighbours (or clusters, labels, random) of every image", stage_verb("bags")),
    "keys": Verb("method", "teacher keys of many views of every image, once, for distill --keys", stage_verb("keys")),
    "distill": Verb("method", "train a student on bags under a frozen teacher", stage_verb("distill")),
    "eval": Verb("method", "linear, kNN, few-label, fine-tuned and transfer accuracy of a run", stage_verb("eval")),
    "export": Verb("method", "weights for torchvision, timm, ONNX and detectron2", stage_verb("export")),
    "recipes": Verb(
        "whole",
        "published rows as cards: what to type, what is to come out; check builds them",
        elsewhere("bingo.recipes.command", "main"),
    ),
    "run": Verb("whole", "a whole recipe on this machine: bingo run digits", chains("run")),
    "leaderboard": Verb("whole", "every objective at equal cost, ranked: bingo leaderboard digits", leaderboard),
    "report": Verb("whole", "one self-contained HTML page about runs, benchmarks and jobs", report),
    "submit": Verb("cluster", "a whole recipe, or one stage, as jobs of a cluster; --dry-run", chains("submit")),
    "sweep": Verb("cluster", "a recipe, or a verb, with every combination of some settings", chains("sweep")),
    "status": Verb(
        "cluster", "what every job of a chain does now, and why; what to type next", elsewhere(STATUS, "status")
    ),
    "logs": Verb("cluster", "what the ranks of a job printed; -f follows the whole chain", elsewhere(STATUS, "logs")),
    "history": Verb(
        "cluster", "every start of every job: its time, its lost steps, why it ended", elsewhere(STATUS, "history")
    ),
    "repair": Verb(
        "cluster", "send again what failed, was cancelled or never sent; what is done stays", elsewhere(JOBS, "repair")
    ),
    "cancel": Verb("cluster", "end the jobs of a submission, or some and what needs them", elsewhere(JOBS, "cancel")),
    "prune": Verb(
        "cluster",
        "what old submissions left behind, shown; --yes deletes it, results never",
        elsewhere("bingo.launch.status.prune", "prune"),
    ),
    "bench": Verb("measure", "speed, measured, predicted and compared: kernels, step, loader, scaling and more", bench),
    "completion": Verb("shell", "completion of verbs and flags for bash and zsh", completion),
}
