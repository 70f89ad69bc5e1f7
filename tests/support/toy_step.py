"""A toy shape for `bingo bench step`, and a `bingo` without DALI, faiss and the other packages beside torch."""

import torch

from bingo.bench.step.variants import StepShape

TOY = StepShape(torch.device("cpu"), "tiny-2", "tiny-2", 16, 8, 64, 16, 16, samples=4, burst=1, compile=False)


BARE = """
import sys
for name in ("nvidia.dali", "faiss", "submitit", "rich", "torchvision", "matplotlib", "jinja2", "sklearn"):
    sys.modules[name] = None  # importing it raises ImportError
from bingo.cli import main
sys.exit(main(sys.argv[1:]))
"""
