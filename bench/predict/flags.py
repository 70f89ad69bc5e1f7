"""The flags of `bingo bench predict`."""

from pathlib import Path

from bingo.arguments import Parser, listed, positive, size
from bingo.objectives import OBJECTIVES

ENGINES = ("plain", "folded", "compiled")


def predict_flags() -> Parser:
    about = "Throughput and hours of a distillation before it runs: arithmetic on the real networks, no GPU needed."
    example = "bingo bench predict --gpu H100 --nodes 2 --batch 4096 --json predicted.json"
    parser = Parser("bingo bench predict", about, example)
    parser.add_argument("--student", default="resnet18", metavar="NAME", help="network (default: resnet18)")
    parser.add_argument("--teacher", default="resnet50", metavar="NAME", help="network (default: resnet50)")
    batch = "images per step of all GPUs together, as in distill (default: 256)"
    parser.add_argument("--batch", type=size, default=256, metavar="N", help=batch)
    parser.add_argument("--size", type=size, default=224, metavar="N", help="pixels per side (default: 224)")
    objective = "the training's loss (default: release)"
    parser.add_argument("--objective", choices=list(OBJECTIVES), default="release", help=objective)
    parser.add_argument("--queue", type=size, default=65536, metavar="K", help="keys in the queue (default: 65536)")
    parser.add_argument("--dim", type=size, default=128, metavar="C", help="channels of a key (default: 128)")
    parser.add_argument("--hidden", type=size, default=2048, metavar="N", help="width of the head (default: 2048)")
    parser.add_argument("--gpu", default="H100", metavar="KIND", help="H100, H200 or A100 (default: H100)")
    parser.add_argument("--nodes", type=size, default=1, metavar="N", help="nodes of the job (default: 1)")
    parser.add_argument("--gpus-per-node", type=size, default=8, metavar="N", help="of each node (default: 8)")
    parser.add_argument("--cores", type=size, default=8, metavar="N", help="that load, per GPU (default: 8)")
    parser.add_argument("--host-us", type=positive, metavar="US", help="what a launch costs the host (default: 18)")
    parser.add_argument("--cached", action="store_true", help="cached keys in place of a live teacher")
    parser.add_argument("--engine", choices=ENGINES, help="of the teacher (default: compiled)")
    parser.add_argument("--compile", choices=["yes", "no"], default="yes", help="the student (default: yes)")
    graph = "the step as a CUDA graph (default: auto, on one GPU where the host is the bound)"
    parser.add_argument("--graph", choices=["auto", "yes", "no"], default="auto", help=graph)
    parser.add_argument("--epochs", type=size, default=200, metavar="N", help="passes over the images (default: 200)")
    images = "in the data (default: 1281167, ImageNet)"
    parser.add_argument("--images", type=size, default=1281167, metavar="N", help=images)
    fit = "results of bench roof and bench scaling, with commas between: their numbers replace the table's"
    parser.add_argument("--fit", type=listed(Path), default=(), metavar="FILE,...", help=fit)
    ranks = "with --fit: CPU seconds per step of so many ranks here, from those of 1 and 2"
    parser.add_argument("--ranks", type=listed(size), default=(), metavar="N,...", help=ranks)
    score = "the error of a prediction: its JSON, then the results that measured it"
    parser.add_argument("--score", type=Path, nargs="+", metavar="FILE", help=score)
    checks = "the model against published measurements, and nothing else"
    parser.add_argument("--calibration", action="store_true", help=checks)
    parser.add_argument("--table", action="store_true", help="the table of docs/predicted.md, and nothing else")
    cards = "hours of every recipe on 1 and on 8 such GPUs, as bingo/recipes/hours.json has them for the H100"
    parser.add_argument("--recipes", action="store_true", help=cards)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the predictions and the environment here")
    return parser
