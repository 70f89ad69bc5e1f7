"""The kernel benchmark where there is no GPU: statistics, gates, adapters, table, picture; nothing here is timed."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bingo.bench.kernels import peers
from bingo.bench.kernels import tables as kernel_tables
from bingo.bench.kernels.libraries import from_cross_entropy, liger_budgets
from bingo.bench.kernels.on_gpu import print_table, run_any, run_gpu
from bingo.bench.kernels.peers import COMPILED, LIBRARIES, LOOSE, PLAIN, Variant, attention, flash, flex, naive, splits
from bingo.bench.kernels.rounds import KernelRun, measure, reference
from bingo.bench.kernels.workload import LOSS, LSE, TASKS, Inputs, LossShape, exact, make_inputs, make_queues
from bingo.bench.samples import median_interval, ratio_interval
from bingo.bench.timing import (
    Timed,
    WallTimer,
    first_line,
    relative_error,
    visits,
)
from bingo.cli import main

SHAPE = LossShape(rows=24, keys=512, dim=32)
CPU = torch.device("cpu")
COMPILED_FLAT = [variant for together in COMPILED for variant in together]


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(0)
    return make_inputs(SHAPE, make_queues(SHAPE, CPU, 0, generator), CPU, generator)


@pytest.fixture
def run(inputs: Inputs) -> KernelRun:
    return KernelRun(WallTimer(), float("inf"), rounds=2, samples=2, repeats=2, inputs={SHAPE.rows: inputs})


def errors(answer: tuple[Tensor, ...], inputs: Inputs, task: str = LOSS) -> list[float]:
    return [relative_error(mine, truth) for mine, truth in zip(answer, exact(inputs, task), strict=True)]


def test_inputs(inputs: Inputs) -> None:
    rows = [inputs.q.detach(), inputs.keys.flatten(0, 1), *inputs.queues.single]
    assert all(torch.allclose(r.norm(dim=1), torch.ones(len(r))) for r in rows)
    assert len({queue.sum().item() for queue in inputs.queues.single}) == len(inputs.queues) == 4
    assert inputs.weights.sum().item() == pytest.approx(1)
    many = make_queues(SHAPE, CPU, 100_000, torch.Generator())
    assert len(many) * many.half[0].nbytes >= 200_000


def test_exact_is_the_loss_in_fp64(inputs: Inputs) -> None:
    """Written here from the formula, not from the code under test."""
    loss, gradient = exact(inputs, LOSS)
    q = inputs.q.detach().double().requires_grad_()
    s = torch.einsum("rc,rmc->rm", q, inputs.keys.double()) / 0.2
    lse = torch.logsumexp(q @ inputs.queues.single[0].double().T / 0.2, dim=1)
    truth = (inputs.weights.double() * torch.log1p((lse[:, None] - s).exp())).sum(1)
    torch.testing.assert_close(loss, truth.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(truth.mean(), q)[0])
    torch.testing.assert_close(exact(inputs, LSE)[0], lse.detach())


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("attend", [flash, flex])
def test_attention_adapters(attend: Callable[..., Any], parts: int, inputs: Inputs) -> None:
    assert max(errors(attention(attend)(inputs, parts)(0), inputs)) < 2e-3


def test_attention_with_heads_last(inputs: Inputs) -> None:
    def attend(q: Tensor, k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        assert q.shape == (4, SHAPE.rows, 1, SHAPE.dim)
        return flash(q.transpose(1, 2), k.transpose(1, 2), scale)

    assert max(errors(attention(attend, heads_last=True)(inputs, 4)(0), inputs)) < 2e-3


def test_plain_variants_agree_with_fp64(inputs: Inputs) -> None:
    assert max(errors(naive(False)(inputs, None)(0), inputs)) < 1e-6
    assert max(errors(naive(True)(inputs, None)(0), inputs)) < 2e-2
    for make in (peers.ours_loss, peers.ours_lse):
        task = LOSS if make is peers.ours_loss else LSE
        assert max(errors(make("chunked", half=False)(inputs, None)(0), inputs, task)) < 1e-6
    assert max(errors(peers.naive_lse(True)(inputs, None)(0), inputs, LSE)) < 2e-2
    assert peers.products(2)(inputs, None)(1)[0].shape == (SHAPE.rows, SHAPE.dim)


def test_class_index_libraries_are_asked_fairly(inputs: Inputs) -> None:
    """Loss and gradient of class 0 in fp32 are turned into our loss and gradient."""
    rows = inputs.scaled_half.float().requires_grad_()
    queue = inputs.queues.half[0].float()
    loss = torch.nn.functional.cross_entropy(
        rows @ queue.T, torch.zeros(SHAPE.rows, dtype=torch.long), reduction="none"
    )
    (slope,) = torch.autograd.grad(loss.sum(), rows)
    assert max(errors(from_cross_entropy(inputs, queue[0], loss.detach(), slope), inputs)) < 2e-3


def test_settings_to_try() -> None:
    assert splits(LossShape(8)) == (1, 2, 4, 8, 16, 32, 64)
    assert splits(LossShape(8, keys=96)) == (1, 2, 4)
    assert liger_budgets(LossShape(8)) == (512, 256, 64)


def test_every_peer_has_a_row_and_a_colour() -> None:
    from bingo.bench.kernels.pictures import COLOURS, LABELS

    groups = [variant for task in TASKS for table in (PLAIN, LIBRARIES) for variant in table[task]] + COMPILED_FLAT
    assert {variant.group for variant in groups} == set(COLOURS) == set(LABELS)
    likes = {variant.like for variant in groups} - {""}
    assert likes <= {variant.name for variant in PLAIN[LOSS]}
    assert {what for aims in kernel_tables.AIMS.values() for what in aims} <= {"µs", "MB", *kernel_tables.OVER}


def build(answer: Callable[[Inputs], tuple[Tensor, ...]]) -> Callable[[Inputs, Any], Any]:
    return lambda inputs, _: lambda i: answer(inputs)


def variants(inputs: Inputs) -> list[Variant]:
    truth = tuple(part.float() for part in exact(inputs, LOSS))
    calls = iter(range(1000))
    drifting = build(lambda _: (truth[0], truth[1] * (1 + 1e-6 * next(calls))))

    def missing(inputs: Inputs, _: Any) -> Any:
        import no_such_library  # type: ignore[import-not-found]

        return no_such_library

    def broken(inputs: Inputs, option: int) -> Any:
        if option < 3:
            raise RuntimeError(f"no kernel for {option}\nand a long story")
        return lambda i: truth

    return [
        Variant("right", "ours", build(lambda _: truth)),
        Variant("off", "fused", build(lambda _: (truth[0] * 1.1, truth[1]))),
        Variant("nan", "fused", build(lambda _: (truth[0], truth[1] * torch.nan))),
        Variant("drifting", "ours", drifting),
        Variant("missing", "fused", missing),
        Variant("broken", "fused", broken, lambda shape: (1, 2)),
        Variant("half broken", "fused", broken, lambda shape: (1, 3)),
        Variant("slow", "naive", broken, compile_seconds=float("inf")),
    ]


def test_gate_repeats_and_reasons(run: KernelRun, inputs: Inputs) -> None:
    rows = {row["variant"]: row for row in measure(run, SHAPE.rows, LOSS, variants(inputs), again=True)}
    assert rows["right"]["status"] == "ok"
    assert rows["right"]["bitwise_repeats"] == 2
    assert rows["right"]["n"] == len(rows["right"]["samples_s"]) == 8
    assert "loss is off by 1.0e-01, allowed 2e-02" in rows["off"]["reason"]
    assert rows["nan"]["status"] == "wrong"
    assert rows["drifting"]["reason"] == "repeat 1 differs from the first"
    assert not any("samples_s" in rows[name] for name in ("off", "nan", "drifting")), "no time without a right answer"
    assert (rows["missing"]["status"], rows["missing"]["reason"]) == ("absent", "no_such_library is not installed")
    assert (rows["broken"]["status"], rows["broken"]["reason"]) == ("failed", "RuntimeError: no kernel for 2")
    assert rows["half broken"]["option"] == "3"
    assert rows["half broken"]["sweep"]["1"] == "no kernel for 1"
    assert rows["slow"]["status"] == "skipped"
    assert rows["right again"]["repeat"]
    best = reference(list(rows.values()))
    assert best is rows["right"]
    assert rows["half broken"]["over_ours"]["ours"] == "right"


def test_gate_of_bf16_follows_the_number_of_keys() -> None:
    ours, peer = PLAIN[LOSS][0], PLAIN[LOSS][-1]
    assert ours.allowed(LossShape(8)) == peers.BF16
    assert ours.allowed(LossShape(8, keys=4096)) == pytest.approx((8e-5, 8e-4))
    assert ours.allowed(LossShape(8, keys=2 * 65536)) == peers.BF16
    assert peer.allowed(LossShape(8, keys=16)) == LOOSE


def test_a_slow_compilation_is_not_started_again(run: KernelRun, inputs: Inputs) -> None:
    slow = Variant("slow", "naive", build(lambda _: exact(inputs, LOSS)), compile_seconds=1e-3)
    run.deadline = time.monotonic() + 1000
    assert measure(run, SHAPE.rows, LOSS, [slow])[0]["status"] == "ok"
    run.compiled_in["slow"] = 2000
    assert "it may compile for 2000 s" in measure(run, SHAPE.rows, LOSS, [slow])[0]["reason"]


def test_settings_are_taken_over_and_ours_is_timed_again(run: KernelRun, inputs: Inputs) -> None:
    truth = exact(inputs, LOSS)
    seen = []

    def remember(inputs: Inputs, option: Any) -> Any:
        seen.append(option)
        return lambda i: truth

    run.chosen[SHAPE.rows, "flash attention"] = 4
    ours = Variant("right", "ours", build(lambda _: truth))
    rows = measure(run, SHAPE.rows, LOSS, [Variant("b", "attention", remember, like="flash attention")], beside=ours)
    assert seen == [4]
    assert [(row["variant"], row["repeat"]) for row in rows] == [("b", False), ("right", True)]
    assert rows[0]["over_ours"]["ours"] == "right"
    assert measure(run, SHAPE.rows, LOSS, variants(inputs)[4:5], beside=ours)[1:] == [], "nothing to compare with"


def test_a_lost_device_leaves_rows(run: KernelRun, inputs: Inputs) -> None:
    def die(count: int) -> list[float]:
        raise RuntimeError("an illegal memory access was encountered")

    run.timer.prepare = lambda *_: Timed("CUDA graph", 1, die)  # type: ignore[method-assign]
    (row,) = measure(run, SHAPE.rows, LOSS, variants(inputs)[:1])
    assert row["reason"] == "while timing: an illegal memory access was encountered"


def test_statistics() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 100.0]
    summary = median_interval(values)
    assert (summary["median"], summary["n"]) == (3.0, 5)
    low, high = summary["interval"]
    assert 1.0 <= low <= 3.0 <= high <= 100.0
    assert median_interval(values) == summary
    assert median_interval([5.0])["interval"] == [5.0, 5.0]
    assert ratio_interval([2.0] * 5, [1.0] * 5) == {"median": 2.0, "interval": [2.0, 2.0]}
    assert visits(["a", "b"], 2) == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert first_line(ValueError("")) == "ValueError"
    assert relative_error(torch.tensor([1.0, float("nan")]), torch.ones(2)) != 0


def test_exponential_chain() -> None:
    from bingo.bench.kernels.roof import EXP_BLOCK, run_exp

    x = torch.rand(EXP_BLOCK)
    chain = x.clone()
    run_exp(chain, 3)
    for _ in range(3):
        x = torch.exp2(-x)
    torch.testing.assert_close(chain, x)


def test_whole_run_off_the_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every row is there, with a number or a reason, and the record is JSON. Without the interpreter, which is slow."""
    for task in TASKS:
        monkeypatch.setitem(PLAIN, task, [v for v in PLAIN[task] if v.name != "triton fp32"])
    result = run_gpu("cpu", (8,), keys=256, dim=16, rounds=1, samples=1, repeats=1, seconds_budget=5)
    result = json.loads(json.dumps(result))
    loss, lse = result["cases"]
    names = [v.name for v in [*PLAIN[LOSS], *LIBRARIES[LOSS], *COMPILED_FLAT]]
    assert [row["variant"] for row in loss["results"] if not row["repeat"]] == names
    assert all(row["reason"] or row["n"] for case in (loss, lse) for row in case["results"])
    assert loss["flops"] == 2 * lse["flops"]
    print_table(result)
    assert "L only: R=8" in capsys.readouterr().out


