"""What `bingo bench loader` times: ours, plain DALI, torchvision's, `rivals`; decode, crop or augment.

Every variant decodes the same images once and makes two views of each; the stages are cumulative. Randomness is each
library's own, but for ours, which follows the plan. A burst begins and ends with nothing in flight, so that no variant
works on another's time. The release-style transform is written from its behaviour (MoCo-v2's augmentation by PIL).
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from bingo.bench.loader.chains import AUGMENT, pil_tools, v2_tools
from bingo.bench.loader.rivals import RIVALS, InProcess
from bingo.config_parts import Loader
from bingo.distributed import World
from bingo.images.dataset import Dataset
from bingo.images.image_folder import ImageFolder
from bingo.images.open import open_dataset
from bingo.views.decode_failures import Failures
from bingo.views.loader import CropStream, augmenter, import_dali, training_batches
from bingo.views.plan import Plan

STAGES = ("decode", "crop", "augment")
RELEASE, V2, PLAIN = "release-style (torchvision + PIL)", "torchvision v2 (tensors)", "plain DALI"
OURS, OURS_FOLDER = "ours, packed", "ours, image folder"


class Variant(Protocol):
    """One loader up to one stage."""

    def burst(self, start: int, steps: int) -> None:
        """Make the batches `start .. start + steps` of the plan's order and throw them away."""

    def cpu_seconds(self) -> float:
        """CPU time so far of this process and of the variant's own."""

    def close(self) -> None:
        """End the variant's processes."""


class Ours:
    """Our loader, on a packed dataset or an image folder."""

    def __init__(self, data: Dataset, stage: str, batch: int, threads: int, device: torch.device, settings: Loader):
        self.data, self.stage, self.threads, self.device, self.settings = data, stage, threads, device, settings
        self.plan = Plan(data.sizes, batch, AUGMENT)
        self.augment = augmenter(AUGMENT, torch.float32)

    def burst(self, start: int, steps: int) -> None:
        if self.stage == "decode":
            return self._decode(start, steps)
        alone = World(0, 1, self.device, self.threads)
        for batch in training_batches(
            self.data, self.plan, alone, start=start, stop=start + steps, settings=self.settings
        ):
            if self.stage == "augment":
                for view, crops in enumerate(batch.crops[0]):
                    self.augment(crops, batch.params(0, view))
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return None

    def _decode(self, start: int, steps: int) -> None:
        stream = CropStream(
            self.data, lambda number: [], 0, [], Failures(self.data), batch=self.plan.batch,
            device=self.device, threads=self.threads, settings=self.settings,
        )  # fmt: skip
        pipeline_def, fn, types = import_dali()
        numbers = iter(range(start, start + steps))

        def source() -> list[Any]:
            images = self.plan.step(next(numbers)).groups[0]
            return stream.encoded_and_sizes(images)

        @pipeline_def(**stream.options)
        def graph() -> Any:
            data = fn.external_source(source=source, num_outputs=2, batch=True, dtype=[types.UINT8, types.INT64])
            return stream.decoded(fn, types, *data).shape()

        drain(graph())

    def cpu_seconds(self) -> float:
        return time.process_time()

    def close(self) -> None:
        return None


class PlainDali:
    """DALI's own random crops and colour operations on the CPU, reading files; its colours are not torchvision's."""

    def __init__(self, data: ImageFolder, stage: str, batch: int, threads: int, device: torch.device) -> None:
        self.data, self.stage, self.threads, self.device = data, stage, threads, device
        self.plan = Plan(data.sizes, batch, AUGMENT)

    def burst(self, start: int, steps: int) -> None:
        pipeline_def, fn, types = import_dali()
        numbers, gpu = iter(range(start, start + steps)), self.device.type == "cuda"

        def source() -> list[np.ndarray]:
            images = self.plan.step(next(numbers)).groups[0]
            return [np.frombuffer(self.data.file(int(i)).encode(), np.uint8) for i in images]

        @pipeline_def(
            batch_size=self.plan.batch, num_threads=self.threads, device_id=(self.device.index or 0) if gpu else None,
            prefetch_queue_depth=2, enable_conditionals=True, seed=start,
        )  # fmt: skip
        def graph() -> Any:
            data = fn.io.file.read(fn.external_source(source=source, batch=True, dtype=types.UINT8))
            image = fn.decoders.image(data, device="mixed" if gpu else "cpu", output_type=types.RGB)
            if self.stage == "decode":
                return image.shape()
            crops = [dali_crop(fn, types, image) for _ in range(2)]
            return tuple(crops if self.stage == "crop" else [dali_colours(fn, types, crop) for crop in crops])

        drain(graph())

    def cpu_seconds(self) -> float:
        return time.process_time()

    def close(self) -> None:
        return None


def dali_crop(fn: Any, types: Any, image: Any) -> Any:
    """One random resized crop, antialiased as torchvision's."""
    return fn.random_resized_crop(
        image, size=AUGMENT.size, random_area=list(AUGMENT.scale), random_aspect_ratio=[3 / 4, 4 / 3],
        interp_type=types.INTERP_LINEAR, antialias=True,
    )  # fmt: skip


