"""The rate of matrix products is that of real products, counted right."""

import statistics

import pytest
import torch

from bingo.roof import matmul_roof

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rate_belongs_to_its_samples(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    products = []

    def mm(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        products.append((a.shape, b.shape, a.dtype, bool((a != 0).all())))
        return out

    monkeypatch.setattr(torch, "mm", mm)
    roof = matmul_roof(CPU, dtype, seconds=0.001, side=64)
    assert set(products) == {((64, 64), (64, 64), dtype, True)}, "random data, no zeros, in the format asked for"
    assert roof.flops == 2 * 64**3 / statistics.median(roof.seconds)
    assert (roof.side, roof.dtype, roof.tf32) == (64, dtype, False)


def test_a_product_that_takes_long_is_not_repeated_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(torch, "mm", lambda *_, **__: calls.append(1))
    matmul_roof(CPU, torch.float32, seconds=0.0, side=8)
    assert len(calls) == 5, "two to warm up and three samples"
