"""The peers that need PyTorch alone agree with fp64; their settings and gates."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from bingo.bench.kernels import peers
from bingo.bench.kernels.libraries import liger_budgets
from bingo.bench.kernels.peers import LOOSE, PLAIN, attention, flash, flex, naive, splits
from bingo.bench.kernels.workload import LOSS, LSE, Inputs, LossShape
from tests.support.kernel_inputs import SHAPE, errors


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


def test_settings_to_try() -> None:
    assert splits(LossShape(8)) == (1, 2, 4, 8, 16, 32, 64)
    assert splits(LossShape(8, keys=96)) == (1, 2, 4)
    assert liger_budgets(LossShape(8)) == (512, 256, 64)


def test_gate_of_bf16_follows_the_number_of_keys() -> None:
    ours, peer = PLAIN[LOSS][0], PLAIN[LOSS][-1]
    assert ours.allowed(LossShape(8)) == peers.BF16
    assert ours.allowed(LossShape(8, keys=4096)) == pytest.approx((8e-5, 8e-4))
    assert ours.allowed(LossShape(8, keys=2 * 65536)) == peers.BF16
    assert peer.allowed(LossShape(8, keys=16)) == LOOSE
