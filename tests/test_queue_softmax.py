"""`queue_softmax`: every implementation against fp64, the op's registration, its properties and its refusals."""

import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bingo.kernels import queue_softmax, resolve_impl
from bingo.kernels.queue_softmax import _log_choice
from bingo.kernels.triton_queue_softmax import is_interpreted, queue_softmax_triton
from tests.naive import DEVICE, unit_rows

T = 0.2
SHAPES = [(0, 5, 16), (1, 1, 16), (3, 7, 32), (65, 257, 64), (64, 256, 128), (130, 301, 48), (2, 130, 256)]


def oracle(q: Tensor, queue: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Both outputs in fp64, materialised."""
    logits = torch.einsum("rc,kc->rk", q.double(), queue.double()) / temperature
    return torch.logsumexp(logits, 1), torch.einsum("rk,kc->rc", torch.softmax(logits, 1), queue.double())


def same_dtype_torch(q: Tensor, queue: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """What plain PyTorch gives when everything stays in the input's dtype: the error that a kernel may not exceed."""
    logits = (q @ queue.T) / temperature
    return torch.logsumexp(logits, 1), torch.softmax(logits, 1) @ queue


def worst(ours: Tensor, truth: Tensor) -> float:
    return (ours.double() - truth).abs().max().item() if truth.numel() else 0.0


@pytest.mark.parametrize("impl", ["reference", "chunked", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("rows", "keys", "channels"), SHAPES)
def test_no_less_accurate_than_torch(impl: str, dtype: torch.dtype, rows: int, keys: int, channels: int) -> None:
    q, queue = unit_rows(rows, channels, 0, dtype), unit_rows(keys, channels, 1, dtype)
    ours, truth = queue_softmax(q, queue, T, impl=impl), oracle(q, queue, T)
    peer = same_dtype_torch(q, queue, T)
    for mine, theirs, exact in zip(ours, peer, truth, strict=True):
        assert mine.dtype == torch.float32
        assert mine.shape == exact.shape
        assert worst(mine, exact) <= worst(theirs, exact) + 2e-6


@pytest.mark.parametrize("impl", ["reference", "chunked"])
@pytest.mark.parametrize(("rows", "keys", "channels"), [(0, 3, 5), (1, 1, 1), (1100, 4500, 7)])
def test_fp64_is_exact(impl: str, rows: int, keys: int, channels: int) -> None:
    q, queue = unit_rows(rows, channels, 0), unit_rows(keys, channels, 1)
    torch.testing.assert_close(queue_softmax(q, queue, T, impl=impl), oracle(q, queue, T), rtol=1e-12, atol=1e-12)


def test_chunked_takes_bfloat16() -> None:
    q, queue = unit_rows(5, 16, 0, torch.bfloat16), unit_rows(99, 16, 1, torch.bfloat16)
    for mine, exact in zip(queue_softmax(q, queue, T), oracle(q, queue, T), strict=True):
        assert mine.dtype == torch.float32
        assert worst(mine, exact) < 2e-6


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type == "cpu", reason="the interpreter computes bfloat16 products wrongly")
@pytest.mark.parametrize(("rows", "keys", "channels"), SHAPES)
def test_bfloat16_is_no_less_accurate_than_torch(rows: int, keys: int, channels: int) -> None:
    test_no_less_accurate_than_torch("triton", torch.bfloat16, rows, keys, channels)


@pytest.mark.parametrize("impl", ["reference", "chunked", "triton"])
@pytest.mark.parametrize("length", [1.0, 300.0])
def test_long_rows_and_low_temperatures_stay_finite(impl: str, length: float) -> None:
    """Logits of up to 6e4: exp overflows without a running maximum. The largest logit also comes in the last tile."""
    q, queue = length * unit_rows(5, 32, 0, torch.float32), unit_rows(300, 32, 1, torch.float32)
    queue[-1] = q[0] / length
    ours, truth = queue_softmax(q, queue, 0.005, impl=impl), oracle(q, queue, 0.005)
    torch.testing.assert_close(ours[0].double(), truth[0], rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(ours[1].double(), truth[1], rtol=0, atol=1e-6 + 1e-4 * length)
    assert torch.isfinite(ours[1]).all()


@pytest.mark.parametrize("impl", ["chunked", "triton"])
def test_nothing_around_the_inputs_is_read_and_every_output_is_written(
    impl: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs sit inside larger buffers full of NaN, and fresh memory is full of NaN too."""
    poisoned_q, poisoned_n = (torch.full((size, 48), math.nan, device=DEVICE) for size in (40, 90))
    q, queue = poisoned_q[3:20], poisoned_n[5:72]
    q.copy_(unit_rows(17, 48, 0, torch.float32))
    queue.copy_(unit_rows(67, 48, 1, torch.float32))
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills new_empty with NaN
    try:
        assert q.new_empty(3).isnan().all()
        ours = queue_softmax(q, queue, T, impl=impl)
    finally:
        torch.use_deterministic_algorithms(False)
    for mine, exact in zip(ours, oracle(q, queue, T), strict=True):
        assert worst(mine, exact) < 2e-6


@pytest.mark.parametrize("splits", [1, 2, 3, 5, 1000])
def test_any_split_of_the_queue_gives_the_same(splits: int) -> None:
    q, queue = unit_rows(5, 16, 0, torch.float32), unit_rows(333, 16, 1, torch.float32)
    for mine, exact in zip(queue_softmax_triton(q, queue, T, splits=splits), oracle(q, queue, T), strict=True):
        assert worst(mine, exact) < 2e-6


@pytest.mark.parametrize("impl", ["reference", "chunked", "triton"])
def test_repeats_are_bitwise_equal(impl: str) -> None:
    q, queue = unit_rows(67, 32, 0, torch.float32), unit_rows(500, 32, 1, torch.float32)
    first, second = (queue_softmax(q, queue, T, impl=impl) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_strided_queries_are_read_by_their_strides() -> None:
    q, queue = unit_rows(32, 9, 0, torch.float32).T, unit_rows(50, 32, 1, torch.float32)
    for impl in ("reference", "chunked", "triton"):
        assert worst(queue_softmax(q, queue, T, impl=impl)[0], oracle(q, queue, T)[0]) < 2e-6


@pytest.mark.parametrize("impl", ["reference", "chunked"])
def test_gradcheck(impl: str) -> None:
    q, queue = unit_rows(4, 6, 0).requires_grad_(), unit_rows(11, 6, 1)
    assert torch.autograd.gradcheck(lambda q: queue_softmax(q, queue, T, impl=impl)[0], (q,))


@pytest.mark.parametrize(
    ("impl", "dtype"), [("triton", torch.float32), ("triton", torch.float16), ("chunked", torch.float16)]
)
def test_gradient_equals_autograd_through_the_definition(impl: str, dtype: torch.dtype) -> None:
    q, queue = unit_rows(7, 16, 0, dtype).requires_grad_(), unit_rows(45, 16, 1, dtype)
    truth = q.detach().double().requires_grad_()
    upstream = torch.linspace(-1, 2, 7, device=DEVICE)
    (ours,) = torch.autograd.grad(queue_softmax(q, queue, T, impl=impl)[0], q, upstream)
    (exact,) = torch.autograd.grad(oracle(truth, queue, T)[0], truth, upstream.double())
    assert ours.dtype == dtype
    assert worst(ours, exact) < (1e-5 if dtype == torch.float32 else 5e-3)


def test_mean_key_is_a_constant_and_second_derivatives_are_refused() -> None:
    q, queue = unit_rows(4, 8, 0).requires_grad_(), unit_rows(11, 8, 1)
    lse, mean_key = queue_softmax(q, queue, T)
    assert lse.requires_grad
    assert not mean_key.requires_grad
    (grad,) = torch.autograd.grad(lse.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("impl", ["reference", "chunked", "triton", "auto"])
@pytest.mark.parametrize("rows", [0, 3])
def test_opcheck(impl: str, rows: int) -> None:
    q, queue = unit_rows(rows, 16, 0, torch.float32).requires_grad_(), unit_rows(9, 16, 1, torch.float32)
    outcome = torch.library.opcheck(torch.ops.bingo.queue_softmax.default, (q, queue, T, impl))
    assert set(outcome.values()) == {"SUCCESS"}


@pytest.mark.parametrize("impl", ["chunked", "triton"])
def test_compiles_into_one_graph_for_any_number_of_rows(impl: str) -> None:
    queue = unit_rows(37, 16, 1, torch.float32)

    def step(q: Tensor) -> Tensor:
        lse, mean_key = queue_softmax(2 * q, queue, T, impl=impl)
        return (lse * mean_key.sum(1)).sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (3, 5):
        q = unit_rows(rows, 16, rows, torch.float32).requires_grad_()
        torch.testing.assert_close(compiled(q), step(q))
        torch.testing.assert_close(torch.autograd.grad(compiled(q), q), torch.autograd.grad(step(q), q))


shapes = st.tuples(st.integers(1, 6), st.integers(2, 40), st.sampled_from([16, 32]), st.integers(0, 1000))


@settings(max_examples=15, deadline=None)
@given(shape=shapes, impl=st.sampled_from(["reference", "chunked", "triton"]))
def test_queue_order_does_not_matter(shape: tuple[int, int, int, int], impl: str) -> None:
    rows, keys, channels, seed = shape
    q, queue = unit_rows(rows, channels, seed, torch.float32), unit_rows(keys, channels, seed + 1, torch.float32)
    order = torch.randperm(keys, generator=torch.Generator().manual_seed(seed)).to(DEVICE)
    whole, permuted = (queue_softmax(q, n, T, impl=impl) for n in (queue, queue[order]))
    torch.testing.assert_close(whole, permuted, rtol=1e-5, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(shape=shapes, impl=st.sampled_from(["reference", "chunked", "triton"]), data=st.data())
def test_two_parts_combine_to_the_whole(shape: tuple[int, int, int, int], impl: str, data: st.DataObject) -> None:
    rows, keys, channels, seed = shape
    q, queue = unit_rows(rows, channels, seed, torch.float32), unit_rows(keys, channels, seed + 1, torch.float32)
    cut = data.draw(st.integers(1, keys - 1))
    (lse, mean), (l1, m1), (l2, m2) = (queue_softmax(q, n, T, impl=impl) for n in (queue, queue[:cut], queue[cut:]))
    total = torch.logaddexp(l1, l2)
    combined = torch.exp(l1 - total)[:, None] * m1 + torch.exp(l2 - total)[:, None] * m2
    torch.testing.assert_close((lse, mean), (total, combined), rtol=1e-5, atol=1e-5)


def test_auto_says_once_what_it_chose(caplog: pytest.LogCaptureFixture) -> None:
    q, queue = unit_rows(2, 16, 0).cpu(), unit_rows(3, 16, 1).cpu()
    _log_choice.cache_clear()
    with caplog.at_level(logging.INFO, logger="bingo.kernels.queue_softmax"):
        queue_softmax(q, queue, T)
        queue_softmax(q, queue, T)
        queue_softmax(q, queue, T, impl="reference")
    assert [record.getMessage() for record in caplog.records] == ["queue_softmax: impl='auto' runs 'chunked' on cpu"]


def test_resolve_impl() -> None:
    assert resolve_impl("auto", "cpu") == "chunked"
    assert resolve_impl("auto", torch.device("cuda", 0)) == "triton"
    assert resolve_impl("reference", "cuda") == "reference"
    assert resolve_impl("triton", DEVICE) == "triton"  # in the interpreter where there is no GPU
    with pytest.raises(ValueError, match="unknown impl 'fast'; the implementations are auto, reference, chunked"):
        resolve_impl("fast", "cpu")


def test_triton_on_the_cpu_without_the_interpreter_says_what_it_needs() -> None:
    code = "import torch, bingo.kernels as k; x = torch.ones(2, 16); k.queue_softmax(x, x, 0.2, impl='triton')"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "ValueError: impl 'triton' needs CUDA tensors, these are on 'cpu'" in done.stderr
    assert "TRITON_INTERPRET=1" in done.stderr


good = unit_rows(4, 16, 0, torch.float32)


@pytest.mark.parametrize(
    ("q", "queue", "message"),
    [
        (good[0], good, r"q must be \(R, C\) and queue \(K, C\), not \(16,\) and \(4, 16\)"),
        (good, good[:, :8].contiguous(), r"not \(4, 16\) and \(4, 8\)"),
        (good, good[:0], "at least one key and one channel"),
        (good[:, :0], good[:, :0], "at least one key and one channel"),
        (good.int(), good.int(), "q is torch.int32; supported are float16"),
        (good, good.double(), "q is torch.float32 but queue is torch.float64"),
        (good, good.to("meta"), "q is on .* but queue is on meta"),
        (good, unit_rows(16, 16, 0, torch.float32).T, "queue must be contiguous with keys in rows"),
        (good, good.clone().requires_grad_(), "queue requires a gradient"),
    ],
)
@pytest.mark.parametrize("impl", ["reference", "chunked", "triton", "auto"])
def test_bad_tensors(q: Tensor, queue: Tensor, message: str, impl: str) -> None:
    with pytest.raises(ValueError, match=message):
        queue_softmax(q, queue, T, impl=impl)


@pytest.mark.parametrize("temperature", [0.0, -0.1, math.inf, math.nan])
def test_bad_temperature(temperature: float) -> None:
    with pytest.raises(ValueError, match="must be a finite number above 0"):
        queue_softmax(good, good, temperature)


def test_temperature_as_a_tensor() -> None:
    with pytest.raises(ValueError, match="no gradient for it"):
        queue_softmax(good, good, torch.tensor(0.2))  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [8, 24, 272])
def test_channels_that_triton_cannot_take(channels: int) -> None:
    x = unit_rows(2, channels, 0, torch.float32)
    with pytest.raises(ValueError, match=f"multiple of 16 up to 256, not {channels}; pass impl='chunked'"):
        queue_softmax(x, x, T, impl="triton")
    assert torch.isfinite(queue_softmax(x, x, T, impl="chunked")[0]).all()


def test_dtypes_that_triton_cannot_take() -> None:
    with pytest.raises(ValueError, match=r"not torch\.float64; pass impl='chunked'"):
        queue_softmax(good.double(), good.double(), T, impl="triton")
    if is_interpreted():
        with pytest.raises(ValueError, match="interpreter computes bfloat16 products wrongly"):
            queue_softmax(good.bfloat16(), good.bfloat16(), T, impl="triton")
