"""`bingo bench roof` in its small form on a CPU, and alpha and beta of made-up curves."""

from pathlib import Path

import pytest
import torch

from bingo.bench.predict.fit import RATES, fitted
from bingo.bench.predict.gpus import GPUS
from bingo.bench.record import read_result, samples_of
from bingo.bench.roof.main import reduce_rows
from bingo.bench.roof.reduce import Curve, fit_link
from bingo.cli import main
from tests.support.ranks import finish, start_ranks


def test_alpha_and_beta_come_back() -> None:
    curve = Curve(4, 1, {size: [2e-5 + 1.5 * size / 5e9] for size in (4096, 1 << 16, 1 << 20, 1 << 24)})
    link = fit_link(curve)
    assert (link.alpha, link.rate) == (pytest.approx(2e-5), pytest.approx(5e9))


def test_noise_gives_no_negative_link() -> None:
    link = fit_link(Curve(2, 1, {100: [3.0], 1000: [2.0], 10000: [1.0]}))
    assert link.alpha >= 0
    assert link.rate > 0


def test_between_nodes_each_gpu_sends_its_share() -> None:
    """Four nodes of eight: two doublings, and a node's sum goes through eight adapters."""
    ring = 2 * 31 / 32
    curve = Curve(32, 4, {size: [4e-5 + ring * size / 8e9] for size in (4096, 1 << 20, 1 << 26)})
    rows = {row["metric"]: samples_of(row)[0] for row in reduce_rows([curve]) if "between nodes" in row["case"]}
    assert rows == {"alpha seconds": pytest.approx(2e-5), "bytes per second": pytest.approx(1e9)}


@pytest.mark.slow
def test_the_whole_of_it_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "roof.json"
    words = ["--device", "cpu", "--size", "64", "--samples", "3", "--ranks", "2", "--bytes", "4096,65536,1048576"]
    assert main(["bench", "roof", *words, "--json", str(path)]) == 0
    assert "all-reduce, 1 nodes, 2 ranks, 4096 bytes" in capsys.readouterr().out
    rows = read_result(path, "roof")["rows"]
    assert all(sample > 0 for row in rows if row["metric"] != "alpha seconds" for sample in samples_of(row))
    assert all(len(samples_of(row)) >= 3 for row in rows if row["clock"] != "none")
    found = {RATES[key] for row in rows if (key := (row["case"], row["metric"])) in RATES}
    assert found == {"bf16", "fp32", "memory", "kernel_s", "host_s", "nvlink", "node_alpha_s"}
    machine = fitted(GPUS["A100"], [path])
    assert machine.nvlink != GPUS["A100"].nvlink
    assert machine.tf32 == GPUS["A100"].tf32


@pytest.mark.slow
def test_ranks_that_are_there_measure_together(tmp_path: Path) -> None:
    """As torchrun starts them: rank 0 says what both have measured, and the other nothing."""
    path = tmp_path / "roof.json"
    words = ["--device", "cpu", "--size", "16", "--samples", "1", "--bytes", "4096,65536", "--json", path]
    (first, said), (other, silent) = finish(start_ranks(["bench", "roof", *words], 2))
    assert (first, other) == (0, 0), said + silent
    assert "all-reduce, 1 nodes, 2 ranks, 65536 bytes" in said
    assert "all-reduce" not in silent
    assert read_result(path, "roof")["rows"]


def test_a_rank_that_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("bingo.bench.fresh_process.sys.executable", "false")
    assert main(["bench", "roof", "--device", "cpu", "--size", "8", "--samples", "1"]) == 2
    assert "rank 0 of 2 failed: no output; set --ranks to fewer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--ranks 0", "--ranks: '0' is not a whole number of at least 1"),
        ("--bytes 4096,0", "--bytes: '0' is not a whole number of at least 1"),
        pytest.param(
            "--device cuda", "sees no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)  # fmt: skip
def test_wrong_words(words: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "roof", *words.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
