"""The kernel benchmark where there is no GPU: statistics, gates, adapters, table, picture; nothing here is timed."""

import json
import sys
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
from bingo.bench.kernels.pictures import save_picture
from bingo.bench.kernels.record import Case, CpuResult, GpuResult, Roof, Row
from bingo.bench.kernels.rounds import KernelRun, measure, reference
from bingo.bench.kernels.workload import LOSS, LSE, TASKS, Inputs, LossShape, exact, make_inputs, make_queues
from bingo.bench.samples import median_interval, ratio_interval
from bingo.bench.timing import (
    CudaTimer,
    Timed,
    WallTimer,
    first_line,
    interleave,
    relative_error,
    visits,
)
from bingo.cli import main
from tests.support.ranks import ROOT

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


class FakeGraph:
    """Remembers what is called between its beginning and its end, and calls it again on replay, in place."""

    active: "FakeGraph | None" = None

    def __init__(self) -> None:
        self.work: list[Callable[[], Any]] = []

    def replay(self) -> None:
        for work in self.work:
            work()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> CudaTimer:
    """`CudaTimer` on a make-believe device: its logic runs, nothing is measured."""
    import contextlib
    from types import SimpleNamespace
    from unittest.mock import MagicMock

    @contextlib.contextmanager
    def capturing(graph: FakeGraph, stream: Any) -> Any:
        FakeGraph.active = graph
        try:
            yield
        finally:
            FakeGraph.active = None

    event = MagicMock(
        side_effect=lambda enable_timing: SimpleNamespace(record=MagicMock(), elapsed_time=lambda end: 0.1)
    )
    fakes = {"Event": event, "Stream": MagicMock(), "current_stream": MagicMock(), "synchronize": MagicMock()}
    fakes |= {"stream": lambda stream: contextlib.nullcontext(), "set_stream": MagicMock(), "CUDAGraph": FakeGraph}
    fakes |= {"graph": capturing, "get_device_properties": lambda device: SimpleNamespace(L2_cache_size=5)}
    fakes |= {"memory_allocated": lambda device: 100, "max_memory_allocated": lambda device: 350}
    fakes |= {"reset_peak_memory_stats": MagicMock(), "default_generators": [MagicMock()]}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr("bingo.bench.timing.torch.Generator", MagicMock())
    return CudaTimer("cuda:0")


def captured_call(log: list[int], replays: bool = True) -> Callable[[int], tuple[Tensor]]:
    """A call that notes its queue and, when captured, leaves work in the graph that writes its answer."""

    def call(i: int) -> tuple[Tensor]:
        log.append(i)
        answer = torch.full((3,), float(i))
        if FakeGraph.active and replays:
            FakeGraph.active.work.append(lambda: answer.fill_(i))
        return (answer,)

    return call


def test_graphs_hold_whole_passes_over_the_queues(cuda: CudaTimer) -> None:
    log: list[int] = []
    timed = cuda.prepare(captured_call(log), 3)
    assert (timed.method, timed.calls, timed.note) == ("CUDA graph", 24, "")
    assert timed.samples(2) == [pytest.approx(1e-4 / 24)] * 2
    assert [log.count(i) for i in (1, 2)] == [9, 9], "one each in the capture's warm-up and in the check"
    assert cuda.l2_bytes == 5
    assert cuda.extra_bytes(captured_call(log)) == 250
    assert len(cuda.host_seconds(captured_call(log), 3)) == 7


def test_a_graph_that_does_not_write_is_not_timed(cuda: CudaTimer) -> None:
    timed = cuda.prepare(captured_call([], replays=False), 3)
    assert timed.method == "events"
    assert timed.note == "graph capture failed: a replay gives another answer than an eager call"
    torch.cuda.default_generators[0].graphsafe_set_state.assert_called_once()  # type: ignore[attr-defined]


