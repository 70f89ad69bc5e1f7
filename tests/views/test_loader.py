"""DALI loader: planned crops, identical bytes for any world size and after a resume, pixels as PIL and torchvision."""

import hashlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from bingo.config_parts import Augmentation, Loader, Runtime
from bingo.distributed import World
from bingo.errors import UserError
from bingo.images.dataset import Dataset
from bingo.images.open import open_dataset
from bingo.views.decode_failures import Failures
from bingo.views.loader import (
    Batch,
    CropStream,
    augmenter,
    evaluation_batches,
    import_dali,
    training_batches,
    view_dtype,
)
from bingo.views.plan import Plan, StepPlan
from tests.support.ranks import ROOT, wait_for

STREAM = """
import hashlib, sys
from pathlib import Path
import numpy as np, torch
from bingo.config_parts import Augmentation
from bingo.distributed import World
from bingo.images.open import open_dataset
from bingo.views.loader import training_batches
from bingo.views.plan import Plan
data, out, start, stop = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
data = open_dataset(data)
bags = np.random.default_rng(0).integers(0, len(data), (len(data), 5)).astype(np.int32)
plan = Plan(data.sizes, 32, Augmentation(size=24), seed=3, views=(2, 2), bags=bags)
stream = training_batches(data, plan, World(0, 1, torch.device("cpu"), 2), start=start, stop=stop)
with open(out, "a") as file:
    for step, batch in enumerate(stream, start):
        digest = hashlib.md5(b"".join(crop.numpy().tobytes() for crops in batch.crops for crop in crops)).hexdigest()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        file.write(f"{step} {digest} {resident}\\n")
        file.flush()
"""

CPU = torch.device("cpu")
AUGMENT = Augmentation(size=24)


@pytest.fixture(scope="module")
def data(digits: Path) -> Dataset:
    return open_dataset(digits / "train")


@pytest.fixture(scope="module")
def plan(data: Dataset) -> Plan:
    bags = np.random.default_rng(0).integers(0, len(data), (len(data), 5)).astype(np.int32)
    return Plan(data.sizes, 32, AUGMENT, seed=3, views=(2, 2), bags=bags)


def batches(data: Dataset, plan: Plan, start: int, stop: int, rank: int = 0, world: int = 1) -> list[Batch]:
    threads = 2 if world == 1 else 1
    stream = training_batches(data, plan, World(rank, world, CPU, threads), start=start, stop=stop)
    return list(stream)


def views(batch: Batch) -> list[torch.Tensor]:
    """All finished views of a batch, colour and blur included."""
    apply = augmenter(AUGMENT, torch.float32)
    return [apply(crop, batch.params(g, v)) for g, crops in enumerate(batch.crops) for v, crop in enumerate(crops)]


@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_ranks_gives_the_same_bytes(data: Dataset, plan: Plan, world: int) -> None:
    whole = batches(data, plan, 0, 3)
    parts = [batches(data, plan, 0, 3, rank, world) for rank in range(world)]
    for step in range(3):
        for i, expected in enumerate(views(whole[step])):
            joined = torch.cat([views(part[step])[i] for part in parts])
            assert torch.equal(joined, expected)


def test_resume_mid_epoch_gives_the_same_bytes(data: Dataset, plan: Plan) -> None:
    last = plan.steps_per_epoch + 2
    whole = batches(data, plan, last - 4, last)
    resumed = batches(data, plan, last - 1, last)
    assert len(resumed) == 1
    for a, b in zip(views(whole[-1]), views(resumed[0]), strict=True):
        assert torch.equal(a, b)


def test_crops_are_the_planned_ones(data: Dataset, plan: Plan) -> None:
    """PIL's decode and torchvision's antialiased resize of the same box, pixel for pixel."""
    batch = batches(data, plan, 5, 6)[0]
    step: StepPlan = plan.step(5)
    for group, images in enumerate(step.groups):
        for v, view in enumerate(step.views[group]):
            for row, image in enumerate(images):
                pixels = np.asarray(Image.open(io.BytesIO(bytes(data.encoded(int(image))))))
                (y0, x0), (y1, x1) = view.start[row].astype(int), view.end[row].astype(int)
                box = torch.from_numpy(pixels[y0:y1, x0:x1].copy()).permute(2, 0, 1)
                theirs = TF.resize(box, [24, 24], antialias=True)
                assert torch.equal(batch.crops[group][v][row].permute(2, 0, 1), theirs)


