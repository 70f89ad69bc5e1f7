"""`bingo bench predict`: what it prints and writes, files that it fits and scores, and wrong words."""

import argparse
import re
from pathlib import Path

import pytest

from bingo.bench.predict import calibration, page
from bingo.bench.predict.fit import CPU, STRAGGLER, fitted, more_ranks
from bingo.bench.predict.flags import predict_flags
from bingo.bench.predict.gpus import GPUS
from bingo.bench.predict.main import job_of
from bingo.bench.record import Row, read_result, write_result
from bingo.bench.roof.main import reduce_rows
from bingo.bench.roof.reduce import Curve
from bingo.cli import main
from tests.support.ranks import ROOT

TINY = ["--student", "tiny-4", "--teacher", "tiny-8", "--size", "32", "--batch", "64", "--queue", "512"]


def row(case: str, metric: str, *samples: float) -> Row:
    return {
        "case": case, "variant": "ours", "metric": metric, "better": "lower", "clock": "cpu",
        "processes": [list(samples)],
    }  # fmt: skip


def file(tmp_path: Path, *rows: Row, measurement: str = "scaling") -> Path:
    path = tmp_path / f"{measurement}.json"
    write_result(path, measurement, rows)
    return path


def test_the_table_and_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "predicted.json"
    assert main(["bench", "predict", *TINY, "--nodes", "2", "--images", "6400", "--json", str(path)]) == 0
    said = capsys.readouterr().out
    assert "16 x H100, 4 images each; predicted, nothing ran" in said
    assert "must decode" in said
    rows = read_result(path, "predict")["rows"]
    assert rows[0]["metric"] == "images per second"
    assert rows[0]["case"] == "2 nodes x 8 ranks, 4 per rank, tiny-4 from tiny-8, 32 px, bf16, release, H100"
    assert {r["variant"] for r in rows} > {"as asked", "release-style TF32", "+ cached keys"}
    assert all(r["clock"] == "none" for r in rows)


def test_measured_rates_replace_the_table(tmp_path: Path) -> None:
    rows = [
        row("bf16 products", "flops per second", 1e12, 3e12),
        row("one launch", "host seconds", 5e-6),
        row("weak, 4 ranks, 16 per rank", STRAGGLER, 0.05, 0.07, 0.06),
    ]
    curve = Curve(4, 1, {size: [1e-4 + 1.5 * size / 1e9] * 3 for size in (1000, 10**6, 10**8)})
    found = fitted(GPUS["A100"], [file(tmp_path, *rows, *reduce_rows([curve]), measurement="roof")])
    assert (found.bf16, found.host_s, found.memory) == (2e12, 5e-6, GPUS["A100"].memory)
    assert (found.nvlink, found.node_alpha_s) == (pytest.approx(1e9), pytest.approx(1e-4))
    assert found.straggler == pytest.approx(0.06 / 1.6651, rel=1e-3)


def test_four_ranks_from_one_and_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a second rank costs grows to one and a half times that: 20 + 1.5 * 4 ms; other cases are left out."""
    cases = {1: [0.02] * 3, 2: [0.024] * 3, 4: [0.025] * 3}
    rows = [row(f"weak, {ranks} ranks, 16 per rank", CPU, *samples) for ranks, samples in cases.items()]
    path = file(tmp_path, *rows, row("strong, 4 ranks, 4 per rank", CPU, 0.01))
    (found,) = more_ranks([path], [4])
    assert found.predicted["median"] == pytest.approx(0.026)
    assert found.error == pytest.approx(0.04)
    json = tmp_path / "predicted.json"
    assert main(["bench", "predict", "--fit", str(path), "--ranks", "4,8", "--json", str(json)]) == 0
    said = capsys.readouterr().out
    assert "N=4: predicted 26.00" in said
    assert "error +4.0 %" in said
    assert main(["bench", "predict", "--score", str(json), str(path)]) == 0
    assert "+4.0 %  predicted 0.026, measured 0.025 (n=3)" in capsys.readouterr().out


def test_a_prediction_is_held_against_a_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mode before a case and what stands behind its precision do not matter."""
    asked = row("1 nodes x 2 ranks, 8 per rank, a from b, 32 px, bf16, H100", "images per second", 90.0)
    predicted = file(tmp_path, {**asked, "variant": "as asked"}, measurement="predict")
    case = "weak, 1 nodes x 2 ranks, 8 per rank, a from b, 32 px, bf16, random crops"
    measured = file(tmp_path, row(case, "images per second", 99.0, 100.0, 101.0))
    assert main(["bench", "predict", "--score", str(predicted), str(measured)]) == 0
    assert "  -10.0 %  predicted 90, measured 100 (n=3)" in capsys.readouterr().out
    other = file(tmp_path, row(case.replace("8 per", "9 per"), "images per second", 1.0))
    assert main(["bench", "predict", "--score", str(predicted), str(other)]) == 2
    assert "was measured in" in capsys.readouterr().err


