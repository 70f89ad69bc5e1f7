"""The flags of `bingo bench scaling`."""

from pathlib import Path

from bingo.arguments import Parser, between, listed, one_of, path, size
from bingo.config_parts import MOST_THREADS, SIDES
from bingo.launch.submit.flags import WORDS_OF_SITE, time_limit, word

MODES = ("weak", "strong")
MOST_RANKS = 1024  # on one machine
REPLACED = tuple(flag[2:] for flag in WORDS_OF_SITE if flag != "--nodelist")
"""Keys of the site file that flags of the same name replace."""


def scaling_flags() -> Parser:
    about = "How a training step scales over nodes: jobs of a cluster, or ranks here. 1: a job failed."
    example = "bingo bench scaling --cluster site.toml --nodes 1,2,4 --out runs/scaling"
    parser = Parser("bingo bench scaling", about, example)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for everything")
    parser.add_argument("--cluster", type=Path, metavar="FILE", help="site file of a cluster (docs/cluster.md)")
    parser.add_argument("--nodes", type=listed(size), metavar="N,...", help="numbers of nodes, with --cluster")
    local = "numbers of ranks on this machine, in place of a cluster"
    parser.add_argument("--local", type=listed(between(1, MOST_RANKS)), metavar="N,...", help=local)
    modes = "weak: the same batch per rank; strong: the global batch of the smallest number (default: weak,strong)"
    parser.add_argument("--mode", type=listed(one_of(MODES)), metavar="NAME,...", help=modes)
    _add_step(parser)
    _add_samples(parser)
    _add_site(parser)
    return parser


def _add_step(parser: Parser) -> None:
    data = "images for the real loader: packed, or an image folder (default: random crops)"
    parser.add_argument("--data", type=Path, metavar="DIR", help=data)
    parser.add_argument("--student", metavar="NAME", help="network (default: resnet18; CPU: tiny-4)")
    parser.add_argument("--teacher", metavar="NAME", help="network (default: resnet50; CPU: tiny-8)")
    side = "pixels per side (default: 224; CPU: 32)"
    parser.add_argument("--size", type=between(*SIDES), metavar="N", help=side)
    parser.add_argument("--batch", type=size, metavar="N", help="images per rank (default: 256; CPU: 16)")
    parser.add_argument("--queue", type=size, metavar="K", help="keys in the queue (default: 65536; CPU: 512)")
    parser.add_argument("--dim", type=size, metavar="C", help="channels of a key (default: 128; CPU: 16)")
    hidden = "hidden units of the head (default: 2048; CPU: 32)"
    parser.add_argument("--hidden", type=size, metavar="N", help=hidden)
    precision = "of the networks, and of the queue (default: bf16; CPU: fp32)"
    parser.add_argument("--precision", choices=["fp32", "bf16"], help=precision)
    compiled = "torch.compile the student (default: as in a long training: yes; CPU: no)"
    parser.add_argument("--compile", choices=["yes", "no"], help=compiled)
    threads = "CPU threads per rank (default: 0, which shares the node's cores)"
    parser.add_argument("--threads", type=between(0, MOST_THREADS), default=0, metavar="N", help=threads)


def _add_samples(parser: Parser) -> None:
    parser.add_argument("--steps", type=size, default=10, metavar="N", help="steps per sample (default: 10)")
    rounds = "samples per job and rank, with messages and without (default: 6)"
    parser.add_argument("--rounds", type=size, default=6, metavar="N", help=rounds)
    repeats = "jobs for each number, all numbers in turn (default: 1)"
    parser.add_argument("--repeats", type=size, default=1, metavar="N", help=repeats)
    predicted = "results of `bingo bench predict`, to be drawn beside"
    parser.add_argument("--predicted", type=listed(path), default=(), metavar="FILE,...", help=predicted)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here too")


def _add_site(parser: Parser) -> None:
    group = parser.add_argument_group("in place of the site's keys")
    ranks = "ranks on each node"
    group.add_argument("--ranks-per-node", type=size, metavar="N", help=ranks)
    for name in REPLACED:
        group.add_argument(f"--{name}", type=word, metavar=name.upper(), help=WORDS_OF_SITE[f"--{name}"])
    time = "time limit of a job, in minutes or as Slurm writes it"
    group.add_argument("--time", type=time_limit, dest="time_min", metavar="TIME", help=time)
