"""`bingo bench bags` on a CPU: every variant gated and timed, a wrong one caught, wrong flags in a sentence."""

from pathlib import Path

import pytest
import torch

from bingo.bench import neighbours as bags
from bingo.bench.record import read_result
from bingo.cli import main
from tests.support.ranks import ROOT

pytest.importorskip("faiss")
TINY = ["bench", "bags", "--device", "cpu", "--images", "400", "--dim", "16", "--queries", "90", "--rounds", "1"]


@pytest.fixture(autouse=True)
def short_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bags, "VISIT_SECONDS", 0.001)


def test_every_variant_is_gated_and_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--json", str(tmp_path / "bags.json")]) == 0
    result = read_result(tmp_path / "bags.json", "bags")
    found = result["detail"]
    stored = read_result(ROOT / "bench" / "results" / "bags-cpu-epyc-2core.json")["detail"]
    assert stored.keys() == found.keys() == bags.Result.__annotations__.keys()
    assert "1.28 M: 40073 times these pairs, too far to estimate" in bags.table(stored)[-1]
    variants = found["variants"]
    assert len(variants) == 6
    for row in variants.values():
        assert row["recall"] >= 0.999
        seconds = row["seconds"]
        assert len(seconds["samples"]) == seconds["n"] >= 2
        assert len(row["cpu_seconds"]["samples"]) == seconds["n"]
        assert "imagenet_seconds" not in row
    assert [(row["variant"], row["clock"]) for row in result["rows"][:2]] == [
        ("faiss IndexFlatIP", "wall"), ("faiss IndexFlatIP", "cpu"),
    ]  # fmt: skip
    assert variants["torch matmul + topk"]["speedup_over_torch"]["median"] == 1
    printed = capsys.readouterr().out
    assert all(name in printed for name in variants)


def test_a_variant_that_misses_neighbours_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    intact = bags.nearest

    def careless(*args: object, **kwargs: object) -> tuple[torch.Tensor, torch.Tensor]:
        scores, indices = intact(*args, **kwargs)  # type: ignore[arg-type]
        return scores, indices.clamp(min=40)

    monkeypatch.setattr(bags, "nearest", careless)
    assert main(TINY) == 1
    line = next(text for text in capsys.readouterr().out.splitlines() if text.startswith("nearest, reference float32"))
    assert "failed: recall@5 0." in line
    assert "not timed" in line


def test_without_faiss_its_rows_say_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    assert main(TINY) == 0
    printed = capsys.readouterr().out
    assert printed.count("absent: faiss, which finds knn and kmeans bags, is not installed") == 2


def test_hours_are_told_only_by_a_run_that_is_large_enough() -> None:
    large = bags.SearchShape(200_000, 64, 0)
    row = bags.timed_row([2.0, 2.0, 2.0], [], large)
    assert row["imagenet_seconds"] == pytest.approx(2 * (bags.IMAGENET / 200_000) ** 2)
    assert "imagenet_seconds" not in bags.timed_row([2.0], [3.0], bags.SearchShape(20_000, 64, 0))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--queries", "401"], "--queries 401 is more than --images 400"),
        (["--k", "16"], "--k 16 must be below 16"),
        (["--images", "0"], "'0' is not a whole number of at least 1"),
    ],
)
def test_wrong_flags(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, *words]) == 2
    assert message in capsys.readouterr().err
