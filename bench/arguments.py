"""The flags of every measurement, read before anything heavy is imported, and the device that one of them names."""

import argparse
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bingo.arguments import Parser, listed, positive, size
from bingo.config_parts import Impl
from bingo.errors import UserError

if TYPE_CHECKING:
    import torch

ONLY = ("correctness", "kernels", "step", "bags", "one")


def env_flags() -> Parser:
    about = "The environment record that every run keeps."
    return _with_json(Parser("bingo bench env", about, "bingo bench env --json env.json"))


def aot_flags() -> Parser:
    about = "Every kernel compiled for sm_80, sm_90 and sm_100; no GPU needed. 1: a gate failed."
    return _with_json(Parser("bingo bench aot", about, "bingo bench aot --json aot.json"))


def kernels_flags() -> Parser:
    about = "The queue-softmax loss: our kernels and their peers on a GPU, or chunked against naive on a CPU."
    parser = Parser("bingo bench kernels", about, "bingo bench kernels --rows 256,768 --json kernels.json")
    rows = "query rows R, with commas between them (default: 256,768,1536,3072; CPU: one, 768)"
    parser.add_argument("--rows", type=listed(size), metavar="R,...", help=rows)
    parser.add_argument("--queue", type=size, default=65536, metavar="K", help="queue length K (default: 65536)")
    parser.add_argument("--dim", type=size, default=128, metavar="C", help="channels C (default: 128)")
    samples = "timed samples of each variant (default: 7); GPU: in each of 10 visits (default: 5)"
    parser.add_argument("--samples", type=size, metavar="N", help=samples)
    seconds = "GPU: start nothing new after so many seconds (default: 150)"
    parser.add_argument("--seconds", type=positive, metavar="S", help=seconds)
    variants = "CPU: only those whose name, or what follows its comma, begins like one of these (default: all)"
    parser.add_argument("--variants", type=listed(str), default=(), metavar="NAME,...", help=variants)
    picture = "draw the result here, .svg or .png (needs matplotlib)"
    parser.add_argument("--picture", type=Path, metavar="FILE", help=picture)
    device = "auto (a GPU if there is one), cpu, cuda or cuda:N (default: auto)"
    parser.add_argument("--device", default="auto", metavar="NAME", help=device)
    return _with_json(parser)


def step_flags() -> Parser:
    about = "One distillation step, ours beside a release-style one: speed, memory, and where the time goes."
    parser = Parser("bingo bench step", about, "bingo bench step --batch 128,256 --json step.json")
    batch = "images per step, with commas between them (default: 256; CPU: 16)"
    parser.add_argument("--batch", type=listed(size), metavar="N,...", help=batch)
    parser.add_argument("--student", metavar="NAME", help="network (default: resnet18; CPU: tiny-4)")
    parser.add_argument("--teacher", metavar="NAME", help="network (default: resnet50; CPU: tiny-8)")
    parser.add_argument("--size", type=size, metavar="N", help="pixels per side (default: 224; CPU: 32)")
    parser.add_argument("--queue", type=size, metavar="K", help="keys in the queue (default: 65536; CPU: 512)")
    parser.add_argument("--dim", type=size, metavar="C", help="channels of a key (default: 128; CPU: 16)")
    parser.add_argument("--samples", type=size, metavar="N", help="timed samples per variant (default: 12; CPU: 5)")
    parser.add_argument("--burst", type=size, metavar="N", help="whole steps per sample (default: 3; CPU: 1)")
    impl = "of the loss in our variants (default: auto)"
    parser.add_argument("--impl", choices=typing.get_args(Impl), help=impl)
    threads = "CPU threads (default: as many as there are cores)"
    parser.add_argument("--threads", type=size, metavar="N", help=threads)
    variants = "only those whose name, or what follows its comma, begins like one of these (default: all)"
    parser.add_argument("--variants", type=listed(str), default=(), metavar="NAME,...", help=variants)
    compiled = "torch.compile variants too (default: yes; CPU: no)"
    parser.add_argument("--compile", choices=["yes", "no"], help=compiled)
    return _with_json(_with_device(parser))


def loader_flags() -> Parser:
    about = "What decoding, cropping and augmenting an image costs, ours beside other loaders. 1: wrong pixels."
    parser = Parser("bingo bench loader", about, "bingo bench loader --variants packed,release --json loader.json")
    data = "an image folder of yours (default: images made for the purpose)"
    parser.add_argument("--data", type=Path, metavar="DIR", help=data)
    parser.add_argument("--images", type=size, metavar="N", help="without --data: how many to make (default: 256)")
    cache = "without --data: keep the made images here for the next time"
    parser.add_argument("--cache", type=Path, metavar="DIR", help=cache)
    parser.add_argument("--batch", type=size, default=16, metavar="N", help="images per batch (default: 16)")
    burst = "batches per sample (default: 16)"
    parser.add_argument("--burst", type=size, default=16, metavar="N", help=burst)
    rounds = "two samples of each variant per round (default: 3)"
    parser.add_argument("--rounds", type=size, default=3, metavar="N", help=rounds)
    threads = "threads, or worker processes (default: 1)"
    parser.add_argument("--threads", type=size, default=1, metavar="N", help=threads)
    variants = "only those whose name, or what follows its comma, begins like one of these (default: all)"
    parser.add_argument("--variants", type=listed(str), default=(), metavar="NAME,...", help=variants)
    seconds = "GPU: how long memory is watched (default: 30)"
    parser.add_argument("--seconds", type=positive, metavar="S", help=seconds)
    return _with_json(_with_device(parser))