def test_calls_without_a_graph(cuda: CudaTimer, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[int] = []
    timed = cuda.prepare(captured_call(log), 3, "it waits for the device inside")
    log.clear()
    assert (timed.method, timed.calls, timed.note) == ("events", 3, "it waits for the device inside")
    assert len(timed.samples(2)) == 2
    assert log == [0, 1, 2, 0, 1, 2]

    def refuse(i: int) -> tuple[Tensor]:
        if FakeGraph.active:
            raise RuntimeError("operation not permitted when stream is capturing")
        return (torch.ones(1),)

    assert "not permitted" in cuda.prepare(refuse, 3).note
    monkeypatch.setattr("bingo.bench.timing.LONG_CALL", 1e-5)
    assert cuda.prepare(captured_call(log), 3).note.startswith("over ")


def test_exponential_chain() -> None:
    from bingo.bench.kernels.roof import EXP_BLOCK, run_exp

    x = torch.rand(EXP_BLOCK)
    chain = x.clone()
    run_exp(chain, 3)
    for _ in range(3):
        x = torch.exp2(-x)
    torch.testing.assert_close(chain, x)


def test_slow_variants_get_fewer_samples() -> None:
    def timed(seconds: float) -> Timed:
        return Timed("wall clock", 2, lambda count: [seconds] * count)

    samples = interleave({"fast": timed(1e-4), "slow": timed(1.0)}, rounds=3, most=5, visit_seconds=0.01)
    assert (len(samples["fast"]), len(samples["slow"])) == (30, 6)


@pytest.mark.parametrize(
    ("aim", "low", "high", "smaller", "verdict"),
    [
        (42, 40, 41, True, "met"),
        (42, 41, 43, True, "unsure"),
        (42, 43, 44, True, "missed"),
        (1.2, 1.3, 1.4, False, "met"),
        (1.2, 1.0, 1.1, False, "missed"),
    ],
)
def test_verdicts(aim: float, low: float, high: float, smaller: bool, verdict: str) -> None:
    assert kernel_tables.judge(aim, low, high, smaller) == verdict


def fake_gpu_result() -> GpuResult:
    """Made-up numbers in the form of a GPU's: for the table and the picture only."""
    generator = torch.Generator().manual_seed(0)
    roof: Roof = {
        "matmul_flops": 790e12, "copy_bytes": 4.3e12, "exp_per_second": 4.2e12, "seconds": {}, "work": "",
    }  # fmt: skip
    factors = {"triton": 1.6, "hopper": 1.25, "triton fp32": 14.0, "chunked": 40.0, "two matrix products": 1.7}
    factors |= {"cuDNN attention": 1.9, "flash attention": 2.2, "naive bf16 autocast": 45.0, "naive fp32": 80.0}
    factors |= {
        "cut_cross_entropy": 4.0,
        "cut_cross_entropy filtered": 3.0,
        "flex_attention": 2.1,
        "liger_kernel": 300.0,
    }
    everything = [*PLAIN[LOSS], *LIBRARIES[LOSS], *COMPILED_FLAT]
    cases: list[Case] = []
    for rows in (256, 768, 1536, 3072):
        shape = LossShape(rows)
        floors = {"matrix products": shape.flops(LOSS) / 790e12, "exponentials": 0.0, "memory": 0.0}
        case: Case = {
            "rows": rows, "task": LOSS, "flops": shape.flops(LOSS), "results": [], "least_bytes": shape.least_bytes(),
            "floors_s": floors, "floor_s": max(floors.values()),
        }  # fmt: skip
        for variant in everything:
            row: Row = {
                "variant": variant.name, "group": variant.group, "rows": rows, "task": LOSS, "status": "ok",
                "reason": "", "note": variant.note, "repeat": False,
            }  # fmt: skip
            case["results"].append(row)
            if variant.name not in factors:
                row |= {"status": "absent", "reason": f"{variant.name} is not installed"}
                continue
            noise = 1 + 0.02 * torch.randn(50, generator=generator)
            row["samples_s"] = (case["floor_s"] * factors[variant.name] * noise).tolist()
            summary = median_interval(row["samples_s"])
            row |= {"median_s": summary["median"], "interval_s": summary["interval"], "n": 50, "method": "CUDA graph"}
            row |= {"flops_per_second": case["flops"] / row["median_s"], "host_s": [3e-5], "extra_bytes": 8_000_000}
            row |= {"over_floor": row["median_s"] / case["floor_s"], "error": {"loss": 1e-6, "dq": 9e-5}}
            row |= {"share_of_roof": row["flops_per_second"] / roof["matmul_flops"]}
            if "attention" in variant.name:
                row["option"] = "16"
        best = reference(case["results"])
        assert best is not None
        for row in case["results"]:
            if "samples_s" in row and row is not best:
                row["over_ours"] = {**ratio_interval(row["samples_s"], best["samples_s"]), "ours": best["variant"]}
        cases.append(case)
    return {
        "kind": "gpu",
        "device": {
            "type": "cuda", "name": "NOT MEASURED, A TEST'S NUMBERS", "l2_bytes": 50_000_000, "torch": "0",
            "triton": "0",
        },
        "shape": {"rows": [256], "queue": 65536, "dim": 128, "positives": 2, "temperature": 0.2, "dtype": "bfloat16"},
        "settings": {"rounds": 5, "samples": 5, "repeats": 20, "queues": 6, "seed": 0, "seconds_budget": 150.0,
                     "order": "ABBA"},
        "roof": roof,
        "cases": cases,
        "seconds": 1.0,
        "aims": kernel_tables.aims(LossShape(256), cases),
    }  # fmt: skip


def test_table_and_aims(capsys: pytest.CaptureFixture[str]) -> None:
    result = fake_gpu_result()
    print_table(result)
    text = capsys.readouterr().out
    assert "absent: quack is not installed" in text
    assert "R=768 time, µs: aim <= 42, measured" in text
    assert len(result["aims"]) == sum(len(aims) for aims in kernel_tables.AIMS.values())
    verdicts = {(aim["rows"], aim["what"]): aim["verdict"] for aim in result["aims"]}
    assert verdicts[768, "µs"] == "met"
    assert verdicts[3072, "µs"] == "missed"
    assert verdicts[256, "naive fp32"] == "met"
    assert kernel_tables.aims(LossShape(256, keys=4096), result["cases"]) == []


def test_the_stored_result_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    stored = json.loads((ROOT / "bench" / "results" / "kernels-cpu-epyc-2core.json").read_text())["kernels"]
    assert stored.keys() == CpuResult.__annotations__.keys()
    print_table(stored)
    assert "naive / chunked: median of pairs" in capsys.readouterr().out


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