@pytest.mark.slow
def test_cpu_benchmark_draws_and_counts_host_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    words = ["bench", "kernels", "--device", "cpu", "--rows", "16", "--queue", "500", "--samples", "2"]
    words += ["--json", str(tmp_path / "k.json"), "--picture", str(tmp_path / "k.svg")]
    assert main(words) == 0
    record = json.loads((tmp_path / "k.json").read_text())["kernels"]
    assert set(record["host_seconds"]) == {
        "implementation alone", "queue_softmax", "queue_softmax, gradient wanted",
    }  # fmt: skip
    assert "host time per call" in capsys.readouterr().out
    assert (tmp_path / "k.svg").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--rows", "8,0"], "--rows: '0' is not a whole number of at least 1"),
        (["--samples", "0"], "--samples: '0' is not a whole number of at least 1"),
        (["--rows", "8", "16"], "'16' is a word too many"),
        (["--device", "cpu", "--rows", "8,16"], "the CPU benchmark takes one number of rows"),
        (["--device", "tpu"], "there is no such device here"),
        (["--device", "cuda:9"], "there is no such device here"),
        (["--seconds", "0"], "--seconds: '0' is not above 0"),
        (["--device", "cpu", "--seconds", "9"], "--seconds is about a GPU, and this runs on the CPU"),
        (["--picture", "no/such/folder/k.svg"], "there is no folder"),
        (["--picture", "k.gif"], "must end in .svg or .png"),
    ],
)
def test_wrong_flags(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "kernels", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_wrong_sizes() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        run_gpu("cpu", ())
    with pytest.raises(ValueError, match="at least 1"):
        run_any("cpu", [8], 0, 16, 1, seconds=1)
    assert LOOSE == (2e-2, 2e-2)
