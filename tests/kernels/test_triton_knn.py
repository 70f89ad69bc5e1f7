"""The kernel for nearest rows against the reference, where scores are real numbers."""

import torch
from torch import Tensor

from bingo.kernels.knn import nearest
from tests.support.naive import DEVICE
from tests.support.on_gpu import every_generation


def gaussian(count: int, channels: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, channels, generator=generator)).to(DEVICE, torch.bfloat16)


@every_generation
def test_kernel_agrees_with_the_reference_on_real_numbers():
    """Scores to a rounding of the sum; indices wherever neighbouring scores are further apart than that."""
    queries, database = gaussian(50, 80, 4), gaussian(400, 80, 5)
    theirs, there = nearest(queries, database, 17, impl="reference")
    ours, here = nearest(queries, database, 16, impl="triton")
    assert (ours - theirs[:, :16]).abs().max() < 1e-6
    clear = (theirs[:, :-1] - theirs[:, 1:]) > 1e-5
    settled = clear & torch.nn.functional.pad(clear, (1, 0), value=True)[:, :-1]
    assert settled.float().mean() > 0.9
    assert torch.equal(here[settled], there[:, :16][settled])