def test_published_rows_are_predicted_from_fewer_gpus() -> None:
    """Those of 8 and 64 GPUs are met, as they are fitted to; those of 512 and 768 within 6 %."""
    checks = {check.name.split(",")[0]: check for check in calibration.many_gpus()}
    assert [abs(check.error) < 1e-9 for check in checks.values()] == [True, True, False, False]
    assert all(abs(check.error) < 0.06 for check in checks.values())


@pytest.mark.slow
def test_the_page_shows_what_the_command_prints() -> None:
    """Every table line of docs/predicted.md, in order: `bingo bench predict --table` prints a new one."""
    text = (ROOT / "docs" / "predicted.md").read_text()
    shown = [line for line in text.splitlines() if line.startswith("|")]
    assert shown == [line for line in page.lines() if line]


def test_the_page_quotes_its_own_tables() -> None:
    """Ratios that the text gives are in the table of the ladder."""
    text = (ROOT / "docs" / "predicted.md").read_text()
    table = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    running = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    quoted = re.findall(r"(\d\.\d\d)x", running)
    assert len(quoted) > 4
    assert [ratio for ratio in quoted if f"| {ratio} |" not in table] == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--gpu H10", "--gpu H10: no such kind in the table; did you mean 'H100'"),
        ("--gpu B200", "or measure yours with `bingo bench roof --json FILE` and add --fit FILE"),
        (
            "--batch 100",
            "--batch 100 does not divide among 8 GPUs (--nodes 1 --gpus-per-node 8); set --batch to a multiple of 8",
        ),
        ("--student resnet19", "resnet19"),
        ("--teacher none", "none"),
        ("--nodes 0", "--nodes: '0' is not a whole number of at least 1"),
        ("--cached --engine plain", "--engine plain is about a live teacher, and --cached has none: leave one out"),
        ("--images 100", "--images 100 are fewer than one step's --batch 256"),
        ("--fit no.json", "no.json"),
        ("--ranks 4", "measure them: bingo bench scaling --local 1,2"),
        ("--score a.json", "--score needs a prediction and a measurement"),
        ("--engine fast", "--engine: 'fast' is not allowed"),
    ],
)
def test_wrong_words_are_one_sentence(words: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "predict", *words.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"schema": "bingo-bench-9"}', "has the schema 'bingo-bench-9', this release reads bingo-bench-1"),
        ('{"schema": "bingo-', "scaling.json"),
        (None, "has no row of a machine's rates"),
    ],
)
def test_files_of_another_kind(
    text: str | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file(tmp_path, row("a case", "a metric", 1.0))
    if text is not None:
        path.write_text(text)
    assert main(["bench", "predict", *TINY, "--fit", str(path)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_a_batch_is_shared_by_all_gpus() -> None:
    options: argparse.Namespace = predict_flags().parse_args(["--nodes", "4", "--batch", "2048"])
    job = job_of(options)
    assert (job.rows, job.gpus) == (64, 32)
