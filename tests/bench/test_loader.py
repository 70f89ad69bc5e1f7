"""`bingo bench loader` on a few images: record, table, refusals, gate, and the images that it makes."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from bingo.bench.loader import gate as loader_gate
from bingo.bench.loader import main as bench
from bingo.bench.loader import on_gpu as loader_gpu
from bingo.bench.loader.images import make_images
from bingo.bench.loader.record import Result, ShapeRecord
from bingo.bench.loader.table import table
from bingo.bench.loader.variants import OURS, PLAIN, RELEASE, STAGES, PlainDali, names
from bingo.cli import main
from tests.support.ranks import ROOT

SMALL = ["--images", "12", "--batch", "4", "--burst", "1", "--rounds", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


@pytest.fixture(autouse=True)
def no_cache_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.slow
def test_record_and_table(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every sample of every variant; one that fails is a row that says so."""

    def fails(self: PlainDali, start: int, steps: int) -> None:
        raise RuntimeError("not today")

    monkeypatch.setattr(PlainDali, "burst", fails)
    assert main(["bench", "loader", *SMALL, "--cache", str(cache), "--json", str(tmp_path / "r.json")]) == 0
    record = json.loads((tmp_path / "r.json").read_text())
    found = record["loader"]
    assert found.keys() == Result.__annotations__.keys()
    assert found["shape"].keys() == ShapeRecord.__annotations__.keys()
    assert torch.__version__.startswith(record["environment"]["packages"]["torch"])
    assert [(row["variant"], row["stage"]) for row in found["rows"]] == [(n, s) for n in names() for s in STAGES]
    for row in found["rows"]:
        if row["variant"] == PLAIN:
            assert row["error"] == "RuntimeError: not today"
            continue
        for clock in ("cpu_seconds", "wall_seconds"):
            assert len(row[clock]["samples"]) == 2
            assert min(row[clock]["samples"]) > 0
        assert ("over_release" in row) == (row["variant"] != RELEASE)
    assert len(found["order"]) == 24
    assert found["order"] == found["order"][::-1], "forwards, then backwards"
    assert found["gpu"] == {"absent": "torch sees no GPU"}
    said = capsys.readouterr().out
    assert "per decoded image, two views each" in said
    assert "gate: worst crop" in said


def test_the_stored_result_is_read() -> None:
    stored = json.loads((ROOT / "bench" / "results" / "loader-cpu-epyc-2core.json").read_text())["loader"]
    assert stored.keys() == Result.__annotations__.keys()
    lines = table(stored)
    assert [line.split(":")[0] for line in lines[-5:]] == [
        "split of the CPU time, ms",
        "gate",
        "aim",
        "aim",
        "GPU decoder",
    ]
    assert sum("reached (" in line for line in lines) == 2


def test_no_ratio_for_wrong_pixels(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loader_gate._torchvision
    monkeypatch.setattr(loader_gate, "_torchvision", lambda *args: real(*args) + 0.01)
    options = [*SMALL, "--cache", str(cache), "--variants", "packed,release"]
    lines: list[str] = []
    monkeypatch.setattr(bench, "table", lambda found: lines.extend(table(found)) or lines)
    assert main(["bench", "loader", *options]) == 1
    ours = [line for line in lines if line.startswith(OURS) and "wrong pixels" in line]
    assert len(ours) == len(STAGES)
    assert sum(line.endswith("not measured") for line in lines) == 2


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch", "0"], "not a whole number of at least 1"),
        (["--variants", "foo"], "--variants foo: there are release-style"),
        (["--images", "6", "--batch", "8"], "6 images are fewer than --batch 8 times --burst 1; lower one"),
        (["--data", "nowhere"], "--images is about images that are made here: leave it out beside --data"),
        (["--device", "cpu", "--seconds", "9"], "--seconds is about a GPU"),
    ],
)
def test_refusals(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "loader", *SMALL, *words]) == 2
    assert message in capsys.readouterr().err
