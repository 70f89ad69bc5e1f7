"""The losses against a naive materialised implementation, in value and in gradient."""

import pytest
import torch
from torch import Tensor

from bingo.errors import UserError
from bingo.losses.bag import contrast_accuracy, contrastive_loss, paper_loss, release_loss
from tests.support.naive import DEVICE, ce, naive_paper_loss, naive_release_loss, unit_rows

pytestmark = pytest.mark.usefixtures("gpu")
B, C, K = 13, 32, 301
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
CPU_IMPLS = [(torch.float64, "reference"), (torch.float64, "chunked"), (torch.float32, "reference")]
CPU_IMPLS += [(torch.float32, "chunked"), (torch.float32, "triton")]


def make_inputs(count: int, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    """`count` tensors (B, C) that want gradients, and a queue."""
    return [unit_rows(B, C, seed, dtype).requires_grad_() for seed in range(count)], unit_rows(K, C, 99, dtype)


def assert_same(ours: Tensor, inputs: list[Tensor], naive: Tensor, truths: list[Tensor], tolerance: float) -> None:
    """Value and every gradient agree; `naive` was computed in fp64 from `truths`, the same numbers as `inputs`."""
    torch.testing.assert_close(ours.double(), naive, rtol=tolerance, atol=tolerance)
    for mine, theirs in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(naive, truths), strict=True):
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=tolerance, atol=tolerance)


def as_truths(inputs: list[Tensor]) -> list[Tensor]:
    return [x.detach().double().requires_grad_() for x in inputs]


@pytest.mark.parametrize(("dtype", "impl"), CPU_IMPLS)
@pytest.mark.parametrize("temperature", [0.2, 0.05])
def test_paper_loss_equals_naive(dtype: torch.dtype, impl: str, temperature: float) -> None:
    inputs, queue = make_inputs(3, dtype)
    truths = as_truths(inputs)
    ours = paper_loss(*inputs, queue, temperature, impl=impl)
    assert_same(ours, inputs, naive_paper_loss(*truths, queue.double(), temperature), truths, TOLERANCE[dtype])


@pytest.mark.parametrize(("dtype", "impl"), CPU_IMPLS)
@pytest.mark.parametrize(("lambdas", "mix"), [((1.0, 0.0), 0.7), ((0.5, 0.5), 0.25)])
def test_release_loss_equals_naive(dtype: torch.dtype, impl: str, lambdas: tuple[float, float], mix: float) -> None:
    inputs, queue = make_inputs(5, dtype)
    truths = as_truths(inputs)
    ours = release_loss(*inputs, queue, 0.2, lambdas=lambdas, mix=mix, impl=impl)
    naive = naive_release_loss(*truths, queue.double(), 0.2, lambdas, mix)
    assert_same(ours, inputs, naive, truths, TOLERANCE[dtype])


def test_release_loss_without_mixed_view_averages_two() -> None:
    (qa, qp, ka, kp), queue = make_inputs(4, torch.float64)
    truths = as_truths([qa, qp, ka, kp])
    ours = release_loss(qa, qp, None, ka, kp, queue, 0.2, lambdas=(0.8, 0.2))
    naive = naive_release_loss(truths[0], truths[1], None, truths[2], truths[3], queue, 0.2, (0.8, 0.2), 0.0)
    assert_same(ours, [qa, qp, ka, kp], naive, truths, 1e-10)


def test_release_weights_may_be_tensors() -> None:
    inputs, queue = make_inputs(5, torch.float64)
    numbers = release_loss(*inputs, queue, 0.2, lambdas=(0.6, 0.4), mix=0.3)
    half, rest, mix = (torch.tensor(x, dtype=torch.float64) for x in (0.6, 0.4, 0.3))
    torch.testing.assert_close(release_loss(*inputs, queue, 0.2, lambdas=(half, rest), mix=mix), numbers)


@pytest.mark.parametrize(("dtype", "impl"), CPU_IMPLS)
def test_release_loss_with_a_share_per_row(dtype: torch.dtype, impl: str) -> None:
    inputs, queue = make_inputs(5, dtype)
    mix = torch.linspace(0, 1, B, dtype=dtype)
    ours = release_loss(*inputs, queue, 0.2, lambdas=(0.6, 0.4), mix=mix, impl=impl)
    truths = as_truths(inputs)
    rows = [[x[row : row + 1] for x in truths] for row in range(B)]
    each = [
        naive_release_loss(*row, queue.double(), 0.2, (0.6, 0.4), float(share))
        for row, share in zip(rows, mix, strict=True)
    ]
    assert_same(ours, inputs, torch.stack(each).mean(), truths, TOLERANCE[dtype])


def test_contrastive_loss_equals_naive() -> None:
    (q, k), queue = make_inputs(2, torch.float64)
    truths = as_truths([q, k])
    assert_same(contrastive_loss(q, k, queue, 0.07), [q, k], ce(*truths, queue, 0.07).mean(), truths, 1e-10)


@pytest.mark.parametrize("impl", ["chunked", "triton"])
def test_contrast_accuracy_is_the_rank_among_key_and_queue(impl: str) -> None:
    q, queue = unit_rows(B, C, 0, torch.float32), unit_rows(K, C, 99, torch.float32)
    k = torch.nn.functional.normalize(0.3 * q + unit_rows(B, C, 5, torch.float32), dim=1)
    scores = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1)
    place = scores.argsort(dim=1, descending=True).eq(0).int().argmax(1)
    expected = torch.stack([(place < 1).float().mean(), (place < 5).float().mean()])
    torch.testing.assert_close(contrast_accuracy(3 * q, k, queue, impl=impl), expected)
    assert 0 < expected[0] < expected[1] <= 1


def test_autocast_does_not_round_the_loss() -> None:
    inputs, queue = make_inputs(3, torch.float32)
    plain = paper_loss(*inputs, queue, 0.05)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        assert torch.equal(paper_loss(*inputs, queue, 0.05), plain)
        torch.testing.assert_close(paper_loss(*inputs, queue, 0.05, impl="reference"), plain, rtol=1e-6, atol=0)


def test_compiled_step_is_one_graph() -> None:
    inputs, queue = make_inputs(5, torch.float32)
    step = torch.compile(release_loss, fullgraph=True, backend="aot_eager")
    compiled = step(*inputs, queue, 0.2, lambdas=(0.5, 0.5), mix=torch.tensor(0.3))
    eager = release_loss(*inputs, queue, 0.2, lambdas=(0.5, 0.5), mix=0.3)
    assert_same(compiled, inputs, eager.double(), inputs, 1e-6)


def test_shapes_that_disagree_are_named() -> None:
    q, queue = unit_rows(4, C, 0), unit_rows(K, C, 1)
    with pytest.raises(UserError, match=r"share one shape \(B, C\), not \(4, 32\), \(3, 32\)"):
        contrastive_loss(q, q[:3], queue, 0.2)
    with pytest.raises(UserError, match="batch is empty"):
        paper_loss(q[:0], q[:0], q[:0], queue, 0.2)
    with pytest.raises(UserError, match="without mix"):
        release_loss(q, q, q, q, q, queue, 0.2, lambdas=(1.0, 0.0))
    with pytest.raises(UserError, match=r"temperature is 0\.0"):
        paper_loss(q, q, q, queue, 0.0)
