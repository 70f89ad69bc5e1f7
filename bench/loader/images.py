"""JPEG files like ImageNet's for the loader benchmark: sizes, bytes, chroma sampling and spectra.

Pictures are overlapping shapes with texture of a 1/f spectrum and a little sensor noise: edges and fine detail cost the
entropy decoder what photographs cost it. Everything follows from the seed and the number of the image.
"""

import contextlib
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from bingo.bench.loader.record import Images
from bingo.errors import UserError
from bingo.files import read_object, write_json

VERSION = 1
# (height, width) and how often, per hundred; None: drawn from a range.
USUAL = (((375, 500), 62), ((500, 375), 16), ((333, 500), 10), ((500, 500), 4))
SMALL, LARGE = (110, 300), (900, 1700)  # pixels of the longer side; 5 and 3 in a hundred
FULL_CHROMA = 0.3  # share of 4:4:4; the rest is 4:2:0


def make_images(folder: Path, count: int, seed: int = 0) -> Images:
    """Write `count` images as FOLDER/<class>/<number>.jpg unless they are there; returns their statistics.

    `UserError` if there are images that no earlier call made.
    """
    record = folder / "made.json"
    wanted = {"version": VERSION, "count": count, "seed": seed}
    with contextlib.suppress(UserError):  # not there, or damaged: made anew
        made = read_object(record, {"statistics": dict})
        if made.get("made") == wanted:
            return made["statistics"]
    there = [path for name in ("a", "b") for path in (folder / name).glob("*")]
    if others := [path for path in there if not (record.exists() and re.fullmatch(r"\d{5,}\.jpg", path.name))]:
        raise UserError(f"{folder} holds {others[0]}, which no benchmark made; name another folder for --cache")
    for old in there:
        old.unlink()
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_json(record, {"statistics": {}})  # from now on what is there is known to be ours, also after a kill
    for number in range(count):
        write_image(folder / "ab"[number % 2] / f"{number:05d}.jpg", np.random.default_rng([seed, number]))
    statistics = describe(sorted(folder.glob("*/*.jpg")))
    write_json(record, {"made": wanted, "statistics": statistics})
    return statistics


def describe(paths: list[Path]) -> Images:
    """Number, bytes and pixels of image files."""
    sizes = []
    for path in paths:
        with Image.open(path) as image:
            sizes.append(image.size)
    table = np.array(sizes)
    weights = np.array([path.stat().st_size for path in paths])
    return {
        "images": len(paths),
        "mean_bytes": float(weights.mean()),
        "mean_megapixels": float(table.prod(1).mean() / 1e6),
        "median_width_height": np.median(table, axis=0).tolist(),
    }


def write_image(path: Path, rng: np.random.Generator) -> None:
    """One picture as a JPEG."""
    full = rng.random() < FULL_CHROMA
    pixels = picture(rng, *_shape(rng))
    Image.fromarray(pixels).save(path, quality=int(rng.integers(84, 96)), subsampling=0 if full else 2)


def _shape(rng: np.random.Generator) -> tuple[int, int]:
    draw = rng.random() * 100
    for shape, share in USUAL:
        if draw < share:
            return shape
        draw -= share
    low, high = SMALL if draw < 5 else LARGE
    longer = int(rng.integers(low, high))
    shape = (int(longer * rng.uniform(0.6, 1.0)), longer)
    return shape if rng.random() < 0.7 else shape[::-1]


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """height x width x 3 uint8."""
    shapes = Image.new("RGB", (width, height), tuple(int(x) for x in rng.integers(40, 216, 3)))
    draw = ImageDraw.Draw(shapes)
    for _ in range(int(rng.integers(12, 60))):
        cx, cy, r = rng.random() * width, rng.random() * height, max(height, width) * 0.4 * rng.random() ** 2 + 4
        box = [cx - r, cy - r * rng.uniform(0.4, 1), cx + r, cy + r * rng.uniform(0.4, 1)]
        colour = tuple(int(x) for x in rng.integers(10, 246, 3))
        (draw.ellipse if rng.random() < 0.6 else draw.rectangle)(box, fill=colour)
    light = _texture(rng, height, width) * rng.uniform(14, 34)
    tint = _texture(rng, height, width)[..., None] * rng.normal(0, 5, 3)
    noise = rng.normal(0, rng.uniform(1.5, 5.0), (height, width, 1))
    return (np.asarray(shapes, np.float32) + light[..., None] + tint + noise).clip(0, 255).astype(np.uint8)


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """height x width, amplitude falling as 1/f, mean 0 and deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / frequency
    texture = np.fft.irfft2(spectrum, s=(height, width))
    return (texture / texture.std()).astype(np.float32)
