"""The benchmark of the CPU: its rivals give the same loss, wrong ones no time, absent ones say so; it draws."""

from pathlib import Path

import pytest
import torch

from bingo.bench.kernels import cpu_losses, on_cpu
from bingo.bench.record import read_result
from bingo.cli import main

FEW = ["naive", "chunked", "plain PyTorch"]


@pytest.mark.slow
def test_cpu_benchmark_draws_and_counts_host_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    words = ["bench", "kernels", "--device", "cpu", "--rows", "16", "--queue", "500", "--samples", "2"]
    words += ["--variants", "naive,chunked,cut-", "--json", str(tmp_path / "k.json")]
    assert main([*words, "--picture", str(tmp_path / "k.svg")]) == 0
    record = read_result(tmp_path / "k.json", "kernels")["detail"]
    assert set(record["host_seconds"]) == {
        "implementation alone", "queue_softmax", "queue_softmax, gradient wanted",
    }  # fmt: skip
    assert "host time per call" in capsys.readouterr().out
    assert (tmp_path / "k.svg").exists()


@pytest.mark.parametrize("name", [name for name in cpu_losses.RIVALS if "compiled" not in name])
def test_every_loss_is_the_naive_one(name: str) -> None:
    """In fp64, gradients too. What is compiled is one of the others."""
    q, keys, weights, queue = (tensor.detach().double() for tensor in on_cpu.make_inputs(6, 40, 16))
    weights = weights * torch.tensor([[0.5, 1.5]])
    made, absent = cpu_losses.build([name])
    if absent:
        pytest.skip(absent[name])
    q.requires_grad_()
    inputs = (q, keys, weights, queue)
    mine, truth = (on_cpu._loss_and_gradient(loss, inputs) for loss in (made[name], cpu_losses.naive))
    torch.testing.assert_close(mine, truth, rtol=1e-9, atol=1e-9)


def test_who_is_wrong_or_fails_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> torch.Tensor:
        raise RuntimeError("not today\nnor tomorrow")

    def absent() -> cpu_losses.Loss:
        raise ModuleNotFoundError("nobody")

    wrong = cpu_losses.Rival(lambda: lambda *tensors: 1.001 * cpu_losses.plain(*tensors))
    rivals = {"wrong": wrong, "fails": cpu_losses.Rival(lambda: fails), "absent": cpu_losses.Rival(absent, "get it")}
    monkeypatch.setattr(cpu_losses, "RIVALS", cpu_losses.RIVALS | rivals)
    monkeypatch.setattr(on_cpu, "_extra_bytes_elsewhere", lambda *_: None)
    found = on_cpu.run(8, 50, 16, 3, [*FEW, *rivals])
    assert list(found["cpu_seconds"]) == list(found["seconds"]) == FEW
    assert {name: len(values) for name, values in found["cpu_seconds"].items()} == dict.fromkeys(FEW, 3)
    assert set(found["over_chunked"]) == {"naive", "plain PyTorch"}
    assert found["failed"]["wrong"].startswith("wrong: off by 1e-03 (loss)")
    assert found["failed"]["fails"] == "RuntimeError: not today"
    assert found["failed"]["absent"] == "not installed (ModuleNotFoundError); get it"
    assert sum(any(line.startswith(name) for name in rivals) for line in on_cpu.lines(found)) == 3


def test_nothing_is_timed_where_ours_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = cpu_losses.Rival(lambda: lambda *tensors: 1.001 * cpu_losses.plain(*tensors))
    monkeypatch.setattr(cpu_losses, "RIVALS", cpu_losses.RIVALS | {"chunked": wrong})
    monkeypatch.setattr(on_cpu, "_interleaved", lambda *_: pytest.fail("timed"))
    with pytest.raises(RuntimeError, match="our loss: wrong"):
        on_cpu.run(8, 50, 16, 1, FEW)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak of a process")
def test_a_fresh_process_tells_what_a_loss_adds_to_memory() -> None:
    """The naive one's logits are 2 x 64 x 20 001 numbers, in memory several times."""
    assert on_cpu._extra_bytes_elsewhere("naive", 64, 20000, 16) > 2 * 2 * 64 * 20000 * 4


def test_wrong_variants_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "kernels", "--device", "cpu", "--variants", "nobody"]) == 2
    assert "--variants nobody: there are naive; chunked; plain PyTorch" in capsys.readouterr().err
