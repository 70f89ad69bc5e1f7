"""The flags of `bingo bench profile`, without torch."""

import argparse
from pathlib import Path

from bingo.arguments import Parser, listed, whole
from bingo.config_parts import MOST_PROFILED, profile_window
from bingo.errors import UserError

VERBS = ("distill", "pretrain")
EXAMPLE = "bingo bench profile --out runs/trace -- distill --data data/train --teacher runs/teacher --bags runs/bags"


def profile_flags() -> Parser:
    about = "Profile some steps of a real training: a trace for Perfetto, and where the time of a step goes."
    parser = Parser("bingo bench profile", about, EXAMPLE, "bingo bench profile --out DIR [flags] -- VERB [its flags]")
    steps = "steps to profile, from 0, the last left out (default: 10:15)"
    parser.add_argument("--steps", type=steps_of, metavar="A:B", help=steps)
    ranks = "with --of: ranks whose traces are read, with commas between them (default: all); a run here has rank 0"
    parser.add_argument("--ranks", type=listed(whole), metavar="R,...", help=ranks)
    parser.add_argument("--out", type=Path, metavar="DIR", help="new folder for the traces; the run itself is not kept")
    of = "in place of a run: the traces that a run with --runtime.profile A:B has left in its folder"
    parser.add_argument("--of", type=Path, metavar="RUN", help=of)
    parser.add_argument("--top", type=whole, default=10, metavar="N", help="operations to name (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample and the environment here")
    words = f"after --: {' or '.join(VERBS)} and its flags, without --out; it stops behind the profiled steps"
    parser.add_argument("training", nargs="*", metavar="VERB", help=words)
    return parser


def steps_of(text: str) -> str:
    """`10:15`; argparse's error for what is no such range."""
    try:
        if "@" in text or profile_window(text) is None:
            raise UserError("")
    except UserError:
        wrong = f"{text!r} is no range A:B with A below B by at most {MOST_PROFILED}, such as 10:15"
        raise argparse.ArgumentTypeError(wrong) from None
    return text


def check_profile(options: argparse.Namespace) -> None:
    """`UserError` for flags that do not go together; --steps and --ranks get their usual values."""
    if options.of:
        for name in ("steps", "out", "training"):
            if getattr(options, name):
                flag = "a training after --" if name == "training" else f"--{name}"
                raise UserError(f"{flag} says nothing beside --of, which reads traces that are there: leave it out")
        return
    if not options.training or options.training[0] not in VERBS:
        found = f"{options.training[0]!r} is no training" if options.training else "the training is missing"
        raise UserError(f"{found}; name {' or '.join(VERBS)} and its flags behind --: {EXAMPLE}")
    if any(word.split("=")[0] == "--out" for word in options.training):
        raise UserError("--out behind -- is of no use: the run is not kept; give --out DIR before -- for the traces")
    if options.out is None:
        raise UserError("--out is missing; add --out DIR before --, a new folder for the traces")
    if options.out.is_dir() and any(options.out.iterdir()):
        raise UserError(f"--out {options.out} holds files; name a new folder")
    options.steps, options.ranks = options.steps or "10:15", options.ranks or (0,)
