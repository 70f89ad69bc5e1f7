"""DALI reads, decodes each image once and cuts the planned crops; CPU (`device_id=None`) and GPU run the same graph.

DALI's own colour operators are not torchvision's (hue is off by 5 levels on average), so DALI stops at the crops:
colour, blur, flip and normalisation follow in `bingo.kernels.augment`, driven by the same plan.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bingo.config import Augmentation, Runtime
from bingo.dataset import Dataset
from bingo.errors import UserError
from bingo.kernels.augment import ViewParams, augment, normalise
from bingo.plan import Plan, StepPlan, centre_crop

# One group of a request: image indices (B) and, per crop, top-left and bottom-right corners (B x 2 float32).
Group = tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]


def import_dali() -> tuple[Any, Any, Any]:
    """(pipeline_def, fn, types), or a sentence that says how to get DALI."""
    try:
        from nvidia.dali import fn, pipeline_def, types
    except ImportError as error:
        raise UserError(
            f"NVIDIA DALI is needed to decode images but does not import ({error}); pip install nvidia-dali-cuda130"
        ) from None
    return pipeline_def, fn, types


class CropStream:
    """Uint8 crops (B x size x size x 3) of requested images, in request order.

    `requests` yields one list of groups per batch; DALI asks for them a few batches ahead. A batch that cannot be
    decoded raises `UserError` naming the files, which DALI itself does not.
    """

    def __init__(
        self,
        dataset: Dataset,
        requests: Iterator[list[Group]],
        crops: tuple[int, ...],
        *,
        batch: int,
        size: int,
        device: torch.device,
        threads: int,
    ) -> None:
        pipeline_def, fn, types = import_dali()
        gpu = device.type == "cuda"
        self.dataset, self._pending = dataset, deque[list[Group]]()

        def source() -> list[Any]:
            groups = next(requests)
            # The arrays are handed over without a copy: they stay referenced here until the batch has come out.
            self._pending.append(groups)
            flat: list[Any] = []
            for images, corners in groups:
                flat.append([dataset.encoded(int(i)) for i in images])
                flat += [corner for pair in corners for corner in pair]
            return flat

        kinds = [t for count in crops for t in [types.UINT8] + [types.FLOAT] * (2 * count)]

        @pipeline_def(
            batch_size=batch, num_threads=threads, device_id=device.index or 0 if gpu else None, prefetch_queue_depth=2
        )
        def graph() -> tuple[Any, ...]:
            inputs = iter(
                fn.external_source(source=source, num_outputs=len(kinds), batch=True, no_copy=True, dtype=kinds)
            )
            views = []
            for count in crops:
                hints = _size_hints(dataset) if gpu else {}
                image = fn.decoders.image(
                    next(inputs),
                    device="mixed" if gpu else "cpu",
                    output_type=types.RGB,
                    adjust_orientation=False,
                    **hints,
                )
                views += [
                    fn.resize(
                        image,
                        size=[size, size],
                        roi_start=next(inputs),
                        roi_end=next(inputs),
                        interp_type=types.INTERP_LINEAR,
                        antialias=True,
                    )
                    for _ in range(count)
                ]
            return tuple(views)

        self._pipeline = graph()
        self._pipeline.build()

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        while True:
            try:
                outputs = self._pipeline.run()
            except StopIteration:
                return
            except RuntimeError as error:
                raise UserError(self._name_bad_images(error)) from error
            # DALI reuses its buffers for the batch after next, so the crops are copied out.
            crops = [torch.from_dlpack(output.as_tensor()).clone() for output in outputs]
            self._pending.popleft()
            yield crops

    def _name_bad_images(self, error: RuntimeError) -> str:
        from bingo.check import judge  # only on failure: it starts a decoding process
        from bingo.jpeg_strict import StrictDecoder

        images = {int(i) for groups in self._pending for indices, _ in groups for i in indices}
        bad = []
        with StrictDecoder(1) as decoder:
            for i in sorted(images):
                verdict = judge(self.dataset.paths[i], bytes(self.dataset.encoded(i)), decoder=decoder)
                if verdict.verdict == "bad":
                    bad.append(f"{verdict.path} ({verdict.reason})")
        if not bad:
            return f"DALI failed on a batch of {self.dataset.path}: {str(error).splitlines()[0]}"
        named = ", ".join(bad[:5])
        return f"{len(bad)} image(s) of {self.dataset.path} cannot be decoded: {named}; run `bingo check`, pack again"


def _size_hints(dataset: Dataset) -> dict[str, Any]:
    """Buffers sized once for the largest image: GPU memory does not creep up with each larger one."""
    height, width = (int(x) for x in dataset.sizes.max(axis=0))
    return {"preallocate_width_hint": width, "preallocate_height_hint": height, "jpeg_fancy_upsampling": True}


@dataclass(frozen=True)
class Batch:
    """One rank's step: per group (anchors, positives), the uint8 crops of each view and their parameters."""

    plan: StepPlan
    crops: list[list[torch.Tensor]]

    def params(self, group: int, view: int) -> ViewParams:
        return self.plan.views[group][view].params


def training_batches(
    dataset: Dataset, plan: Plan, *, start: int, stop: int, rank: int, world: int, device: torch.device, threads: int
) -> Iterator[Batch]:
    """Batches of the global steps start .. stop of one rank."""
    plans = deque[StepPlan]()

    def requests() -> Iterator[list[Group]]:
        for step in range(start, stop):
            plans.append(plan.step(step, rank, world))
            yield [
                (images, [(v.start, v.end) for v in views])
                for images, views in zip(plans[-1].groups, plans[-1].views, strict=True)
            ]

    stream = CropStream(
        dataset,
        requests(),
        plan.views,
        batch=plan.batch // world,
        size=plan.augment.size,
        device=device,
        threads=threads,
    )
    for crops in stream:
        grouped, rest = [], iter(crops)
        for count in plan.views:
            grouped.append([next(rest) for _ in range(count)])
        yield Batch(plans.popleft(), grouped)


def evaluation_batches(
    dataset: Dataset, config: Augmentation, batches: Iterable[np.ndarray], *, batch: int, device: torch.device,
    threads: int,
) -> Iterator[torch.Tensor]:  # fmt: skip
    """Normalised images (B x 3 x size x size float32, centre crop) of each batch: arrays of at most `batch` indices."""
    start, end = centre_crop(dataset.sizes, config)
    requests: Iterator[list[Group]] = ([(rows, [(start[rows], end[rows])])] for rows in batches)
    stream = CropStream(dataset, requests, (1,), batch=batch, size=config.size, device=device, threads=threads)
    for (crop,) in stream:
        yield normalise(crop.permute(0, 3, 1, 2).float(), config.mean, config.std)


def view_dtype(runtime: Runtime, device: torch.device) -> torch.dtype:
    """What the views of a training step are made in: on a GPU what its convolutions would round them to."""
    return torch.bfloat16 if runtime.precision == "bf16" and device.type == "cuda" else torch.float32


def augmenter(config: Augmentation, dtype: torch.dtype) -> Callable[[torch.Tensor, ViewParams], torch.Tensor]:
    """uint8 crops (B x H x W x 3) and parameters -> normalised views (B x 3 x H x W, channels last)."""

    def apply(crops: torch.Tensor, params: ViewParams) -> torch.Tensor:
        return augment(crops, params, mean=config.mean, std=config.std, blur_kernel=config.blur_kernel, dtype=dtype)

    return apply
