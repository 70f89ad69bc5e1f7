"""DALI reads, decodes each image once and cuts the planned crops: one graph for CPU and GPU.

DALI's own colour operators are not torchvision's (hue is off by 5 levels on average), so DALI stops at the crops:
colour, blur, flip and normalisation follow in `bingo.kernels.augment`, driven by the same plan. On a CPU it stops at
whole pictures if the crops' corners are whole pixels: torch cuts those to torchvision's very pixels in a sixth of the
time.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from bingo.config_parts import Augmentation, Loader, Runtime
from bingo.distributed import World
from bingo.errors import TransientError, UserError, no_memory
from bingo.images.dataset import Dataset
from bingo.images.image_folder import ImageFolder
from bingo.kernels.augment import augment, normalise
from bingo.kernels.view_params import ViewParams
from bingo.models.arithmetic import precision_of
from bingo.views.decode_failures import Failures
from bingo.views.held import Held
from bingo.views.plan import Plan, StepPlan, centre_crop

# One group of a request: image indices (B) and, per crop, top-left and bottom-right corners (B x 2 float32).
Group = tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]
NO_IMAGE = np.zeros(4, np.uint8)
ONE_ROW_EACH = (
    "features, keys and accuracies need every image, so none can stand in for it: repair the files, or leave them out "
    "with bingo pack --allow-bad"
)


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
    """Uint8 crops (B x size x size x 3) of requested images, in request order. crops: per group the size of each.

    `request(n)` returns the groups of batch n of `count`; DALI asks for them a few batches ahead. When a batch cannot
    be decoded, `failures` learns which images are to blame, or stops the run; `request` is asked again for every batch
    not yet handed out and must then leave those images out. All other bytes are what they would have been.
    `whole_pixels`: all corners are whole numbers.
    """

    def __init__(
        self,
        dataset: Dataset,
        request: Callable[[int], list[Group]],
        count: int,
        crops: Sequence[Sequence[int]],
        failures: Failures,
        *,
        batch: int,
        device: torch.device,
        threads: int,
        settings: Loader,
        whole_pixels: bool = False,
    ) -> None:
        self.dataset, self.request, self.count, self.crops, self.failures = dataset, request, count, crops, failures
        self.device, self.settings, self.threads = device, settings, threads
        gpu = device.type == "cuda"
        self.cut_by_torch = whole_pixels and not gpu
        self.options = {
            "batch_size": batch, "num_threads": threads, "device_id": device.index or 0 if gpu else None,
            "prefetch_queue_depth": settings.prefetch, "exec_dynamic": True,  # its buffers live as long as references
        }  # fmt: skip
        self._sizes = dataset.sizes.astype(np.int64)
        self._probe: Any = None

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        """DALI reuses its buffers, so crops are copied out of them: see `bingo.views.held` for when."""
        held = Held(self.device) if self.device.type == "cuda" else None
        try:
            yield from self._crops(held)
        finally:  # a reader may stop in the middle
            if held:
                held.wait()

    def _crops(self, held: Held | None) -> Iterator[list[torch.Tensor]]:
        done, pipeline, pending = 0, None, deque[Sent]()
        while done < self.count:
            if pipeline is None:
                pipeline, pending = self._start(done)
            try:
                outputs = pipeline.run()
            except RuntimeError as error:
                if no_memory(error):
                    raise MemoryError(_said(error)) from error
                images = {int(i) for sent in pending for indices, _ in sent.groups for i in indices}
                if not self.failures.look(images, self._decodes):
                    raise TransientError(
                        f"DALI failed on a batch of {self.dataset.path}, each image of which it can decode: "
                        f"{_said(error)}; type the same command to go on"
                    ) from error
                pipeline = None  # DALI declares it invalid after an error
                continue
            groups = pending.popleft().groups
            if self.cut_by_torch:
                asked = zip(outputs, groups, self.crops, strict=True)
                crops = [crop for output, group, sizes in asked for crop in self._cut(output, group, sizes)]
            elif held:
                crops = held.copies(outputs)
            else:  # on a CPU a copy is done when `clone` returns
                crops = [torch.from_dlpack(output.as_tensor()).clone() for output in outputs]
            done += 1
            yield crops

    def _start(self, first: int) -> tuple[Any, "deque[Sent]"]:
        """A pipeline that begins with batch `first`, and the batches that it has been given and not returned yet."""
        pipeline_def, fn, types = import_dali()
        numbers, pending = iter(range(first, self.count)), deque[Sent]()

        def source() -> list[Any]:
            groups = self.request(next(numbers))
            inputs: list[Any] = []
            for images, corners in groups:
                inputs += self.encoded_and_sizes(images)
                if not self.cut_by_torch:
                    inputs += [corner for pair in corners for corner in pair]
            # The arrays are handed over without a copy: they stay referenced here until the batch has come out.
            pending.append(Sent(groups, inputs))
            return inputs

        resized: list[Sequence[int]] = [[] if self.cut_by_torch else sizes for sizes in self.crops]
        kinds = [t for sizes in resized for t in [types.UINT8, types.INT64] + [types.FLOAT] * (2 * len(sizes))]

        @pipeline_def(**self.options)
        def graph() -> tuple[Any, ...]:
            inputs = iter(
                fn.external_source(source=source, num_outputs=len(kinds), batch=True, no_copy=True, dtype=kinds)
            )
            views = []
            for sizes in resized:
                image = self.decoded(fn, types, next(inputs), next(inputs))
                if self.cut_by_torch:
                    views.append(image)
                views += [
                    fn.resize(
                        image,
                        size=[size, size],
                        roi_start=next(inputs),
                        roi_end=next(inputs),
                        interp_type=types.INTERP_LINEAR,
                        antialias=True,
                    )
                    for size in sizes
                ]
            return tuple(views)

        pipeline = graph()
        pipeline.build()
        return pipeline, pending

    def _cut(self, decoded: Any, group: Group, sizes: Sequence[int]) -> list[torch.Tensor]:
        """The crops of a group, from DALI's list of decoded images (each H x W x 3 uint8, on the CPU)."""
        images, crops = [torch.from_dlpack(decoded[i]) for i in range(len(decoded))], []
        for (start, end), size in zip(group[1], sizes, strict=True):
            crop = torch.empty(len(images), size, size, 3, dtype=torch.uint8)
            corners = np.concatenate([start, end], 1).astype(int).tolist()
            for image, (y0, x0, y1, x1), out in zip(images, corners, crop.permute(0, 3, 1, 2), strict=True):
                box = image[y0:y1, x0:x1].permute(2, 0, 1)[None]
                # What `interpolate` calls, without its allocation and copy, which take longer than the resize.
                torch.ops.aten._upsample_bilinear2d_aa.out(box, [size] * 2, False, None, None, out=out[None])
            crops.append(crop)
        return crops

    def encoded_and_sizes(self, images: np.ndarray) -> list[Any]:
        """DALI's two inputs for a batch of images, see `decoded`; in the place of a damaged one what nobody decodes."""
        damaged = self.dataset.damaged(images, self.threads) if self.settings.verify else set()
        return [[NO_IMAGE if int(i) in damaged else self._input(int(i)) for i in images], self._sizes[images]]

    def _input(self, image: int) -> np.ndarray:
        """What DALI is given for an image (uint8): the encoded bytes, or the path of the file that it is to read."""
        if isinstance(self.dataset, ImageFolder):
            return np.frombuffer(os.fsencode(self.dataset.file(image)), np.uint8)
        return self.dataset.encoded(image)

    def decoded(self, fn: Any, types: Any, data: Any, size: Any) -> Any:
        """The graph from `encoded_and_sizes` to pixels."""
        if isinstance(self.dataset, ImageFolder):
            data = fn.io.file.read(data)
        # A header that DALI's decoder cannot parse may end the process: it gives the batch up while its threads still
        # work on it (2.4). Here such a header, or one of another size, is an error before the decoder sees it.
        wrong = fn.peek_image_shape(data, adjust_orientation=False)[:2] - size
        data = fn.reshape(data, shape=data.shape() + fn.reductions.sum(wrong * wrong))
        gpu = self.device.type == "cuda"
        return fn.decoders.image(
            data,
            device="mixed" if gpu else "cpu",
            output_type=types.RGB,
            adjust_orientation=False,
            **(mixed_arguments(self.dataset, self.settings) if gpu else {}),
        )

    def _decodes(self, image: int) -> bool:
        """Whether DALI decodes an image on its own, the way it does in a batch."""
        if self._probe is None:
            pipeline_def, fn, types = import_dali()

            @pipeline_def(**self.options | {"batch_size": 1, "prefetch_queue_depth": 1})
            def graph() -> Any:
                data, size = fn.external_source(name="data", dtype=types.UINT8), fn.external_source(name="size")
                return self.decoded(fn, types, data, size)

            self._probe = graph()
            self._probe.build()
        try:
            data, size = self.encoded_and_sizes(np.array([image]))
            self._probe.feed_input("data", data)
            self._probe.feed_input("size", size)
            self._probe.run()
        except RuntimeError as error:
            self._probe = None
            if no_memory(error):
                raise MemoryError(_said(error)) from error
            return False
        return True


