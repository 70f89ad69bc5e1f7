"""`queue_softmax`: every implementation against fp64, the op's registration and its properties."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bingo.kernels import queue_logsumexp, queue_ranks, queue_softmax
from tests.support.naive import DEVICE, unit_rows
from tests.support.on_gpu import GENERATIONS, REAL, in_turn
from tests.support.softmax import SHAPES, check_accuracy, oracle, worst

T = 0.2


@pytest.mark.parametrize("impl", ["reference", "chunked"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("rows", "keys", "channels"), SHAPES)
def test_no_less_accurate_than_torch(impl: str, dtype: torch.dtype, rows: int, keys: int, channels: int) -> None:
    check_accuracy(impl, dtype, rows, keys, channels)


def on_generations() -> Iterator[tuple[Any, ...]]:
    """Shapes of whole and ragged tiles in bf16 on each generation; otherwise the generations take turns."""
    for at, (rows, keys, channels) in enumerate(SHAPES):
        for place, dtype in enumerate((torch.float32, torch.float16, torch.bfloat16)):
            everywhere = dtype == torch.bfloat16 and channels in (64, 128)
            for generation in GENERATIONS if everywhere else [in_turn(at + place)]:
                yield generation, dtype, rows, keys, channels


@pytest.mark.slow  # with 256 channels the compiler alone takes five seconds
@pytest.mark.sampled(8)
@pytest.mark.parametrize(("gpu", "dtype", "rows", "keys", "channels"), list(on_generations()), indirect=["gpu"])
def test_kernels_are_no_less_accurate_than_torch(dtype: torch.dtype, rows: int, keys: int, channels: int) -> None:
    check_accuracy("triton", dtype, rows, keys, channels)


@pytest.mark.parametrize("impl", ["reference", "chunked", "triton"])
def test_fp32_queries_and_a_half_precision_queue_round_once(impl: str) -> None:
    q, queue = unit_rows(65, 64, 0, torch.float32), unit_rows(257, 64, 1, torch.float16)
    ours, truth = queue_softmax(q, queue, T, impl=impl), oracle(q, queue, T)
    rounded = oracle(q.half(), queue, T)
    for mine, exact, once in zip(ours, truth, rounded, strict=True):
        assert worst(mine, exact) <= 2 * worst(once, exact)


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


@pytest.mark.sampled(12)
@pytest.mark.parametrize("impl", ["reference", "chunked", "triton"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float16, 1e-2)])
@pytest.mark.parametrize(
    ("length", "temperature"), [(30.0, 0.2), (3e4, 0.2), (1.0, 0.012), (1.0, 0.05), (0.01, 0.2), (1e-30, 0.2)]
)
def test_rows_of_any_length_whose_logits_leave_the_fast_range(
    impl: str, dtype: torch.dtype, bound: float, length: float, temperature: float
) -> None:
    """Above, below and inside the range where no running maximum is kept, in the same call."""
    lengths = length ** torch.linspace(0, 1, 9, dtype=torch.float64, device=DEVICE)[:, None]
    q, queue = (lengths * unit_rows(9, 32, 0)).to(dtype), unit_rows(700, 32, 1, dtype)
    queue[::2] = -q[8] / q[8].norm().clamp(min=1e-4)  # for the longest row every second key is far below zero
    queue[1::2] = queue[0]
    queue[1] = q[7] / q[7].norm().clamp(min=1e-4)
    ours, truth = queue_softmax(q, queue, temperature, impl=impl), oracle(q, queue, temperature)
    assert torch.isfinite(ours[0]).all()
    torch.testing.assert_close(ours[0].double(), truth[0], rtol=bound, atol=bound)
    torch.testing.assert_close(ours[1].double(), truth[1], rtol=bound, atol=bound)


@pytest.mark.parametrize("impl", ["reference", "chunked", "triton"])
@pytest.mark.parametrize("unit_rows_promised", [False, True])
@pytest.mark.parametrize("temperature", [0.2, 0.005])
def test_excluded_keys_are_as_if_they_were_not_there(impl: str, unit_rows_promised: bool, temperature: float) -> None:
    q, queue = unit_rows(6, 32, 0, torch.float32).requires_grad_(), unit_rows(300, 32, 1, torch.float32)
    ids = torch.arange(300, device=DEVICE) % 7
    exclude = torch.tensor([[0, 3, -1], [6, 6, 99], [-1, -5, -1]], device=DEVICE)
    ids[5] = -1  # a key without an id is nobody's
    options = {"impl": impl, "exclude": exclude, "queue_ids": ids, "unit_rows": unit_rows_promised}
    lse, mean = queue_softmax(q, queue, temperature, **options)
    (grad,) = torch.autograd.grad(lse.sum(), q)
    for row in range(6):
        kept = [k for k, x in enumerate(ids.tolist()) if x < 0 or x not in exclude[row % 3].tolist()]
        exact = oracle(q[row : row + 1].detach(), queue[kept], temperature)
        torch.testing.assert_close(lse[row].double(), exact[0][0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mean[row].double(), exact[1][0], rtol=0, atol=1e-5)
        torch.testing.assert_close(grad[row].double(), exact[1][0] / temperature, rtol=0, atol=1e-5 / temperature)
    with torch.no_grad():
        torch.testing.assert_close(queue_logsumexp(q, queue, temperature, **options), lse.detach())


@pytest.mark.parametrize("impl", ["reference", "chunked", "triton"])
def test_a_row_with_every_key_excluded(impl: str) -> None:
    q, queue = unit_rows(2, 16, 0, torch.float32), unit_rows(200, 16, 1, torch.float32)
    ids = torch.full((200,), 4, device=DEVICE)
    exclude = torch.tensor([[4], [5]], device=DEVICE)
    lse, mean = queue_softmax(q, queue, T, impl=impl, exclude=exclude, queue_ids=ids)
    assert lse[0] == -math.inf
    assert torch.equal(mean[0], torch.zeros_like(mean[0]))
    torch.testing.assert_close(lse[1].double(), oracle(q, queue, T)[0][1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", ["reference", "chunked", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("rows", "keys", "channels"), [(1, 1, 16), (67, 257, 48), (0, 5, 16)])
def test_ranks_count_the_keys_above_each_score(
    impl: str, dtype: torch.dtype, rows: int, keys: int, channels: int
) -> None:
    q, queue = unit_rows(rows, channels, 0, dtype), unit_rows(keys, channels, 1, dtype)
    products = torch.einsum("rc,kc->rk", q.double(), queue.double())
    # Scores half-way between two products: rounding cannot decide.
    ordered = products.sort(dim=1).values
    scores = torch.stack([ordered[:, 0] - 0.1, ordered[:, -1] + 0.1, ordered.mean(1)], 1).float()
    counts = queue_ranks(q, queue, scores, impl=impl)
    assert counts.dtype == torch.int32
    assert torch.equal(counts[:, :2].cpu(), torch.tensor([[keys, 0]], dtype=torch.int32).expand(rows, 2))
    near = (products - scores[:, 2:].double()).abs().amin(1) < 1e-3 if rows else torch.zeros(0, dtype=torch.bool)
    exact = (products > scores[:, 2:].double()).sum(1).int()
    assert torch.equal(counts[~near, 2], exact[~near])


@pytest.mark.quick
@pytest.mark.parametrize("impl", ["reference", "chunked", "triton"])
def test_ranks_leave_excluded_keys_out(impl: str) -> None:
    q, queue = unit_rows(4, 16, 0, torch.float32), unit_rows(50, 16, 1, torch.float32)
    ids, exclude = torch.arange(50, device=DEVICE) % 5, torch.tensor([[1], [-1]], device=DEVICE)
    counts = queue_ranks(q, queue, torch.full((4, 1), -2.0), impl=impl, exclude=exclude, queue_ids=ids)
    assert counts.flatten().tolist() == [40, 50, 40, 50]


@pytest.mark.parametrize("impl", ["chunked", "triton"])
def test_nothing_around_the_inputs_is_read(impl: str) -> None:
    """Inputs sit inside larger buffers full of NaN."""
    poisoned_q, poisoned_n = (torch.full((size, 48), math.nan, device=DEVICE) for size in (40, 90))
    q, queue = poisoned_q[3:20], poisoned_n[5:72]
    q.copy_(unit_rows(17, 48, 0, torch.float32))
    queue.copy_(unit_rows(67, 48, 1, torch.float32))
    ours = queue_softmax(q, queue, T, impl=impl)
    for mine, exact in zip(ours, oracle(q, queue, T), strict=True):
        assert worst(mine, exact) < 2e-6


@pytest.mark.parametrize("impl", ["reference", "chunked", "triton"])
def test_repeats_are_bitwise_equal(impl: str) -> None:
    q, queue = unit_rows(67, 32, 0, torch.float32), unit_rows(500, 32, 1, torch.float32)
    first, second = (queue_softmax(q, queue, T, impl=impl) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


@pytest.mark.skipif(REAL, reason="only a pretended GPU says what was launched")
@pytest.mark.parametrize(("promised", "times"), [(True, 1), (False, 2)])
def test_only_rows_of_any_length_ask_for_repairs(gpu: Any, promised: bool, times: int) -> None:
    q, queue = unit_rows(4, 16, 0, torch.float32), unit_rows(50, 16, 1, torch.float32)
    queue_softmax(q, queue, T, impl="triton", unit_rows=promised)
    assert [launch["kernel"] for launch in gpu.log] == ["split_kernel"] * times + ["combine_kernel"]


@pytest.mark.quick
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


def test_the_registered_op_has_the_same_gradient_as_the_eager_path() -> None:
    q, queue = unit_rows(7, 16, 0, torch.float32).requires_grad_(), unit_rows(45, 16, 1, torch.float32)
    lse, _ = torch.ops.bingo.queue_softmax(q, queue, T, "chunked", None, None, True, None)
    (registered,) = torch.autograd.grad(lse.square().sum(), q)
    (eager,) = torch.autograd.grad(queue_softmax(q, queue, T)[0].square().sum(), q)
    assert torch.equal(registered, eager)


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
    ids, exclude = torch.arange(9, device=DEVICE), torch.zeros(1, 2, dtype=torch.int64, device=DEVICE)
    scores = torch.zeros(rows, 2, device=DEVICE)
    masked = q.detach(), queue, T, impl, exclude, ids, False
    for op, values in (
        (torch.ops.bingo.queue_softmax, (q, queue, T, impl, None, None, True, None)),
        (torch.ops.bingo.queue_softmax, (*masked, None)),
        (torch.ops.bingo.queue_softmax, (*masked, 2 * queue)),
        (torch.ops.bingo.queue_logsumexp, masked),
        (torch.ops.bingo.queue_ranks, (q.detach(), queue, scores, impl, exclude, ids)),
    ):
        assert set(torch.library.opcheck(op.default, values).values()) == {"SUCCESS"}


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


# One width, and no single row: Triton compiles for each anew.
shapes = st.tuples(st.integers(2, 6), st.integers(2, 40), st.just(16), st.integers(0, 1000))


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


@settings(max_examples=15, deadline=None)
@given(shape=shapes, factor=st.floats(0.1, 10), impl=st.sampled_from(["reference", "chunked", "triton"]))
def test_only_the_ratio_of_length_and_temperature_matters(
    shape: tuple[int, int, int, int], factor: float, impl: str
) -> None:
    rows, keys, channels, seed = shape
    q, queue = unit_rows(rows, channels, seed, torch.float32), unit_rows(keys, channels, seed + 1, torch.float32)
    scaled = queue_softmax(factor * q, queue, factor * T, impl=impl)
    torch.testing.assert_close(scaled, queue_softmax(q, queue, T, impl=impl), rtol=1e-5, atol=1e-5)
