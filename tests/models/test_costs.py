"""FLOPs and bytes without computing: against what is known of a layer and of ResNet-18."""

import pytest
import torch
import torch.nn.functional as F

from bingo.models import Encoder
from bingo.models.costs import forward_flops, ops_of


def test_a_product_and_a_view() -> None:
    a, b = torch.zeros(8, 4, device="meta"), torch.zeros(4, 2, device="meta")
    (op,) = ops_of(lambda: a @ b.view(4, 2))
    assert (op.name, op.flops, op.bytes, op.dtype) == ("mm", 2 * 8 * 4 * 2, 4 * (32 + 8 + 16), torch.float32)


def test_a_tensor_that_is_read_twice_counts_once() -> None:
    a = torch.zeros(10, device="meta", dtype=torch.bfloat16)
    (op,) = ops_of(lambda: a * a)
    assert (op.bytes, op.flops) == (2 * 20, 0)


def test_what_is_changed_in_place_is_read_and_written() -> None:
    a = torch.zeros(10, device="meta")
    relu, add = ops_of(lambda: a.relu_().add_(1))
    assert (relu.bytes, relu.pointwise) == (2 * 40, True)
    assert relu.writes == add.reads != add.writes
    assert {value.storage for value in (*relu.reads, *add.writes)} == {relu.reads[0].storage}


def test_views_are_the_value_that_they_show() -> None:
    a, b = torch.zeros(4, 4, device="meta"), torch.zeros(4, 4, device="meta")
    add, product = ops_of(lambda: (a + b).T @ b)
    assert (add.writes[0], add.reads[1]) == product.reads


def test_a_backward_pass_is_counted() -> None:
    x, w = torch.zeros(2, 3, 8, 8, device="meta"), torch.zeros(4, 3, 3, 3, device="meta", requires_grad=True)
    ops = ops_of(lambda: F.conv2d(x, w).sum().backward())
    assert [op.flops for op in ops if op.flops] == [2 * 2 * 4 * 36 * 27] * 2


def test_resnet18_at_224_pixels() -> None:
    """1.814 G multiply-adds, as published for it, and a head of 512 x 2048 and 2048 x 128 more."""
    flops = forward_flops(Encoder("resnet18", dim=128, hidden=2048), 224)
    head = 2 * (512 * 2048 + 2048 * 128)
    assert flops - head == pytest.approx(2 * (1.8141e9 - 512e3), rel=1e-3)