class Sent(NamedTuple):
    """One batch inside a pipeline: what was asked for, and the arrays that DALI reads."""

    groups: list[Group]
    inputs: list[Any]


def mixed_arguments(dataset: Dataset, settings: Loader) -> dict[str, Any]:
    """Arguments of the GPU decoder; the CPU's takes them too and ignores them (its upsampling is always the fancy one).

    The size hints let buffers be allocated once for the largest image: memory does not creep up with each larger one.
    """
    arguments: dict[str, Any] = {
        "hw_decoder_load": settings.hw_decoder_load,
        "jpeg_fancy_upsampling": settings.fancy_upsampling,
    }
    if settings.size_hints:
        height, width = (int(x) for x in dataset.sizes.max(axis=0))
        arguments |= {"preallocate_height_hint": height, "preallocate_width_hint": width}
    return arguments


def _said(error: RuntimeError) -> str:
    """The line of DALI's many that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    after = lines.index("encountered:") + 1 if "encountered:" in lines else 0
    return lines[min(after, len(lines) - 1)] if lines else type(error).__name__


@dataclass(frozen=True)
class Batch:
    """One rank's step: per group (anchors, positives), the uint8 crops of each view and their parameters."""

    plan: StepPlan
    crops: list[list[torch.Tensor]]

    def params(self, group: int, view: int) -> ViewParams:
        return self.plan.views[group][view].params


