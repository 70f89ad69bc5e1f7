"""The four files of an IDX set with made-up images: each class is a bright square at a place of its own."""

import gzip
import struct
from pathlib import Path

import numpy as np

from bingo.images.idx import FILES


def write_idx_files(folder: Path, *, train: int, val: int, classes: int = 10, side: int = 28) -> Path:
    """`folder`, with the training files packed and the test files as they are."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        labels = np.arange(count) % classes
        images = draw.integers(0, 100, (count, side, side)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            top, left = 2 + side // 4 * (label // 4), 2 + side // 4 * (label % 4)
            image[top : top + 6, left : left + 6] = 250
        of_images, of_labels = FILES[split]
        contents = {
            of_images: struct.pack(">4I", 0x0803, count, side, side) + images.tobytes(),
            of_labels: struct.pack(">2I", 0x0801, count) + labels.astype(np.uint8).tobytes(),
        }
        for name, content in contents.items():
            packed = split == "train" and name == of_images
            path = folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(content) if packed else content)
    return folder
