"""The chain of exponentials, whose speed is a roof, computes what it says."""

import pytest
import torch

from tests.support.naive import DEVICE


@pytest.mark.usefixtures("gpu")
def test_exponential_chain() -> None:
    from bingo.bench.kernels.roof import EXP_BLOCK, run_exp

    x = torch.rand(EXP_BLOCK, device=DEVICE)
    chain = x.clone()
    run_exp(chain, 3)
    for _ in range(3):
        x = torch.exp2(-x)
    torch.testing.assert_close(chain, x)