def test_crops_by_dali_are_close_to_them(data: Dataset, plan: Plan) -> None:
    """What a GPU's pipeline does, on the CPU."""
    images, views = plan.step(5).groups[0], plan.step(5).views[0]
    corners = [(view.start, view.end) for view in views]

    def crops(whole_pixels: bool) -> list[torch.Tensor]:
        stream = CropStream(
            data, lambda number: [(images, corners)], 1, [[24] * len(views)], Failures(data), batch=len(images),
            device=CPU, threads=1, settings=Loader(), whole_pixels=whole_pixels,
        )  # fmt: skip
        (found,) = stream
        return found

    for ours, theirs in zip(crops(False), crops(True), strict=True):
        assert ours.shape == theirs.shape
        assert not torch.equal(ours, theirs), "another resize"
        assert (ours.float() - theirs.float()).abs().mean(dim=(1, 2, 3)).max() < 1.0, "levels, of the worst crop"


def test_views_are_half_precision_only_on_a_gpu_that_computes_in_it() -> None:
    half, full, gpu = Runtime(precision="bf16"), Runtime(precision="fp32"), torch.device("cuda")
    assert view_dtype(half, gpu) == torch.bfloat16
    assert view_dtype(full, gpu) == view_dtype(half, CPU) == view_dtype(full, CPU) == torch.float32


def test_evaluation_order_and_last_batch(data: Dataset) -> None:
    def images(rows: np.ndarray, batch: int) -> torch.Tensor:
        batches = np.split(rows, range(batch, len(rows), batch))
        return torch.cat(list(evaluation_batches(data, AUGMENT, batches, device=CPU, threads=1)))

    every = np.arange(len(data))
    whole = images(every, 100)
    assert whole.shape == (len(data), 3, 24, 24)
    assert torch.equal(images(every[::-1], 33), whole.flip(0))
    pixels = Image.open(io.BytesIO(bytes(data.encoded(7))))
    pixels = TF.resize(TF.to_image(pixels), AUGMENT.eval_resize)
    theirs = TF.to_dtype(TF.center_crop(pixels, 24), torch.float32, scale=True)
    ours = whole[7] * torch.tensor(AUGMENT.std)[:, None, None] + torch.tensor(AUGMENT.mean)[:, None, None]
    assert (ours - theirs).abs().mean() < 1.5 / 255


def test_a_file_damaged_after_packing_is_named(data: Dataset, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = int(plan.step(0).groups[0][3])
    intact = Dataset.encoded

    def encoded(self: Dataset, index: int) -> np.ndarray:
        return np.frombuffer(b"\xff\xd8 not a jpeg any more", np.uint8) if index == victim else intact(self, index)

    monkeypatch.setattr(Dataset, "encoded", encoded)
    with pytest.raises(UserError) as error:
        batches(data, plan, 0, 1)
    assert data.paths[victim] in str(error.value)
    assert "cannot be decoded" in str(error.value)


def stream_elsewhere(digits: Path, out: Path, start: int, stop: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", STREAM, digits / "train", out, str(start), str(stop)], cwd=ROOT)


@pytest.mark.slow
def test_killed_while_streaming_and_resumed(digits: Path, data: Dataset, plan: Plan, tmp_path: Path) -> None:
    """Every step's bytes once, across a SIGKILL; and memory that does not grow."""
    out, stop = tmp_path / "steps", 300
    child = stream_elsewhere(digits, out, 0, stop)
    wait_for(lambda: out.exists() and out.read_text().count("\n") > 50, child)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    whole = out.read_text()[: out.read_text().rindex("\n") + 1]
    out.write_text(whole)
    done = whole.count("\n")
    assert 50 < done < stop
    assert stream_elsewhere(digits, out, done, stop).wait() == 0
    rows = [line.split() for line in out.read_text().splitlines()]
    assert [int(row[0]) for row in rows] == list(range(stop))
    for first in (0, done - 2, stop - 3):
        for step, batch in enumerate(batches(data, plan, first, first + 3), first):
            pixels = b"".join(crop.numpy().tobytes() for crops in batch.crops for crop in crops)
            assert hashlib.md5(pixels).hexdigest() == rows[step][1]
    resident = [int(row[2]) for row in rows[done:]]
    kept = len(pixels) * len(resident) // 2  # what it would grow by if every batch stayed in memory
    assert max(resident[-50:]) - max(resident[50:100]) < kept // 2


def test_without_dali(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(UserError, match=r"DALI is needed to decode images.*pip install nvidia-dali-cuda130"):
        import_dali()
