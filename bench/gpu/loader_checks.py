"""The loader's crops on a GPU that is busy: copies out of DALI's buffers are made before those are used again."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bingo.bench.gpu.checks import Outcome, Setting, Skip, need_cuda
from bingo.config_parts import Augmentation
from bingo.errors import UserError

if TYPE_CHECKING:
    from bingo.images.dataset import Dataset
    from bingo.views.loader import Batch

BATCHES, IMAGES, BATCH = 6, 64, 16
SIDE = 8192
"""Rows of the matrices whose products keep the GPU busy."""


def behind_work(s: Setting, seconds: float) -> Outcome:
    """Six batches taken while `seconds` of matrix products lie before their copies, against the same batches one by
    one on an idle GPU: values that differ. A copy that ran after DALI had used its buffer again would differ."""
    need_cuda(s)
    try:  # the other checks need no more than torch and Triton
        from bingo.bench.loader.images import make_images
        from bingo.images.open import open_dataset
        from bingo.views.loader import import_dali

        import_dali()
    except (ImportError, UserError) as reason:
        raise Skip(str(reason)) from None
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), IMAGES)
        data = open_dataset(Path(folder))
        alone = []
        for batch in stream(data, s.device):
            torch.cuda.synchronize(s.device)
            alone.append(crops(batch))
            torch.cuda.synchronize(s.device)
        batches = stream(data, s.device)
        busy(s.device, seconds)
        queued = [crops(batch) for batch in batches]
        torch.cuda.synchronize(s.device)
    wrong = sum(int((a != b).sum()) for a, b in zip(alone, queued, strict=True))
    return Outcome(wrong, 0, f"values of {sum(batch.numel() for batch in alone)} differ")


def stream(data: "Dataset", device: torch.device) -> "Iterator[Batch]":
    """Batches of views as training reads them, without waiting for the GPU."""
    from bingo.distributed import World
    from bingo.views.loader import training_batches
    from bingo.views.plan import Plan

    plan = Plan(data.sizes, BATCH, Augmentation())
    return training_batches(data, plan, World(0, 1, device, 2), start=0, stop=BATCHES)


def crops(batch: "Batch") -> torch.Tensor:
    """A batch's crops in one tensor, without waiting for any."""
    return torch.cat([crop for group in batch.crops for crop in group])


def busy(device: torch.device, seconds: float) -> None:
    """Put about so many seconds of work into the queue of the current stream."""
    a = torch.randn(SIDE, SIDE, device=device)
    out = torch.empty_like(a)
    torch.mm(a, a, out=out)
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    torch.mm(a, a, out=out)
    torch.cuda.synchronize(device)
    each = time.perf_counter() - began
    for _ in range(round(seconds / each) + 1):
        torch.mm(a, a, out=out)
