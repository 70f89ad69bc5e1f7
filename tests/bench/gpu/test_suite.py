"""The suite of checks: it passes on a pretended GPU, and is listed without a GPU."""

import pytest
import torch

from bingo.bench.gpu import suite as gpu_suite
from bingo.bench.gpu.checks import Setting, perform
from tests.support.on_gpu import REAL

CPU = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.skipif(REAL, reason="CPU tensors, for which a GPU is pretended")
@pytest.mark.usefixtures("gpu")
def test_the_triton_kernels_pass() -> None:
    s = Setting(CPU, "triton", torch.bfloat16, True)
    tasks = gpu_suite._shapes(s)["shapes"] | gpu_suite._loss(s) | gpu_suite._edges(s)
    wanted = (
        "R=0",
        "R=65",
        "bag_loss, normalize",
        "ring, with ids",
        "nothing else counts, K=140",
        "NaN",
        "rows of",
        "a row",
        "ranks",
    )
    found = [perform("triton", name, task) for name, task in tasks.items() if name.startswith(wanted)]
    assert [record for record in found if not record["ok"]] == []
    assert len(found) == 12


def test_the_suite_for_a_gpu_is_listed_without_one() -> None:
    groups = gpu_suite.suite(torch.device("cuda", 0), quick=False)
    assert sum(map(len, groups.values())) > 250
    for group in (
        "triton bf16 loss",
        "hopper bf16 shapes, C=128",
        "triton fp32 edges",
        "hopper runtime",
        "triton step",
    ):
        assert group in groups
    assert "gates, R=3072 K=65536 C=128" in groups["hopper bf16 loss"]
    assert "K * C beyond 2^31" in groups["triton runtime"]
