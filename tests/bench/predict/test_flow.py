"""Kernels of recorded operations: what is split, what a compiler would join, what nothing joins."""

import torch
import torch.nn.functional as F
from torch import nn

from bingo.bench.predict.flow import fused, kernels_of
from bingo.models.costs import ops_of

SIZE = 4 * 8 * 6 * 6 * 4  # bytes of (4, 8, 6, 6) in fp32


def images() -> torch.Tensor:
    return torch.zeros(4, 8, 6, 6, device="meta")


def convolution(*, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(8, 8, 3, padding=1, bias=bias, device="meta")


def test_a_chain_reads_and_writes_once() -> None:
    x = images()
    kernels = kernels_of(ops_of(lambda: (x * 2).relu_().add_(1)))
    assert [kernel.bytes for kernel in kernels] == [2 * SIZE] * 3
    (joined,) = fused(kernels)
    assert joined.bytes == 2 * SIZE


def test_a_value_that_something_else_reads_is_written() -> None:
    x, weight = images(), convolution()

    def run() -> torch.Tensor:
        inner = x * 2
        return inner.relu() + weight(inner)

    kinds = [(kernel.kind, len(kernel.writes)) for kernel in fused(kernels_of(ops_of(run)))]
    assert kinds == [("elementwise", 2), ("other", 1), ("elementwise", 1)], "the sum cannot wait in the first kernel"


def test_batch_norm_of_a_batch_reads_its_images_twice() -> None:
    x, norm = images(), nn.BatchNorm2d(8, device="meta")
    norm.num_batches_tracked = None
    kernels = kernels_of(ops_of(lambda: F.relu(norm(x))))
    assert [kernel.kind for kernel in kernels] == ["reduction", "elementwise", "elementwise"]
    assert [kernel.bytes // SIZE for kernel in kernels] == [1, 2, 2]
    assert [kernel.bytes // SIZE for kernel in fused(kernels)] == [1, 2], "ReLU joins, the sums cannot"


def test_a_bias_is_a_pass_of_its_own_and_folding_saves_none() -> None:
    x, norm = images(), nn.BatchNorm2d(8, device="meta").eval()
    bare, biased = convolution(), convolution(bias=True)
    with torch.no_grad():
        plain = kernels_of(ops_of(lambda: norm(bare(x)).relu_()), training=False)
        folded = kernels_of(ops_of(lambda: biased(x).relu_()), training=False)
    assert len(plain) == len(folded) == 3
    assert [k.bytes // SIZE for k in plain] == [k.bytes // SIZE for k in folded]
    for kernels in (plain, folded):
        assert [kernel.bytes // SIZE for kernel in fused(kernels)] == [2, 2]
        assert [kernel.bytes // SIZE for kernel in fused(kernels, epilogues=True)] == [2]


def test_a_convolution_backwards_is_two_products_or_one() -> None:
    for gradient, count in ((True, 2), (False, 1)):
        x = images().requires_grad_(gradient)
        weight = convolution()
        ops = ops_of(lambda x=x, weight=weight: weight(x).sum().backward())
        products = [kernel for kernel in kernels_of(ops) if kernel.name == "convolution_backward"]
        forward = next(op.flops for op in ops if op.name == "convolution")
        assert [kernel.flops for kernel in products] == [forward] * count


def test_compiled_pooling_remembers_places_in_a_byte() -> None:
    x = images()
    with torch.no_grad():
        kernels = kernels_of(ops_of(lambda: F.max_pool2d(x, 2)))
    values = SIZE // 4
    assert [kernel.bytes for kernel in kernels] == [SIZE + values + 2 * values]
    assert [kernel.bytes for kernel in fused(kernels)] == [SIZE + values + values // 4]
