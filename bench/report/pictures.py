"""The pictures of a report: charts as SVG, photographs as they are packed, all as data URIs."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from bingo.bench.drawing import figure
from bingo.config_parts import Augmentation
from bingo.distributed import World
from bingo.images.dataset import JPEG, Dataset
from bingo.views.loader import augmenter, training_batches
from bingo.views.plan import Plan

COLOURS = {"no teacher": "#8c8c8c", "random": "#e69f00", "knn": "#0072b2", "label": "#009e73"}  # Okabe and Ito
MORE_COLOURS = ("#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
EMBED_BYTES = 6_000  # a larger image is embedded as a thumbnail, or a page about photographs would pass 5 MB
THUMBNAIL = 96  # pixels of a thumbnail's longer side
PIXELATED = 64  # images up to this many pixels per side are enlarged without smoothing
CURVE_POINTS = 400


@dataclass(frozen=True)
class Picture:
    """An image to embed: data URI, alternative text, and whether it is enlarged pixel by pixel."""

    uri: str
    alt: str
    pixelated: bool = False
    other: bool = False
    """Shown with a red frame: an image of another class than the anchor."""


@dataclass(frozen=True)
class Curve:
    """One training run: x in student passes; loss per step, kNN accuracy (0..1) per evaluation."""

    loss_x: np.ndarray
    loss: np.ndarray
    knn_x: np.ndarray
    knn: np.ndarray


def colour(arm: str, arms: list[str]) -> str:
    """The arm's colour, the same in every chart."""
    others = [name for name in arms if name not in COLOURS]
    return COLOURS[arm] if arm in COLOURS else MORE_COLOURS[others.index(arm) % len(MORE_COLOURS)]


def svg(chart: Any, alt: str) -> Picture:
    """The chart as an SVG without a date: the same run gives the same bytes."""
    buffer = io.BytesIO()
    chart.savefig(buffer, format="svg", metadata={"Date": None})
    return Picture(data_uri("image/svg+xml", buffer.getvalue()), alt)


