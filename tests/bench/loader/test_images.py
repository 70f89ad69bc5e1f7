"""The images that the loader benchmark makes."""

from pathlib import Path

from PIL import Image

from bingo.bench.loader.images import make_images


def test_made_images(cache: Path, tmp_path: Path) -> None:
    """The same for the same seed; made once; of more than one size."""
    first, second = make_images(tmp_path / "x", 6), make_images(tmp_path / "y", 6)
    assert first == second
    paths = sorted((tmp_path / "x").glob("*/*.jpg"))
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in sorted((tmp_path / "y").glob("*/*.jpg"))]
    before = [path.stat().st_mtime_ns for path in paths]
    make_images(tmp_path / "x", 6)
    assert [path.stat().st_mtime_ns for path in paths] == before
    assert len({Image.open(path).size for path in paths}) > 1
