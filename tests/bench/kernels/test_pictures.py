"""The picture of the kernel benchmark, from made-up numbers."""

import sys
from pathlib import Path

import pytest

from bingo.bench.kernels import tables as kernel_tables
from bingo.bench.kernels.peers import COMPILED, LIBRARIES, PLAIN
from bingo.bench.kernels.pictures import save_picture
from bingo.bench.kernels.workload import LOSS, TASKS
from tests.support.kernel_result import fake_gpu_result

COMPILED_FLAT = [variant for together in COMPILED for variant in together]


def test_every_peer_has_a_row_and_a_colour() -> None:
    from bingo.bench.kernels.pictures import COLOURS, LABELS

    groups = [variant for task in TASKS for table in (PLAIN, LIBRARIES) for variant in table[task]] + COMPILED_FLAT
    assert {variant.group for variant in groups} == set(COLOURS) == set(LABELS)
    likes = {variant.like for variant in groups} - {""}
    assert likes <= {variant.name for variant in PLAIN[LOSS]}
    assert {what for aims in kernel_tables.AIMS.values() for what in aims} <= {"µs", "MB", *kernel_tables.OVER}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_picture(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    result = fake_gpu_result()
    path = tmp_path / f"kernels{suffix}"
    assert save_picture(result, path) == f"picture: {path}"
    first = path.read_bytes()
    if suffix == ".svg":
        save_picture(result, path)
        assert path.read_bytes() == first
        assert "NOT MEASURED" in path.read_text()


def test_picture_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = save_picture(fake_gpu_result(), tmp_path / "kernels.svg")
    assert said.startswith("the picture is skipped")
    assert not list(tmp_path.iterdir())
