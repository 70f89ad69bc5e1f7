"""`bag_loss`: every implementation against the materialised formula in fp64, and its refusals."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bingo.kernels import NewKeys, bag_loss
from tests.support.bag_inputs import draw
from tests.support.naive import DEVICE, ce, unit_rows
from tests.support.on_gpu import GENERATIONS, in_turn

T = 0.2
IMPLS = ["reference", "chunked", "triton"]
# views, images, positives, keys in the queue, channels
SHAPES = [(1, 1, 1, 1, 16), (3, 5, 2, 37, 16), (2, 3, 1, 300, 48), (3, 22, 2, 130, 128)]


def formula(q: Tensor, keys: Tensor, weights: Tensor, queue: Tensor) -> Tensor:
    """Loss per row in fp64, every softmax materialised."""
    q, keys, weights, queue = (x.double() for x in (q, keys, weights, queue))
    images, positives, _ = keys.shape
    per_view = len(q) // len(weights)
    losses = [
        torch.stack([ce(q, keys[:, m].repeat(len(q) // images, 1), queue, T) for m in range(positives)], 1),
        weights.repeat_interleave(per_view, 0),
    ]
    return (losses[0] * losses[1]).sum(1)


def check(impl: str, dtype: torch.dtype, inputs: dict[str, Tensor], normalize: bool, **options: Any) -> None:
    q = inputs["q"] if normalize else F.normalize(inputs["q"].float(), dim=1).to(inputs["q"].dtype)
    mine, exact = q.clone().requires_grad_(), q.double().requires_grad_()
    others = {name: value for name, value in inputs.items() if name != "q"}
    ours = bag_loss(mine, **others, temperature=T, normalize=normalize, impl=impl, **options)
    truth = formula(F.normalize(exact, dim=1) if normalize else exact, **others)
    upstream = torch.linspace(-1, 2, len(q), device=DEVICE)
    (gradient,) = torch.autograd.grad(ours, mine, upstream.to(ours.dtype))
    (slope,) = torch.autograd.grad(truth, exact, upstream.double())
    assert ours.dtype == torch.promote_types(dtype, torch.float32)
    assert gradient.dtype == q.dtype
    bound = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(ours.double(), truth, rtol=bound, atol=bound)
    torch.testing.assert_close(gradient.double(), slope, rtol=bound, atol=bound)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("impl", "dtype"), [*itertools.product(IMPLS[:2], [torch.float32, torch.float16]), ("chunked", torch.float64)]
)
def test_loss_and_gradient_equal_the_formula(
    impl: str, dtype: torch.dtype, shape: tuple[int, ...], normalize: bool
) -> None:
    check(impl, dtype, draw(*shape, dtype=dtype), normalize, unit_rows=True)


def on_generations() -> Iterator[tuple[Any, ...]]:
    """The largest shape in bf16 on each generation; otherwise the generations take turns, as normalize does."""
    for place, generation in enumerate(GENERATIONS):
        yield generation, torch.bfloat16, SHAPES[-1], place % 2 == 0
    for at, shape in enumerate(SHAPES):
        for place, dtype in enumerate((torch.float32, torch.float16, torch.bfloat16)[: 2 + (at < len(SHAPES) - 1)]):
            yield in_turn(at + place), dtype, shape, (at + place) % 2 == 1


@pytest.mark.sampled(5)
@pytest.mark.parametrize(("gpu", "dtype", "shape", "normalize"), list(on_generations()), indirect=["gpu"])
def test_loss_and_gradient_of_the_kernels_equal_the_formula(
    dtype: torch.dtype, shape: tuple[int, ...], normalize: bool
) -> None:
    check("triton", dtype, draw(*shape, dtype=dtype), normalize, unit_rows=True)


@pytest.mark.quick
@pytest.mark.parametrize("impl", IMPLS)
def test_fp32_queries_meet_a_half_precision_queue(impl: str) -> None:
    inputs = draw(3, 5, 2, 37, 16, torch.float32)
    inputs["queue"] = inputs["queue"].half()
    inputs["keys"] = inputs["keys"].half()
    q, exact = (inputs["q"].to(d).requires_grad_() for d in (torch.float32, torch.float64))
    others = {name: value for name, value in inputs.items() if name != "q"}
    ours = bag_loss(q, **others, temperature=T, normalize=True, impl=impl)
    truth = formula(F.normalize(exact, dim=1), **others)
    torch.testing.assert_close(ours.double(), truth, rtol=1e-3, atol=1e-3)
    (gradient,), (slope,) = torch.autograd.grad(ours.sum(), q), torch.autograd.grad(truth.sum(), exact)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient.double(), slope, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("impl", IMPLS)
def test_nothing_around_the_inputs_is_read(impl: str) -> None:
    """Inputs sit inside larger buffers full of NaN."""
    inputs = draw(2, 3, 2, 37, 48, torch.float32)
    truth = formula(F.normalize(inputs["q"].double(), dim=1), *(inputs[k] for k in ("keys", "weights", "queue")))
    poisoned = {}
    for name, value in inputs.items():
        around = torch.full((len(value) + 9, *value.shape[1:]), math.nan, device=DEVICE)
        poisoned[name] = around[4 : 4 + len(value)].copy_(value)
    q = poisoned["q"].requires_grad_()
    loss = bag_loss(**poisoned, temperature=T, normalize=True, impl=impl)
    (gradient,) = torch.autograd.grad(loss.sum(), q)
    torch.testing.assert_close(loss.double(), truth, rtol=1e-5, atol=1e-5)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("impl", IMPLS)
def test_a_row_of_zeros_has_a_finite_gradient(impl: str) -> None:
    inputs = draw(1, 3, 1, 20, 16, torch.float32)
    inputs["q"][1] = 0
    q = inputs.pop("q").requires_grad_()
    loss = bag_loss(q, **inputs, temperature=T, normalize=True, impl=impl)
    (gradient,) = torch.autograd.grad(loss.sum(), q)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("impl", IMPLS)
def test_without_a_gradient_only_the_loss_is_computed(impl: str) -> None:
    inputs = draw(3, 5, 2, 37, 16, torch.float32)
    with torch.no_grad():
        loss = bag_loss(**inputs, temperature=T, normalize=True, impl=impl)
    assert not loss.requires_grad
    truth = formula(F.normalize(inputs.pop("q").double(), dim=1), **inputs)
    torch.testing.assert_close(loss.double(), truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
def test_confident_rows_keep_their_tail(impl: str) -> None:
    """The loss is then exp(lse - s), tiny but not zero: 1 + exp(lse - s) would be 1 in fp32."""
    q = unit_rows(2, 16, 0, torch.float32)
    queue, weights = -q[:1].repeat(3, 1), torch.ones(1, 1, device=DEVICE)
    ours = bag_loss(q[:1], q[:1, None], weights, queue, 0.075, impl=impl)
    expected = torch.log1p(3 * torch.exp(torch.tensor(-2 / 0.075, dtype=torch.float64)))
    torch.testing.assert_close(ours[0].double().cpu(), expected, rtol=2e-4, atol=0)


@pytest.mark.parametrize("impl", IMPLS)
def test_keys_may_want_a_gradient(impl: str) -> None:
    inputs = draw(2, 3, 2, 20, 16, torch.float32)
    exact = {name: value.double() for name, value in inputs.items()}
    inputs["keys"].requires_grad_()
    exact["keys"].requires_grad_()
    (ours,) = torch.autograd.grad(bag_loss(**inputs, temperature=T, impl=impl).sum(), inputs["keys"])
    (truth,) = torch.autograd.grad(formula(**exact).sum(), exact["keys"])
    torch.testing.assert_close(ours.double(), truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
def test_excluded_keys_take_no_part(impl: str) -> None:
    """Each image's line serves all of its views; a key is left out of the sum and of the gradient."""
    inputs = draw(3, 4, 2, 30, 16, torch.float32)
    ids = torch.arange(30, device=DEVICE) % 12
    exclude = torch.tensor([[0, 3], [-1, -1], [5, -7], [99, 11]], device=DEVICE)
    q = inputs["q"].requires_grad_()
    loss = bag_loss(**inputs, temperature=T, normalize=True, impl=impl, exclude=exclude, queue_ids=ids)
    (gradient,) = torch.autograd.grad(loss.sum(), q)
    for image, line in enumerate(exclude.tolist()):
        kept = torch.tensor([i for i, x in enumerate(ids.tolist()) if x not in line], device=DEVICE)
        one = q.detach()[image::4].double().requires_grad_()
        weights = inputs["weights"].double()
        truth = formula(F.normalize(one, dim=1), inputs["keys"][image : image + 1], weights, inputs["queue"][kept])
        torch.testing.assert_close(loss[image::4].double(), truth, rtol=1e-5, atol=1e-5)
        (slope,) = torch.autograd.grad(truth.sum(), one)
        torch.testing.assert_close(gradient[image::4].double(), slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_row_with_every_key_excluded_has_no_loss(impl: str) -> None:
    inputs = draw(1, 2, 1, 5, 16, torch.float32)
    ids = torch.full((5,), 3, device=DEVICE)
    exclude = torch.tensor([[3], [4]], device=DEVICE)
    q = inputs["q"].requires_grad_()
    loss = bag_loss(**inputs, temperature=T, impl=impl, exclude=exclude, queue_ids=ids)
    (gradient,) = torch.autograd.grad(loss.sum(), q)
    assert loss[0] == 0
    assert loss[1] > 0
    assert torch.equal(gradient[0], torch.zeros_like(gradient[0]))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(a=st.floats(-2, 2), b=st.floats(-2, 2), impl=st.sampled_from(IMPLS), shape=st.sampled_from(SHAPES[:3]))
def test_loss_is_linear_in_the_weights(a: float, b: float, impl: str, shape: tuple[int, ...]) -> None:
    inputs = draw(*shape, dtype=torch.float32)
    u = inputs.pop("weights")
    v = u.flip(0).cos()
    whole, first, second = (
        bag_loss(weights=w, **inputs, temperature=T, normalize=True, impl=impl) for w in (a * u + b * v, u, v)
    )
    torch.testing.assert_close(whole, a * first + b * second, rtol=1e-5, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(factor=st.floats(0.01, 100), impl=st.sampled_from(IMPLS))
def test_with_normalize_the_length_of_the_queries_does_not_matter(factor: float, impl: str) -> None:
    inputs = draw(2, 3, 2, 20, 16, torch.float32)
    long, short = (factor * inputs["q"]).requires_grad_(), inputs.pop("q").requires_grad_()
    ours, same = (bag_loss(q, **inputs, temperature=T, normalize=True, impl=impl) for q in (long, short))
    torch.testing.assert_close(ours, same, rtol=1e-5, atol=1e-5)
    (steep,), (flat,) = torch.autograd.grad(ours.sum(), long), torch.autograd.grad(same.sum(), short)
    torch.testing.assert_close(factor * steep, flat, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("impl", IMPLS)
def test_repeats_are_bitwise_equal(impl: str) -> None:
    inputs = draw(3, 22, 2, 500, 32, torch.float32)
    q = inputs.pop("q").requires_grad_()
    first, second = (bag_loss(q, **inputs, temperature=T, normalize=True, impl=impl) for _ in range(2))
    assert torch.equal(first, second)
    (a,), (b,) = torch.autograd.grad(first.sum(), q), torch.autograd.grad(second.sum(), q)
    assert torch.equal(a, b)


@pytest.mark.parametrize("impl", ["chunked", "triton"])
@pytest.mark.parametrize("write", [False, True])
def test_compiles_into_one_graph(impl: str, write: bool) -> None:
    def step(q: Tensor, queue: Tensor, cursor: Tensor) -> Tensor:
        new = NewKeys(fresh, cursor) if write else None
        return bag_loss(2 * q, keys, weights, queue, T, normalize=True, impl=impl, new_keys=new).mean()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)
    fresh = unit_rows(4, 16, 9, torch.float32)
    for images in (3, 5):
        inputs = draw(2, images, 2, 20, 16, torch.float32)
        q, keys, weights = inputs["q"].requires_grad_(), inputs["keys"], inputs["weights"]
        outcomes = []
        for run in (compiled, step):
            queue, cursor = inputs["queue"].clone(), torch.tensor([18, 0], device=DEVICE)
            loss = run(q, queue, cursor)
            outcomes.append((loss, *torch.autograd.grad(loss, q), queue, cursor))
        torch.testing.assert_close(outcomes[0], outcomes[1])
        assert outcomes[0][3].tolist() == ([2, 0] if write else [18, 0])


def test_opcheck() -> None:
    inputs = draw(2, 3, 2, 20, 16, torch.float32)
    new, cursor = unit_rows(4, 16, 9, torch.float32), torch.tensor([18, 0], device=DEVICE)
    ids, fresh = torch.arange(20, device=DEVICE), torch.arange(4, device=DEVICE)
    exclude = torch.zeros(3, 1, dtype=torch.int64, device=DEVICE)
    for grad in (False, True):
        values = (*inputs.values(), T, exclude, ids, new, cursor, fresh, True, grad, False, "triton")
        outcome = torch.library.opcheck(torch.ops.bingo.bag_loss.default, values)
        assert set(outcome.values()) == {"SUCCESS"}


def new_keys(**changes: Any) -> NewKeys:
    values = {"keys": torch.ones(2, 16), "cursor": torch.zeros(2, dtype=torch.int64), "ids": None} | changes
    return NewKeys(**{name: None if x is None else x.to(DEVICE) for name, x in values.items()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": torch.ones(3, 16)}, r"keys \(B, M, C\) with R a multiple of B, not \(6, 16\) and \(3, 16\)"),
        ({"keys": torch.ones(4, 2, 16)}, r"with R a multiple of B, not \(6, 16\) and \(4, 2, 16\)"),
        ({"keys": torch.ones(3, 2, 8)}, r"not \(6, 16\) and \(3, 2, 8\)"),
        ({"keys": torch.ones(3, 2, 16).int()}, "keys are torch.int32 and weights"),
        ({"keys": torch.ones(3, 2, 16, device="meta")}, "keys on meta, weights on"),
        ({"weights": torch.ones(2, 1)}, r"weights must be \(V, 2\) with the 6 rows of q a multiple of V, not \(2, 1\)"),
        ({"weights": torch.ones(4, 2)}, r"a multiple of V, not \(4, 2\)"),
        ({"queue": torch.ones(9, 8)}, r"queue \(K, C\), not \(6, 16\) and \(9, 8\)"),
        ({"temperature": -1.0}, r"temperature is -1\.0; it must be a finite number above 0"),
        ({"exclude": torch.zeros(3, 1, dtype=torch.int64)}, "exclude is given without queue_ids"),
        ({"new_keys": new_keys(keys=torch.ones(2, 8))}, r"new_keys\.keys is \(2, 8\) on .*; it must be \(N, 16\)"),
        ({"new_keys": new_keys(cursor=torch.zeros(1).long())}, r"new_keys\.cursor is \(1,\) .*must be int64 \(2,\)"),
        ({"new_keys": new_keys(ids=torch.zeros(2).long())}, r"new_keys\.ids is given without queue_ids"),
        (
            {"new_keys": new_keys(), "queue_ids": torch.zeros(9, dtype=torch.int64)},
            r"queue_ids is given without new_keys\.ids",
        ),
        (
            {"new_keys": new_keys(ids=torch.zeros(3).long()), "queue_ids": torch.zeros(9, dtype=torch.int64)},
            r"new_keys\.ids is \(3,\); it must be \(2,\), one id per key",
        ),
    ],
)
@pytest.mark.parametrize("impl", IMPLS)
def test_bad_input(changes: dict[str, Any], message: str, impl: str) -> None:
    inputs: dict[str, Any] = {**draw(2, 3, 2, 9, 16, torch.float32), "temperature": T}
    moved = {k: v.to(DEVICE) if isinstance(v, Tensor) and v.device.type != "meta" else v for k, v in changes.items()}
    with pytest.raises(ValueError, match=message):
        bag_loss(**{**inputs, **moved}, impl=impl)
