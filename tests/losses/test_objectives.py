"""Every objective against whole softmaxes in fp64: value and gradient; and how the objectives are related."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bingo.errors import UserError
from bingo.losses import loss_of
from bingo.losses.bag import contrastive_loss
from bingo.losses.compress import compress_loss
from bingo.losses.compress_2q import compress_2q_loss
from bingo.losses.coss import coss_loss
from bingo.losses.disco import disco_loss
from bingo.losses.pseudo_labels import pseudo_label_loss
from bingo.losses.seed import seed_loss
from bingo.losses.simreg import simreg_loss
from bingo.objectives import OBJECTIVES
from tests.support import naive_objectives as naive
from tests.support.naive import DEVICE, unit_rows

pytestmark = pytest.mark.usefixtures("gpu")
B, C, K = 13, 32, 301
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
IMPLS = [
    (torch.float64, "reference"),
    (torch.float64, "chunked"),
    (torch.float32, "chunked"),
    (torch.float32, "triton"),
]
Loss = Callable[..., Tensor]
OVER_A_QUEUE: dict[str, tuple[Loss, Loss]] = {
    "seed": (seed_loss, naive.seed),
    "compress": (compress_loss, naive.compress),
    "pseudo-labels": (pseudo_label_loss, naive.pseudo_labels),
}


def raw_rows(seed: int, dtype: torch.dtype, rows: int = B) -> Tensor:
    """Rows of lengths 0.1 to 10, as heads give them."""
    lengths = torch.logspace(-1, 1, rows, dtype=torch.float64, device=DEVICE)
    return (unit_rows(rows, C, seed) * lengths[:, None]).to(dtype)


def same(ours: Tensor, truth: Tensor, inputs: list[tuple[Tensor, Tensor]], tolerance: float) -> None:
    """Value, and gradient of each (input, the same in fp64)."""
    torch.testing.assert_close(ours.double(), truth, rtol=tolerance, atol=tolerance)
    found = torch.autograd.grad(ours, [mine for mine, _ in inputs])
    wanted = torch.autograd.grad(truth, [theirs for _, theirs in inputs])
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=tolerance, atol=tolerance)


def pair(value: Tensor) -> tuple[Tensor, Tensor]:
    """An input that wants a gradient, and the same numbers in fp64."""
    return value.requires_grad_(), value.detach().double().requires_grad_()


@pytest.mark.parametrize(("dtype", "impl"), IMPLS)
@pytest.mark.parametrize(("tau", "target"), [(0.2, 0.01), (0.2, 0.2), (0.04, 0.07)])
@pytest.mark.parametrize("name", OVER_A_QUEUE)
def test_over_a_queue(name: str, tau: float, target: float, dtype: torch.dtype, impl: str) -> None:
    ours, oracle = OVER_A_QUEUE[name]
    (q, truth), t, queue = pair(raw_rows(1, dtype)), unit_rows(B, C, 2, dtype), unit_rows(K, C, 3, dtype)
    found = ours(q, t, queue, tau, target, {"impl": impl, "unit_rows": True})
    same(found, oracle(truth, t.double(), queue.double(), tau, target), [(q, truth)], TOLERANCE[dtype])


@pytest.mark.parametrize("name", OVER_A_QUEUE)
def test_excluded_keys_take_no_part(name: str) -> None:
    """As if the queue did not hold them: in the teacher's softmax and in the student's."""
    ours, oracle = OVER_A_QUEUE[name]
    (q, truth), t, queue = pair(raw_rows(1, torch.float64)), unit_rows(B, C, 2), unit_rows(K, C, 3)
    ids = torch.arange(K, device=DEVICE)
    left_out = torch.tensor([[3, 7]], device=DEVICE).expand(B, 2).contiguous()
    found = ours(q, t, queue, 0.2, 0.07, {"impl": "chunked", "exclude": left_out, "queue_ids": ids})
    kept = queue[(ids != 3) & (ids != 7)]
    same(found, oracle(truth, t, kept, 0.2, 0.07), [(q, truth)], 1e-12)


@pytest.mark.parametrize(("dtype", "impl"), IMPLS)
def test_compress_with_two_queues(dtype: torch.dtype, impl: str) -> None:
    (q, truth), t = pair(raw_rows(1, dtype)), unit_rows(B, C, 2, dtype)
    teachers, students = unit_rows(K, C, 3, dtype), unit_rows(K, C, 4, dtype)
    found = compress_2q_loss(q, t, teachers, students, 0.1, 0.04, {"impl": impl, "unit_rows": True})
    oracle = naive.compress_2q(truth, t.double(), teachers.double(), students.double(), 0.1, 0.04)
    same(found, oracle, [(q, truth)], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_without_a_queue(dtype: torch.dtype) -> None:
    (q, truth), t = pair(raw_rows(1, dtype)), unit_rows(B, C, 2, dtype)
    same(simreg_loss(q, t), naive.simreg(truth, t.double()), [(q, truth)], TOLERANCE[dtype])
    raw = raw_rows(5, dtype)
    same(coss_loss(q, raw), naive.coss(truth, raw.double()), [(q, truth)], TOLERANCE[dtype])


@pytest.mark.parametrize(("dtype", "impl"), IMPLS)
def test_disco(dtype: torch.dtype, impl: str) -> None:
    first, second = pair(raw_rows(1, dtype)), pair(raw_rows(2, dtype))
    k2, t1, t2 = (unit_rows(B, C, seed, dtype) for seed in (3, 4, 5))
    queue = unit_rows(K, C, 6, dtype)
    found = disco_loss(first[0], second[0], k2, t1, t2, queue, 0.2, {"impl": impl, "unit_rows": True})
    truths = [value.double() for value in (k2, t1, t2, queue)]
    same(found, naive.disco(first[1], second[1], *truths, 0.2), [first, second], 10 * TOLERANCE[dtype])


def test_seed_becomes_moco_as_the_teacher_hardens() -> None:
    """A temperature near 0 gives the teacher's own key all the weight."""
    (q, truth), t, queue = pair(raw_rows(1, torch.float64)), unit_rows(B, C, 2), unit_rows(K, C, 3)
    found = seed_loss(q, t, queue, 0.2, 1e-4, {"impl": "chunked"})
    same(found, contrastive_loss(truth, t, queue, 0.2, normalize=True), [(q, truth)], 1e-12)
    same(found_again(q, t, queue), naive.moco(truth, t, queue, 0.2, 0), [(q, truth)], 1e-12)


