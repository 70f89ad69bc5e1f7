"""`queue_softmax` with values: the softmax over one queue averages the rows of another matrix."""

import pytest
import torch
from torch import Tensor

from bingo.kernels import queue_softmax
from tests.support.naive import DEVICE, unit_rows
from tests.support.on_gpu import GENERATIONS, POLICIES, REAL, in_turn, on_gpu
from tests.support.softmax import check_accuracy, oracle, worst

T = 0.2


@pytest.mark.parametrize("impl", ["reference", "chunked"])
@pytest.mark.parametrize(("rows", "keys", "channels", "width"), [(0, 3, 5, 5), (1, 1, 1, 4), (1100, 4500, 7, 3)])
def test_fp64_is_exact_for_any_width(impl: str, rows: int, keys: int, channels: int, width: int) -> None:
    q, queue, values = unit_rows(rows, channels, 0), unit_rows(keys, channels, 1), 3 * unit_rows(keys, width, 2)
    ours = queue_softmax(q, queue, T, impl=impl, values=values)
    torch.testing.assert_close(ours, oracle(q, queue, T, values), rtol=1e-12, atol=1e-12)


CASES = [
    (torch.float32, 0, 5, 16),
    (torch.float16, 3, 130, 256),
    (torch.bfloat16, 130, 257, 64),
    (torch.float32, 35, 301, 48),
]


@pytest.mark.parametrize(
    ("gpu", "dtype", "rows", "keys", "channels"),
    [(in_turn(at), *case) for at, case in enumerate(CASES)],
    indirect=["gpu"],
)
def test_the_kernel_is_no_less_accurate_than_torch(dtype: torch.dtype, rows: int, keys: int, channels: int) -> None:
    check_accuracy("triton", dtype, rows, keys, channels, apart=True)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_whole_tiles_give_the_same_bits_in_every_order(generation: int | None) -> None:
    """More tiles than the ring has stages, and rows of a second block."""
    q, queue, values = (unit_rows(rows, 128, seed, torch.bfloat16) for seed, rows in enumerate((129, 640, 640)))
    exact, first = oracle(q, queue, T, values), None
    for policy in POLICIES:
        with on_gpu(generation, policy):
            found = queue_softmax(q, queue, T, impl="triton", unit_rows=True, values=values)
        first = first or found
        assert torch.equal(found[0], first[0])
        assert torch.equal(found[1], first[1])
        assert worst(found[0], exact[0]) < 2e-2
        assert worst(found[1], exact[1]) < 2e-3