def data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def comparison(panels: dict[str, dict[str, list[float]]], labels: dict[str, str], alt: str) -> Picture:
    """One panel per measure (title -> arm -> percent per seed): mean as a bar, standard deviation, a dot per seed."""
    arms = list(labels)
    with figure(9.6, 3.6) as chart:
        for axes, (title, values) in zip(chart.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            for x, arm in enumerate(arms):
                seeds = np.array(values[arm])
                spread = seeds.std(ddof=1) if len(seeds) > 1 else 0.0
                axes.bar(x, seeds.mean(), 0.62, color=colour(arm, arms), alpha=0.75)
                axes.errorbar(x, seeds.mean(), spread, color="#222222", capsize=5, lw=1.3)
                offsets = np.linspace(-0.14, 0.14, len(seeds)) if len(seeds) > 1 else np.zeros(1)
                axes.plot(x + offsets, seeds, "o", ms=4.5, color="white", mec="#222222", mew=1.0)
                top = max(seeds.mean() + spread, seeds.max())
                axes.annotate(
                    f"{seeds.mean():.1f}", (x, top), (0, 5), textcoords="offset points", ha="center", weight="bold"
                )
            axes.set_xticks(range(len(arms)), [labels[arm] for arm in arms])
            axes.set_ylim(0, 112)
            axes.set_yticks(range(0, 101, 20))
            axes.grid(axis="x", visible=False)
            axes.set_title(title, loc="left")
        return svg(chart, alt)


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred moving average; at the ends over the values there are."""
    ones = np.ones(min(window, len(values)))
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def curves(
    runs: dict[str, list[Curve]], labels: dict[str, str], window: Callable[[int], int], teacher: float | None, alt: str
) -> Picture:
    """Loss and kNN accuracy (percent) against student passes: a thick mean over the seeds, a thin line per seed.

    window: number of steps -> steps of the moving average; teacher: its kNN accuracy (0..1), drawn as a dashed line.
    """
    with figure(9.6, 3.6) as chart:
        left, right = chart.subplots(1, 2)
        for arm, seeds in runs.items():
            style = {"color": colour(arm, list(labels))}
            lines = [(c.loss_x, smooth(c.loss, window(len(c.loss)))) for c in seeds if len(c.loss)]
            _lines(left, lines, labels[arm], style, "-")
            _lines(right, [(c.knn_x, 100 * c.knn) for c in seeds if len(c.knn)], labels[arm], style, "o-")
        if teacher is not None:
            right.axhline(100 * teacher, color="#222222", ls="--", lw=1, label="teacher")
        left.set_title("training loss", loc="left")
        right.set_title("kNN accuracy while training, %", loc="left")
        for axes in (left, right):
            axes.set_xlabel("student passes (images through the student)")
            axes.xaxis.set_major_formatter(_thousands())
        handles, names = right.get_legend_handles_labels()
        if not handles:
            handles, names = left.get_legend_handles_labels()
        chart.legend(handles, names, loc="outside lower center", ncols=len(names) or 1)
        return svg(chart, alt)


def _lines(
    axes: Any, lines: list[tuple[np.ndarray, np.ndarray]], label: str, style: dict[str, str], marker: str
) -> None:
    if not lines:
        return
    shortest = min(len(x) for x, _ in lines)
    keep = np.unique(np.linspace(0, shortest - 1, min(shortest, CURVE_POINTS)).round().astype(int))
    for x, y in lines:
        axes.plot(x[keep], y[keep], lw=0.7, alpha=0.45, **style)
    mean = np.mean([y[keep] for _, y in lines], axis=0)
    axes.plot(lines[0][0][keep], mean, marker, ms=3.5, lw=1.8, label=label, **style)


def _thousands() -> Callable[[float, Any], str]:
    return lambda value, _: f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"


def times(seconds: dict[str, float], alt: str) -> Picture:
    """Horizontal bars, longest first, with seconds and share written on each."""
    order = sorted(seconds, key=lambda name: seconds[name])
    total = sum(seconds.values()) or 1.0
    with figure(9.6, 0.9 + 0.32 * len(order)) as chart:
        axes = chart.subplots()
        axes.barh(order, [seconds[name] for name in order], color="#0072b2", alpha=0.75, height=0.65)
        for y, name in enumerate(order):
            text = f"{seconds[name]:.1f} s  ({100 * seconds[name] / total:.0f} %)"
            axes.annotate(text, (seconds[name], y), (5, 0), textcoords="offset points", va="center")
        axes.set_xlim(0, 1.18 * max(seconds.values(), default=1.0))
        axes.set_xlabel("seconds, all seeds together")
        axes.grid(axis="y", visible=False)
        return svg(chart, alt)


def bag_chart(
    degrees: dict[str, np.ndarray], labels: dict[str, str], expected: np.ndarray, overlaps: np.ndarray, alt: str
) -> Picture:
    """How often images are members, and what bag files have in common.

    degrees: name -> in-degree of every image; expected: share of images with in-degree 0, 1, ... under random bags;
    overlaps: shares (0..1) in the order of `labels`, drawn where there are two bag files or more.
    """
    names = list(labels)
    with figure(9.6, 3.8) as chart:
        wide = len(names) > 1
        left, *right = chart.subplots(1, 1 + wide, width_ratios=[1.5, 1][: 1 + wide], squeeze=False)[0]
        floor = 0.5 / len(next(iter(degrees.values())))  # below half an image
        shown = np.flatnonzero(expected >= floor)
        left.plot(shown, expected[shown], color="#222222", ls="--", lw=1.2, label="expected of random bags")
        for name, degree in degrees.items():
            shares = np.bincount(degree) / len(degree)
            filled = np.flatnonzero(shares)
            style = {"color": colour(name, names), "alpha": 0.8}
            left.plot(filled, shares[filled], "o-", ms=3.5, lw=1, label=labels[name], **style)
        left.set_yscale("log")
        left.set_ylim(bottom=floor)
        left.set_xlabel("bags that an image is a member of")
        left.set_title("share of images, %", loc="left")
        left.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
        left.xaxis.get_major_locator().set_params(integer=True)
        left.legend()
        for axes in right:
            _heat_map(axes, [labels[name] for name in names], overlaps)
        return svg(chart, alt)


def _heat_map(axes: Any, names: list[str], shares: np.ndarray) -> None:
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        ink = "white" if share > 0.6 else "#222222"
        axes.text(column, row, f"{100 * share:.1f}", ha="center", va="center", color=ink)
    axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title("members in common, %", loc="left")


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


def bag_rows(dataset: Dataset, members: np.ndarray, anchors: np.ndarray, most: int) -> list[list[Picture]]:
    """For every anchor its picture, then those of its first `most` members (members: int32 N x k)."""
    rows = []
    for anchor in anchors.tolist():
        own = dataset.labels[anchor]
        row = [photograph(dataset, anchor, f"anchor, class {dataset.classes[own]}")]
        for member in members[anchor, :most].tolist():
            label = dataset.labels[member]
            note = "" if label == own else " (another class)"
            row.append(photograph(dataset, member, f"member, class {dataset.classes[label]}{note}", bool(label != own)))
        rows.append(row)
    return rows


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