def found_again(q: Tensor, t: Tensor, queue: Tensor) -> Tensor:
    return seed_loss(q, t, queue, 0.2, 1e-4, {"impl": "reference"})


def test_compress_is_seed_without_its_own_key() -> None:
    """With the own key as a row of the queue CompRess-1q is SEED less the teacher's entropy, row by row."""
    (q, truth), t, queue = pair(raw_rows(1, torch.float64)), unit_rows(B, C, 2), unit_rows(K, C, 3)
    seeds, entropies = [], []
    for row in range(B):
        one, key = truth[row : row + 1], t[row : row + 1]
        whole = torch.cat([key, queue])
        seeds.append(compress_loss(one, key, whole, 0.2, 0.07, {"impl": "chunked"}))
        logits = key @ whole.T / 0.07
        entropies.append(naive.soft_cross_entropy(logits, logits))
    expected = torch.stack(seeds).mean() + torch.stack(entropies).mean()
    same(seed_loss(q, t, queue, 0.2, 0.07, {"impl": "chunked"}), expected, [(q, truth)], 1e-12)


def test_each_row_of_the_table_has_a_loss() -> None:
    assert all(callable(loss_of(name)) for name in OBJECTIVES)
    assert all(row.text and row.keys in (1, 2) and row.views in (1, 2) for row in OBJECTIVES.values())


@pytest.mark.parametrize("name", OVER_A_QUEUE)
def test_bad_shapes(name: str) -> None:
    ours: Any = OVER_A_QUEUE[name][0]
    queue = unit_rows(K, C, 3)
    with pytest.raises(UserError, match=r"must share one shape \(B, C\)"):
        ours(raw_rows(1, torch.float64), unit_rows(B + 1, C, 2), queue, 0.2, 0.07, {})
    with pytest.raises(UserError, match="the batch is empty"):
        ours(raw_rows(1, torch.float64)[:0], unit_rows(B, C, 2)[:0], queue, 0.2, 0.07, {})