def test_rows_that_leave_the_fast_range_are_repaired_with_their_values() -> None:
    q, queue, values = (unit_rows(rows, 32, seed, torch.float32) for seed, rows in enumerate((9, 300, 300)))
    q *= 300.0 ** torch.linspace(0, 1, 9, device=DEVICE)[:, None]
    found, exact = queue_softmax(q, queue, T, impl="triton", values=values), oracle(q, queue, T, values)
    torch.testing.assert_close(found[0].double(), exact[0], rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(found[1].double(), exact[1], rtol=0, atol=1e-3)


@pytest.mark.skipif(REAL, reason="asks for a pretended GPU of compute capability 9.0")
@pytest.mark.parametrize("gpu", [90], indirect=True)
def test_the_copy_engine_is_left_out_where_values_start_at_an_odd_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bingo.kernels.triton_queue_softmax.TensorDescriptor", None)
    q, queue = unit_rows(3, 16, 0, torch.float16), unit_rows(200, 16, 1, torch.float16)
    flat = torch.zeros(1 + 200 * 16, dtype=torch.float16, device=DEVICE)
    values = flat[1:].view(200, 16).copy_(unit_rows(200, 16, 2, torch.float16))
    found = queue_softmax(q, queue, T, impl="triton", unit_rows=True, values=values)
    assert worst(found[1], oracle(q, queue, T, values)[1]) < 1e-3


@pytest.mark.parametrize("impl", ["reference", "chunked", "triton"])
def test_excluded_keys_take_their_values_with_them(impl: str) -> None:
    q, queue, values = (unit_rows(rows, 32, seed, torch.float32) for seed, rows in enumerate((6, 300, 300)))
    ids = torch.arange(300, device=DEVICE) % 7
    exclude = torch.tensor([[0, 3, -1], [6, 6, 99], [-1, -5, -1]], device=DEVICE)
    options = {"impl": impl, "exclude": exclude, "queue_ids": ids}
    lse, mean = queue_softmax(q, queue, T, values=values, **options)
    torch.testing.assert_close(lse, queue_softmax(q, queue, T, **options)[0], rtol=1e-6, atol=1e-6)
    for row in range(6):
        kept = ~torch.isin(ids, exclude[row % 3])
        exact = oracle(q[row : row + 1], queue[kept], T, values[kept])
        assert worst(lse[row], exact[0][0]) < 2e-6
        assert worst(mean[row], exact[1][0]) < 2e-6
    _, nothing = queue_softmax(
        q, queue, T, values=values, impl=impl, exclude=torch.zeros_like(exclude), queue_ids=0 * ids
    )
    assert not nothing.any()


VALUES = unit_rows(4, 16, 1, torch.float32)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (VALUES[:3], r"values is \(3, 16\); it must be \(4, D\), one row per key of the queue"),
        (VALUES[:, 0], r"values is \(4,\); it must be \(4, D\)"),
        (VALUES[:, :0], r"values is \(4, 0\); it must be \(4, D\)"),
        (VALUES.half(), r"values is torch.float16 on .*; it must be contiguous torch.float32 on"),
        (VALUES.to("meta"), "values is torch.float32 on meta; it must be contiguous"),
        (unit_rows(16, 4, 0, torch.float32).T, "values is torch.float32 on .*; it must be contiguous"),
        (VALUES.clone().requires_grad_(), r"values requires a gradient.*pass values.detach\(\)$"),
    ],
)
@pytest.mark.parametrize("impl", ["reference", "chunked", "triton", "auto"])
def test_values_that_do_not_fit_are_refused(values: Tensor, message: str, impl: str) -> None:
    with pytest.raises(ValueError, match=message):
        queue_softmax(VALUES, VALUES, T, impl=impl, values=values)


@pytest.mark.parametrize(
    ("impl", "message"),
    [
        ("triton", "values are 8 channels wide and the queue 16; impl 'triton' needs one width; pass impl='chunked'$"),
        ("hopper", "values are given; impl 'hopper' averages the queue's own keys; pass impl='triton'$"),
    ],
)
def test_fused_kernels_say_what_they_do_not_take(impl: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bingo.kernels.hopper_queue_softmax.require_hopper", lambda *_: None)
    q, queue = unit_rows(3, 16, 0, torch.float16), unit_rows(128, 16, 1, torch.float16)
    with pytest.raises(ValueError, match=message):
        queue_softmax(q, queue, T, impl=impl, values=queue if impl == "hopper" else queue[:, :8].contiguous())


def test_there_is_no_gradient() -> None:
    q = VALUES.clone().requires_grad_()
    with pytest.raises(
        ValueError, match=r"q requires a gradient, which queue_softmax with values has not; pass q.detach"
    ):
        queue_softmax(q, VALUES, T, values=VALUES)
    with torch.no_grad():
        lse, mean = queue_softmax(q, VALUES, T, values=VALUES)
    torch.testing.assert_close((lse, mean), queue_softmax(q.detach(), VALUES, T))
    registered = torch.ops.bingo.queue_softmax(q, VALUES, T, "chunked", None, None, True, VALUES)
    assert not any(output.requires_grad for output in registered)


def test_compiles_into_one_graph() -> None:
    queue, values = unit_rows(37, 16, 1, torch.float32), unit_rows(37, 8, 2, torch.float32)

    def target(q: Tensor) -> Tensor:
        lse, mean = queue_softmax(2 * q, queue, T, impl="chunked", values=values)
        return lse[:, None] * mean

    compiled = torch.compile(target, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (3, 5):
        q = unit_rows(rows, 16, rows, torch.float32)
        torch.testing.assert_close(compiled(q), target(q))