def check_loader(options: argparse.Namespace) -> None:
    """`UserError` for what says how images are made, where they are not."""
    for name in ("images", "cache"):
        if options.data and getattr(options, name) is not None:
            raise UserError(f"--{name} is about images that are made here: leave it out beside --data")


def chosen(every: Iterable[str], words: Sequence[str]) -> list[str]:
    """The names of which a part (they have commas) begins like one of the words; all without words.

    `UserError`, which lists the names, where none does.
    """
    every = list(every)
    found = [name for name in every if not words or any(p.startswith(tuple(words)) for p in name.split(", "))]
    if not found:
        raise UserError(f"--variants {','.join(words)}: there are {'; '.join(every)}")
    return found


def bags_flags() -> Parser:
    about = "Who finds neighbours how fast: faiss, plain PyTorch, our kernel, and whole exact bags. 1: a gate failed."
    parser = Parser("bingo bench bags", about, "bingo bench bags --images 20000 --json bags.json")
    parser.add_argument("--images", type=size, metavar="N", help="database rows N (default: 200000; CPU: 20000)")
    parser.add_argument("--dim", type=size, metavar="D", help="channels D (default: 2048; CPU: 256)")
    parser.add_argument("--queries", type=size, metavar="Q", help="queries Q (default: all; CPU: 4096)")
    parser.add_argument("--k", type=size, metavar="N", help="bag size (default: 5)")
    parser.add_argument("--rounds", type=size, metavar="N", help="two visits of every variant each (default: 3)")
    return _with_json(_with_device(parser))


def gpu_flags() -> Parser:
    about = "Everything a GPU has to show in one command: correctness, kernels, a step, bags. 1: a check failed."
    parser = Parser("bingo bench gpu", about, "bingo bench gpu --out runs/gpu")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for gpu.json and gpu.txt; not for --only one")
    parser.add_argument("--minutes", type=positive, metavar="X", help="stop after about this long (default: 8)")
    only = "one part, or one op a few times for a profiler (default: every part)"
    parser.add_argument("--only", choices=ONLY, help=only)
    parser.add_argument("--quick", action="store_true", help="correctness: small shapes in this process")
    impl = "correctness and one: this one alone (default: all)"
    parser.add_argument("--impl", choices=["triton", "hopper", "chunked"], help=impl)
    parser.add_argument("--rows", type=size, metavar="R", help="one: query rows R (default: 768)")
    return _with_device(parser, "cpu: a small run for CI (default: auto, which asks for a GPU)")


def check_gpu(options: argparse.Namespace) -> None:
    """`UserError` for flags of a part that is not run; --minutes and --rows get their usual values."""
    if options.out is None and options.only != "one":
        raise UserError("--out is missing; add --out DIR, the folder for gpu.json and gpu.txt")
    used = {
        "out": options.only != "one",
        "minutes": options.only != "one",
        "quick": options.only in (None, "correctness"),
        "impl": options.only in (None, "correctness", "one"),
        "rows": options.only == "one",
    }
    for name, read in used.items():
        if getattr(options, name) and not read:
            beside = f"beside --only {options.only}" if options.only else "without --only one"
            raise UserError(f"--{name} says nothing {beside}: leave it out")
    options.minutes, options.rows = options.minutes or 8.0, options.rows or 768


def _with_device(parser: Parser, text: str = "auto is a GPU if there is one (default: auto)") -> Parser:
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help=text)
    return parser


def _with_json(parser: Parser) -> Parser:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample and the environment here")
    processes = "measure in so many fresh processes, one after the other (default: 1, this one)"
    parser.add_argument("--processes", type=size, metavar="N", help=processes)
    return parser


def pick_device(name: str) -> "torch.device":
    """`auto` is the GPU if torch sees one; `UserError` for a GPU that is not there."""
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("torch sees no GPU; add --device cpu for a small run on the CPU, or see `bingo doctor`")
    return torch.device("cuda", 0) if available and name != "cpu" else torch.device("cpu")


def seconds_on(device: Any, given: float | None, usual: float) -> float:
    """The value of --seconds; `UserError` where it was given and there is no GPU that it is about."""
    if given is not None and str(device) == "cpu":
        raise UserError("--seconds is about a GPU, and this runs on the CPU: leave it out")
    return usual if given is None else given
