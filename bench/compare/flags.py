"""The flags of `bingo bench compare` and `bingo bench history`, read before anything heavy is imported."""

import argparse
from pathlib import Path

from bingo.arguments import Parser, number, size
from bingo.errors import brief


def percent(text: str) -> float:
    """`3%`, `3` or `0.5 %` as a share."""
    bare = text.strip().removesuffix("%").strip()
    try:
        value = number(bare)
    except argparse.ArgumentTypeError:
        value = -1.0
    if not 0 < value < 100:
        raise argparse.ArgumentTypeError(f"{brief(text)} is not a percentage above 0 and below 100, such as 3%")
    return value / 100


def compare_flags() -> Parser:
    about = "Is B faster than A? Two result files, or two checkouts measured in turns. 1: --gate is missed."
    example = "bingo bench compare ../before . --processes 20 --gate 3% -- step --device cpu"
    usage = "bingo bench compare A B [flags] [-- MEASUREMENT its flags]"
    parser = Parser("bingo bench compare", about, example, usage=usage)
    parser.add_argument("a", type=Path, metavar="A", help="the result before, or the checkout")
    parser.add_argument("b", type=Path, metavar="B", help="the one after; of checkouts the words after -- run in both")
    threshold = "smaller differences count as none (default: 1%%)"
    parser.add_argument("--threshold", type=percent, metavar="P%", help=threshold)
    gate = "exit status 1 if a row is slower, and by its interval perhaps by so much"
    parser.add_argument("--gate", type=percent, metavar="P%", help=gate)
    clock = "only rows of this clock (default: cpu where both sides have it, otherwise every one)"
    parser.add_argument("--clock", choices=["cpu", "wall", "cuda"], help=clock)
    processes = "checkouts: fresh processes of each (default: 10)"
    parser.add_argument("--processes", type=size, metavar="N", help=processes)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every ratio and verdict here")
    return parser


def history_flags() -> Parser:
    about = "Committed results over commits and machines, each beside the one before it on the same hardware."
    parser = Parser(
        "bingo bench history", about, "bingo bench history --only step", "bingo bench history [PATH...] [flags]"
    )
    paths = "result files, or folders of them (default: bench/results of this checkout)"
    parser.add_argument("paths", type=Path, nargs="*", metavar="PATH", help=paths)
    parser.add_argument("--only", metavar="NAME", help="this measurement alone (default: all)")
    parser.add_argument(
        "--threshold", type=percent, metavar="P%", help="smaller differences count as none (default: 1%%)"
    )
    return parser