def training_batches(
    dataset: Dataset,
    plan: Plan,
    world: World,
    *,
    start: int,
    stop: int,
    settings: Loader | None = None,
    failures: Failures | None = None,
) -> Iterator[Batch]:
    """Batches of the global steps start .. stop of this process; of each rank that it plays, in turn.

    An image that cannot be decoded is replaced (see `Plan.step`) as far as `failures` lets it; by default it stops.
    """
    failures = failures or Failures(dataset)
    plans: dict[int, StepPlan] = {}

    def request(number: int) -> list[Group]:
        after, share = divmod(number, world.shares)
        step = plans[number] = plan.step(start + after, world.first_share + share, world.ranks, failures.instead)
        return [
            (images, [(v.start, v.end) for v in views]) for images, views in zip(step.groups, step.views, strict=True)
        ]

    stream = CropStream(
        dataset,
        request,
        (stop - start) * world.shares,
        plan.crop_sizes(),
        failures,
        batch=plan.batch // world.ranks,
        device=world.device,
        threads=world.threads,
        settings=settings or Loader(),
        whole_pixels=True,
    )
    for number, crops in enumerate(stream):
        grouped, rest = [], iter(crops)
        for sizes in plan.crop_sizes():
            grouped.append([next(rest) for _ in sizes])
        yield Batch(plans.pop(number), grouped)


def evaluation_batches(
    dataset: Dataset,
    config: Augmentation,
    batches: Sequence[np.ndarray],
    *,
    device: torch.device,
    threads: int,
    settings: Loader | None = None,
    failures: Failures | None = None,
) -> Iterator[torch.Tensor]:
    """Normalised images (B x 3 x size x size float32, centre crop) of each batch of indices.

    An image that cannot be decoded stops the run, since its row can be no other's; a caller that gives `failures` gets
    a row of some other image and must leave out the rows of `failures.found`.
    """
    failures = failures or Failures(dataset, remedy=ONE_ROW_EACH)

    def request(number: int) -> list[Group]:
        images = failures.replace(batches[number])
        return [(images, [centre_crop(dataset.sizes[images], config)])]

    stream = CropStream(
        dataset,
        request,
        len(batches),
        [[config.size]],
        failures,
        batch=max(map(len, batches), default=1),
        device=device,
        threads=threads,
        settings=settings or Loader(),
    )
    for (crop,) in stream:
        yield normalise(crop.permute(0, 3, 1, 2).float(), config.mean, config.std)


def view_dtype(runtime: Runtime, device: torch.device) -> torch.dtype:
    """What the views of a training step are made in: on a GPU what its convolutions would round them to."""
    half = device.type == "cuda" and precision_of(runtime, device) == "bf16"
    return torch.bfloat16 if half else torch.float32


def augmenter(config: Augmentation, dtype: torch.dtype) -> Callable[[torch.Tensor, ViewParams], torch.Tensor]:
    """uint8 crops (B x H x W x 3) and parameters -> normalised views (B x 3 x H x W, channels last)."""

    def apply(crops: torch.Tensor, params: ViewParams) -> torch.Tensor:
        return augment(
            crops, params, mean=config.mean, std=config.std, blur_kernel=config.blur_kernel, dtype=dtype,
            blur=config.blur,
        )  # fmt: skip

    return apply
