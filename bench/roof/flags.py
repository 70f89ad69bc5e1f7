"""The flags of `bingo bench roof`."""

from pathlib import Path

from bingo.arguments import Parser, listed, size


def roof_flags() -> Parser:
    about = "This machine's ceilings: products, copies, the shortest kernel, the cost of a launch, all-reduce."
    parser = Parser("bingo bench roof", about, "bingo bench roof --ranks 2 --json roof.json")
    device = "auto is a GPU if there is one (default: auto)"
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help=device)
    parser.add_argument("--size", type=size, metavar="N", help="rows of the products (default: 8192; CPU: 1024)")
    parser.add_argument("--samples", type=size, default=5, metavar="N", help="of everything but products (default: 5)")
    ranks = "ranks on this machine that add up numbers (default: one per GPU; CPU: 2); 1 for none; not under torchrun"
    parser.add_argument("--ranks", type=size, metavar="N", help=ranks)
    message = "bytes that are added up, with commas between (default: 4096 to 64 MiB; CPU: to 4 MiB)"
    parser.add_argument("--bytes", type=listed(size), metavar="N,...", help=message)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample and the environment here")
    return parser
