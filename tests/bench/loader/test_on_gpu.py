"""The part of the loader benchmark that a GPU runs, on the CPU."""

from pathlib import Path

import torch

from bingo.bench.loader import on_gpu as loader_gpu
from bingo.bench.loader.images import make_images


def test_the_gpu_part_on_the_cpu(cache: Path, tmp_path: Path) -> None:
    """The code that a GPU runs, with the CPU in its place where that is possible."""
    from bingo.images.pack import pack_folder

    make_images(cache / "images", 12)
    data = pack_folder(cache / "images", tmp_path / "packed")
    cpu = torch.device("cpu")
    rows = loader_gpu.sweep(data, (4,), 1, cpu, 1)
    assert [row["load"] for row in rows] == [*loader_gpu.LOADS, 0.65]
    assert all(row["images_per_second"] > 0 and row["seconds"]["n"] == 2 for row in rows)
    assert loader_gpu.pixels(data, 4, 1, cpu, True) == {
        "fancy": True, "share_equal": 1.0, "mean_levels": 0.0, "largest_levels": 0,
    }  # fmt: skip
