"""The pictures of a recipe's report: its charts, and photographs as they are packed, as data URIs."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from bingo.bench.drawing import SOFT
from bingo.bench.report.charts import Bar, Chart, Dot, Line, Span, dots, heat_map, lines, timeline
from bingo.bench.report.statistics import mean_half
from bingo.config_parts import Augmentation
from bingo.distributed import World
from bingo.images.dataset import JPEG, Dataset
from bingo.views.loader import augmenter, training_batches
from bingo.views.plan import Plan

COLOURS_OF = {"no teacher": "#808080", "random": "#d97706", "knn": "#2f81d8", "label": "#1f9d63"}
MORE_COLOURS = ("#c2529f", "#1a9bb5", "#d1495b", "#8b72d6")
TEACHER = "#8b72d6"
EMBED_BYTES = 6_000  # a larger image is embedded as a thumbnail, or a page about photographs would pass 5 MB
THUMBNAIL = 96  # pixels of a thumbnail's longer side
PIXELATED = 64  # images up to this many pixels per side are enlarged without smoothing


@dataclass(frozen=True)
class Picture:
    """An image to embed: data URI, alternative text, and whether it is enlarged pixel by pixel."""

    uri: str
    alt: str
    pixelated: bool = False
    other: bool = False
    """Shown with a red frame: an image of another class than the anchor."""


def colour(arm: str, arms: list[str]) -> str:
    """The arm's colour, the same in every chart."""
    others = [name for name in arms if name not in COLOURS_OF]
    return COLOURS_OF[arm] if arm in COLOURS_OF else MORE_COLOURS[others.index(arm) % len(MORE_COLOURS)]


def data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def comparison(title: str, arms: dict[str, list[float]], labels: dict[str, str], teacher: float | None) -> Chart:
    """Percents per arm (arm -> seeds): the mean as a dot, its 95 % interval as a bar, a ring per seed.

    teacher: its own percent, on a row of its own.
    """
    rows = []
    for arm, values in arms.items():
        mean, half = mean_half(values)
        interval = None if half is None else (mean - half, mean + half)
        rows.append(Dot(labels[arm], mean, interval, values if len(values) > 1 else (), colour(arm, list(arms))))
    if teacher is not None:
        rows.append(Dot("teacher", teacher, colour=TEACHER))
    words = ", ".join(f"{row.name} {row.value:.1f}" for row in rows)
    return dots(title, rows, f"{title}: {words}")


def times(seconds: dict[str, float]) -> Chart:
    """Seconds by kind of stage, longest first, with shares."""
    order = sorted(seconds, key=lambda name: -seconds[name])
    total = sum(seconds.values()) or 1.0
    bars = [
        Bar(
            name,
            [Span(0.0, seconds[name], "seconds")],
            text=f"{seconds[name]:.1f} s, {100 * seconds[name] / total:.0f} %",
        )
        for name in order
    ]
    alt = "Seconds per kind of stage: " + ", ".join(f"{name} {seconds[name]:.1f}" for name in order)
    return timeline(
        "time by kind of stage", bars, {"seconds": MORE_COLOURS[1]}, alt, label="seconds, all seeds together"
    )


def bag_charts(
    degrees: dict[str, np.ndarray], labels: dict[str, str], expected: np.ndarray, overlaps: np.ndarray, alt: str
) -> list[Chart]:
    """How often images are members, and what bag files have in common.

    degrees: name -> in-degree of every image; expected: share of images with in-degree 0, 1, ... under random bags;
    overlaps: shares (0..1) in the order of `labels`, drawn where there are two bag files or more.
    """
    names = list(labels)
    floor = 0.5 / len(next(iter(degrees.values())))  # below half an image
    shown = np.flatnonzero(expected >= floor)
    drawn = [Line("expected of random bags", shown, 100 * expected[shown], SOFT, style="--")]
    for name, degree in degrees.items():
        shares = np.bincount(degree) / len(degree)
        filled = np.flatnonzero(shares)
        drawn.append(Line(labels[name], filled, 100 * shares[filled], colour(name, names), dots=True))
    first = lines("share of images, %", drawn, alt, label="bags that an image is a member of", log_y=True)
    if len(names) == 1:
        return [first]
    return [first, heat_map("members in common, %", [labels[name] for name in names], overlaps, alt)]


def photograph(dataset: Dataset, index: int, alt: str, other: bool = False) -> Picture:
    """A packed image, byte for byte if it is small, otherwise a thumbnail of it."""
    data = dataset.encoded(index).tobytes()
    kind = "image/jpeg" if dataset.formats[index] == JPEG else "image/png"
    if len(data) > EMBED_BYTES:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        kind, data = "image/jpeg", buffer.getvalue()
    return Picture(data_uri(kind, data), alt, bool(dataset.sizes[index].max() <= PIXELATED), other)


def anchors_of(count: int, most: int) -> np.ndarray:
    """The middles of `most` equal parts of so many images."""
    return np.unique(((np.arange(most) + 0.5) * count / most).astype(int))


def bag_rows(dataset: Dataset, members: np.ndarray, anchors: np.ndarray, most: int) -> list[list[Picture]]:
    """For every anchor its picture, then those of its first `most` members (members: int32 N x k)."""
    return neighbour_rows(dataset, {a: members[a, :most].tolist() for a in anchors.tolist()}, "member")


def neighbour_rows(dataset: Dataset, rows: dict[int, list[int]], word: str) -> list[list[Picture]]:
    """Anchor -> others, as pictures; framed where the class is another than the anchor's. word: what the others are."""
    shown = []
    for anchor, others in rows.items():
        own = dataset.labels[anchor]
        row = [photograph(dataset, anchor, f"anchor, class {dataset.classes[own]}")]
        for other in others:
            label = dataset.labels[other]
            note = "" if label == own else " (another class)"
            row.append(photograph(dataset, other, f"{word}, class {dataset.classes[label]}{note}", bool(label != own)))
        shown.append(row)
    return shown


def view_rows(dataset: Dataset, augment: Augmentation, seed: int, images: int, views: int) -> list[list[Picture]]:
    """The first `images` images of a run's epoch 0, each followed by `views` views of the run's plan.

    A plan is a function of (seed, epoch, position, view): a smaller batch changes none of its numbers, so the first
    views are those that the run itself used. `UserError` where DALI is missing.
    """
    plan = Plan(dataset.sizes, min(images, len(dataset)), augment, seed, views=(views,))
    batch = next(training_batches(dataset, plan, World(0, 1, torch.device("cpu"), 1), start=0, stop=1))
    apply = augmenter(augment, torch.float32)
    tensors = [apply(crop, batch.params(0, v)) for v, crop in enumerate(batch.crops[0])]
    rows = []
    for position, index in enumerate(batch.plan.groups[0].tolist()):
        name = dataset.classes[dataset.labels[index]]
        row = [photograph(dataset, index, f"original, class {name}")]
        row += [_view(tensor[position], augment, f"view {v + 1}, class {name}") for v, tensor in enumerate(tensors)]
        rows.append(row)
    return rows


def _view(tensor: torch.Tensor, augment: Augmentation, alt: str) -> Picture:
    """A normalised view (3 x H x W) as a PNG of its pixels."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (augment.mean, augment.std))
    pixels = ((tensor * std + mean).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous()
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "PNG")
    return Picture(data_uri("image/png", buffer.getvalue()), alt, augment.size <= PIXELATED)
