"""The stateless plan: images, crops, distortions as a pure function of (seed, epoch, position, view).

Every number comes from a Philox counter placed at the image's global position, so a plan needs no loader state: a run
resumes at any step, and 1 rank x 32 equals 2 ranks x 16 byte for byte. Planning costs about a microsecond per view.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from bingo.config_parts import Augmentation
from bingo.errors import UserError
from bingo.kernels.view_params import ViewParams

# Streams of the generator: one per use, so that no two draws ever share a counter.
PERMUTATION, MEMBER, CUTMIX, CACHED_VIEW, NEGATIVE_IMAGE, NEGATIVE_VIEW, VIEW = 0, 1, 2, 3, 4, 5, 8
LABELLED_ORDER, LABELLED_VIEW = 6, 7  # of `bingo.supervised`
SHUFFLE = 24  # after the views of two groups, 8 to 23
KEY_VIEW = 1 << 32  # and above: the views of a key cache

BLOCK_STRIDE = 1 << 32  # counters between the boxes of two blocks: more than an epoch has steps

CROP_TRIES = 10
# Per view: ten tries of area and ratio, two offsets, jitter coin and four factors, four order keys, grey, blur coin,
# blur sigma, flip, and one spare to fill the last Philox block of four.
VIEW_DRAWS = 2 * CROP_TRIES + 2 + 1 + 4 + 4 + 1 + 2 + 1 + 1
RATIO = (3 / 4, 4 / 3)


def uniforms(seed: int, epoch: int, stream: int, position: int, rows: int, columns: int) -> np.ndarray:
    """rows x columns float64 in [0, 1) for the positions `position .. position + rows`; columns a multiple of 4.

    Philox makes four numbers per counter value, so row r of position p is counter p * columns / 4 of its stream.
    """
    assert columns % 4 == 0
    bits = philox(seed, epoch, stream)
    bits.advance(position * (columns // 4))
    return np.random.Generator(bits).random((rows, columns))


def philox(seed: int, epoch: int, stream: int) -> np.random.Philox:
    """The generator of one stream, at its start."""
    return np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=np.array([0, 0, 0, stream], np.uint64))


@dataclass(frozen=True)
class View:
    """One augmented view of a batch: crop corners (N x 2 float32, y and x, in pixels) and the colour parameters."""

    start: np.ndarray
    end: np.ndarray
    params: ViewParams


@dataclass(frozen=True)
class StepPlan:
    """What one rank does in one step: anchors (B int64), positives (B int64 or None), the views of each group."""

    epoch: int
    step: int
    rank: int
    groups: tuple[np.ndarray, ...]
    views: tuple[tuple[View, ...], ...]


class Local(NamedTuple):
    """Small views of the anchors behind their other ones (multi-crop, arXiv 2006.09882). augment: of their size and
    scale."""

    crops: int
    augment: Augmentation


class Replay(NamedTuple):
    """Views of a key cache that a step draws again. seed, views: the cache's; places: (group, view) of the step for
    each column of `Plan.cached_views`."""

    seed: int
    views: int
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Plan:
    """The plan of a whole run.

    sizes: N x 2 int32 (height, width); batch: global batch; views: augmented views per group, (2,) for anchors alone,
    (2, 1) or (2, 2) for anchors and positives; bags: N x k int32, needed when there is a second group; replay: which
    views are those of a key cache; local: small views of the anchors, which `views` does not count.
    """

    sizes: np.ndarray
    batch: int
    augment: Augmentation
    seed: int = 0
    views: tuple[int, ...] = (2,)
    bags: np.ndarray | None = None
    replay: Replay | None = None
    local: Local | None = None

    def __post_init__(self) -> None:
        if self.batch > len(self.sizes):
            raise UserError(
                f"the global batch of {self.batch} is larger than the dataset of {len(self.sizes)} images; "
                f"set --optim.batch to {len(self.sizes)} or less"
            )
        if len(self.views) == 2 and (self.bags is None or len(self.bags) != len(self.sizes)):
            raise UserError(
                f"bags for {0 if self.bags is None else len(self.bags)} images do not fit {len(self.sizes)} images"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Full global batches in one epoch; the remainder is dropped, another one each epoch."""
        return len(self.sizes) // self.batch

    @cached_property
    def _permutations(self) -> dict[int, np.ndarray]:
        return {}

    def permutation(self, epoch: int) -> np.ndarray:
        """The order of the images in one epoch (N int64); the last one is kept."""
        if epoch not in self._permutations:
            self._permutations.clear()
            bits = philox(self.seed, epoch, PERMUTATION)
            self._permutations[epoch] = np.random.Generator(bits).permutation(len(self.sizes))
        return self._permutations[epoch]

    def anchors(self, epoch: int, step: int) -> np.ndarray:
        """The global batch of a step within its epoch (int64), in rank order: every rank knows all ranks' images."""
        return self.permutation(epoch)[step * self.batch : (step + 1) * self.batch]

    def relatives(self, images: np.ndarray) -> np.ndarray:
        """B x (1 + k) int64: each image (B) and, where there are bags, the members of its bag."""
        own = images[:, None]
        return own if self.bags is None else np.concatenate([own, self.bags[images]], axis=1).astype(np.int64)

    def step(
        self, global_step: int, rank: int = 0, world: int = 1, instead: Mapping[int, int] = MappingProxyType({})
    ) -> StepPlan:
        """The rank's share of a step: rows `rank * batch / world ...` of the global batch.

        instead: bad image -> the image that takes its place as an anchor, its positive from that image's bag. A bad
        positive gives its place to its anchor. Crops follow the size of the image that is there in the end.
        """
        epoch, step = divmod(global_step, self.steps_per_epoch)
        rows = self.batch // world
        position = step * self.batch + rank * rows
        anchors = self.anchors(epoch, step)[rank * rows : (rank + 1) * rows]
        if instead:
            anchors = np.array([instead.get(int(a), int(a)) for a in anchors], anchors.dtype)
        groups: tuple[np.ndarray, ...] = (anchors,)
        if len(self.views) == 2:
            assert self.bags is not None
            u = uniforms(self.seed, epoch, MEMBER, position, rows, 4)[:, 0]
            members = self.bags[anchors, (u * self.bags.shape[1]).astype(np.int64)].astype(np.int64)
            if instead:
                members = np.where(np.isin(members, list(instead)), anchors, members)
            groups = (anchors, members)
        again = self._replayed_views(epoch, step, slice(rank * rows, (rank + 1) * rows), groups)
        views = []
        for g, (images, count) in enumerate(zip(groups, self.views, strict=True)):
            fresh = range(count)
            views.append(tuple(again.get((g, v)) or self._fresh(epoch, 8 * g + v, position, images) for v in fresh))
        if self.local:
            numbers = range(self.views[0], self.views[0] + self.local.crops)
            small = (self._fresh(epoch, v, position, anchors, self.local.augment) for v in numbers)
            views[0] = (*views[0], *small)
        return StepPlan(epoch, step, rank, groups, tuple(views))

    def _fresh(
        self, epoch: int, number: int, position: int, images: np.ndarray, augment: Augmentation | None = None
    ) -> View:
        """A view that no other step has: number 8 g + v is view v of group g."""
        u = uniforms(self.seed, epoch, VIEW + number, position, len(images), VIEW_DRAWS)
        return self._view(u, images, augment)

    def small_views(self, group: int) -> list[bool]:
        """Which views of a group are local ones."""
        return [False] * self.views[group] + [True] * (self.local.crops if self.local and not group else 0)

    def crop_sizes(self) -> list[list[int]]:
        """Pixels per side of each view of each group."""
        small = self.local.augment.size if self.local else 0
        return [
            [small if is_small else self.augment.size for is_small in self.small_views(group)]
            for group in range(len(self.views))
        ]

    def _replayed_views(
        self, epoch: int, step: int, part: slice, groups: tuple[np.ndarray, ...]
    ) -> dict[tuple[int, int], View]:
        """The views of a step that are a cache's, by group and number; part: the rank's rows of the global batch."""
        if self.replay is None:
            return {}
        seed, count, places = self.replay
        numbers = self.cached_views(epoch, step, count, apart=len({g for g, _ in places}) < len(places))[part]
        return {(g, v): self.replayed(groups[g], numbers[:, column], seed) for column, (g, v) in enumerate(places)}

    def replayed(self, images: np.ndarray, numbers: np.ndarray, seed: int) -> View:
        """View `numbers[i]` of image `images[i]` (both int64) in a key cache of this seed, see `key_view`."""
        pairs = zip(images.tolist(), numbers.tolist(), strict=True)
        u = [uniforms(seed, 0, KEY_VIEW + number, image, 1, VIEW_DRAWS) for image, number in pairs]
        return self._view(np.concatenate(u), images)

    def _view(self, u: np.ndarray, images: np.ndarray, augment: Augmentation | None = None) -> View:
        augment = augment or self.augment
        start, end = random_resized_crop(u[:, :22], self.sizes[images], augment.scale)
        return View(start, end, view_params(u[:, 22:], augment))

    def key_view(self, first: int, past: int, view: int) -> View:
        """View number `view` of the images first .. past in a key cache: a function of (seed, image, view) alone."""
        u = uniforms(self.seed, 0, KEY_VIEW + view, first, past - first, VIEW_DRAWS)
        return self._view(u, np.arange(first, past))

    def cached_views(self, epoch: int, step: int, views: int, *, apart: bool = False) -> np.ndarray:
        """Which of a cache's views stand for the key views of a step: global batch x 2 int64, anchor and positive.

        apart: both are views of the anchor, and never the same one.
        """
        u = uniforms(self.seed, epoch, CACHED_VIEW, step * self.batch, self.batch, 4)[:, :2]
        if not apart:
            return (u * views).astype(np.int64)
        first = (u[:, 0] * views).astype(np.int64)
        return np.stack([first, (first + 1 + (u[:, 1] * (views - 1)).astype(np.int64)) % views], axis=1)

    def cached_negatives(self, epoch: int, count: int, views: int) -> tuple[np.ndarray, np.ndarray]:
        """The epoch's negatives from a cache: `count` distinct images in ascending order, and a view of each; int64."""
        order = np.random.Generator(philox(self.seed, epoch, NEGATIVE_IMAGE)).permutation(len(self.sizes))
        u = uniforms(self.seed, epoch, NEGATIVE_VIEW, 0, count, 4)[:, 0]
        return np.sort(order[:count]), (u * views).astype(np.int64)

    def shuffled(self, epoch: int, step: int, group: int) -> np.ndarray:
        """The order (batch int64) in which batch norm sees a group's keys of the whole step: 0 anchors, 1 positives."""
        u = uniforms(self.seed, epoch, SHUFFLE + group, step * self.batch, self.batch, 4)[:, 0]
        return np.argsort(u, kind="stable")

    def cutmix_box(self, epoch: int, step: int, block: int = 0) -> tuple[int, int, int, int]:
        """A step's box (y0, x0, y1, x1) in pixels of the view: cut area ~ Beta(2, 2), centre uniform, clipped.

        block: number of a block of anchors of the global batch, where each has a box of its own; 0 has the step's.
        """
        u = uniforms(self.seed, epoch, CUTMIX, block * BLOCK_STRIDE + step, 1, 4)[0]
        size, side = self.augment.size, int(self.augment.size * np.sqrt(beta22(u[0])))
        cy, cx = int(u[1] * size), int(u[2] * size)
        y0, x0 = max(cy - side // 2, 0), max(cx - side // 2, 0)
        return y0, x0, min(cy + side // 2, size), min(cx + side // 2, size)


def beta22(u: float) -> float:
    """Inverse of the Beta(2, 2) distribution function 3x^2 - 2x^3, in closed form."""
    return float(0.5 - np.sin(np.arcsin(1 - 2 * u) / 3))


def random_resized_crop(u: np.ndarray, sizes: np.ndarray, scale: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """torchvision's RandomResizedCrop for a batch: ten tries, then the largest centred crop of an allowed ratio.

    u: N x 22 uniforms, sizes: N x 2 (height, width). Returns top-left and bottom-right corners, N x 2 float32 (y, x).
    """
    height, width = sizes[:, 0].astype(np.float64), sizes[:, 1].astype(np.float64)
    area = (scale[0] + (scale[1] - scale[0]) * u[:, :CROP_TRIES]) * (height * width)[:, None]
    low, high = np.log(RATIO[0]), np.log(RATIO[1])
    ratio = np.exp(low + (high - low) * u[:, CROP_TRIES : 2 * CROP_TRIES])
    w, h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (w > 0) & (w <= width[:, None]) & (h > 0) & (h <= height[:, None])
    row, first, found = np.arange(len(u)), fits.argmax(1), fits.any(1)
    image_ratio = width / height
    w = np.where(found, w[row, first], np.where(image_ratio > RATIO[1], np.rint(height * RATIO[1]), width))
    h = np.where(found, h[row, first], np.where(image_ratio < RATIO[0], np.rint(width / RATIO[0]), height))
    y = np.where(found, np.floor(u[:, 20] * (height - h + 1)), np.floor((height - h) / 2))
    x = np.where(found, np.floor(u[:, 21] * (width - w + 1)), np.floor((width - w) / 2))
    return np.stack([y, x], 1).astype(np.float32), np.stack([y + h, x + w], 1).astype(np.float32)


def centre_crop(sizes: np.ndarray, augment: Augmentation) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the evaluation crop: torchvision's Resize and CenterCrop, in pixels of the image as it is.

    Resize brings the shorter side to `eval_resize` and cuts the longer one down to whole pixels, so the two scales
    differ a little; CenterCrop rounds its offset to whole resized pixels, halves to the even one.
    sizes: N x 2 (height, width). Returns top-left and bottom-right corners, N x 2 float32 (y, x).
    """
    source = sizes.astype(np.float64)
    resized = np.floor(augment.eval_resize * source / source.min(axis=1, keepdims=True))
    first = np.rint((resized - augment.size) / 2)
    scale = source / resized
    return (first * scale).astype(np.float32), ((first + augment.size) * scale).astype(np.float32)


def view_params(u: np.ndarray, augment: Augmentation) -> ViewParams:
    """Colour, blur and flip parameters of N images from N x 14 uniforms."""
    strengths = (augment.brightness, augment.contrast, augment.saturation)
    factors = [(1 - s + 2 * s * u[:, 1 + i]).astype(np.float32) for i, s in enumerate(strengths)]
    low, high = augment.blur_sigma
    sigma = np.where(u[:, 10] < augment.blur_p, low + (high - low) * u[:, 11], 0.0)
    return ViewParams(
        jitter=u[:, 0] < augment.jitter_p,
        brightness=factors[0],
        contrast=factors[1],
        saturation=factors[2],
        hue=(augment.hue * (2 * u[:, 4] - 1)).astype(np.float32),
        order=np.argsort(u[:, 5:9], axis=1, kind="stable"),
        grey=u[:, 9] < augment.grey_p,
        blur_sigma=sigma.astype(np.float32),
        flip=u[:, 12] < augment.flip_p,
    )