def dali_colours(fn: Any, types: Any, image: Any) -> Any:
    """MoCo-v2's distortions as far as DALI's operators express them: jitter and grey in one colour twist."""

    def spread(amount: float) -> Any:
        return fn.random.uniform(range=[1 - amount, 1 + amount])

    on = fn.cast(fn.random.coin_flip(probability=AUGMENT.jitter_p), dtype=types.FLOAT)
    keep = 1.0 - fn.cast(fn.random.coin_flip(probability=AUGMENT.grey_p), dtype=types.FLOAT)
    brightness, contrast, saturation = (on * spread(0.4) + (1.0 - on) for _ in range(3))
    turn = on * fn.random.uniform(range=[-360 * AUGMENT.hue, 360 * AUGMENT.hue])
    image = fn.color_twist(image, brightness=brightness, contrast=contrast, saturation=saturation * keep, hue=turn)
    if fn.random.coin_flip(probability=AUGMENT.blur_p, dtype=types.BOOL):
        image = fn.gaussian_blur(image, sigma=fn.random.uniform(range=list(AUGMENT.blur_sigma)))
    mean, std = ([255 * x for x in values] for values in (AUGMENT.mean, AUGMENT.std))
    return fn.crop_mirror_normalize(image, mirror=fn.random.coin_flip(), dtype=types.FLOAT, mean=mean, std=std)


def drain(pipeline: Any) -> None:
    """Build a pipeline and run it to its end."""
    pipeline.build()
    while True:
        try:
            pipeline.run()
        except StopIteration:
            return


class Torchvision:
    """A DataLoader with worker processes that live as long as the variant; release-style by PIL, or v2 on tensors."""

    def __init__(self, data: ImageFolder, name: str, stage: str, batch: int, threads: int) -> None:
        self.plan = Plan(data.sizes, batch, AUGMENT)
        self.order: list[int] = []
        views = Views([data.file(i) for i in range(len(data))], stage, *(v2_tools() if name == V2 else pil_tools()))
        self.loader = torch.utils.data.DataLoader(
            views, batch, sampler=Sampler(self.order), num_workers=threads, persistent_workers=True,
            collate_fn=collate, multiprocessing_context="fork",
        )  # fmt: skip
        self.workers: list[int] = []

    def burst(self, start: int, steps: int) -> None:
        numbers = range(start, start + steps)
        self.order[:] = [int(i) for number in numbers for i in self.plan.step(number).groups[0]]
        iterator = iter(self.loader)
        self.workers = [worker.pid for worker in iterator._workers]  # type: ignore[attr-defined]
        for _ in iterator:
            pass

    def cpu_seconds(self) -> float:
        # The CPU clock of another process (clock_getcpuclockid of Linux): all its threads, in nanoseconds.
        return time.process_time() + sum(time.clock_gettime((~pid << 3) | 2) for pid in self.workers)

    def close(self) -> None:
        self.workers = []
        if self.loader._iterator is not None:
            self.loader._iterator._shutdown_workers()  # type: ignore[attr-defined]


class Sampler(torch.utils.data.Sampler[int]):
    """The images of the next burst, in order."""

    def __init__(self, order: list[int]) -> None:
        self.order = order

    def __iter__(self) -> Any:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


class Views(torch.utils.data.Dataset[Any]):
    """path -> two views; before `augment` what there is at that stage."""

    def __init__(self, paths: list[str], stage: str, decode: Callable, crop: Callable, rest: Callable) -> None:
        self.paths, self.stage, self.decode, self.crop, self.rest = paths, stage, decode, crop, rest

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        image = self.decode(self.paths[index])
        if self.stage == "decode":
            return 0
        crops = [self.crop(image) for _ in range(2)]
        return 0 if self.stage == "crop" else [self.rest(crop) for crop in crops]


def collate(items: list[Any]) -> Any:
    """Finished views are batched, as a training loop needs them; earlier stages end in the worker."""
    return [torch.stack(views) for views in zip(*items, strict=True)] if isinstance(items[0], list) else None


def build(
    name: str, stage: str, folder: Path, packed: Path, *, batch: int, threads: int, device: torch.device
) -> Variant:
    """A variant up to a stage."""
    if name == OURS:
        return Ours(open_dataset(packed), stage, batch, threads, device, Loader())
    data = open_dataset(folder)
    assert isinstance(data, ImageFolder)
    if name == OURS_FOLDER:
        return Ours(data, stage, batch, threads, device, Loader())
    if name in RIVALS:
        return InProcess(RIVALS[name], data, STAGES.index(stage), batch, threads)
    if name == PLAIN:
        return PlainDali(data, stage, batch, threads, device)
    return Torchvision(data, name, stage, batch, threads)


def names() -> list[str]:
    """The variants."""
    return [RELEASE, V2, PLAIN, *RIVALS, OURS, OURS_FOLDER]


def stages(name: str) -> tuple[str, ...]:
    """The stages that a variant has."""
    return STAGES[: RIVALS[name].stages] if name in RIVALS else STAGES
