"""The model against published measurements: ResNet-50 training on H100 and A100.

MLPerf Training v3.0, NVIDIA's H100 submissions: images per second by number of GPUs and batch per GPU, a tuned system
with fused kernels and CUDA graphs. NVIDIA/DeepLearningExamples, ResNet50 v1.5 for PyTorch, pytorch-21.03 on an A100 of
80 GB, batch 256: eager PyTorch in mixed precision (channels-last) and in TF32 (NCHW).
"""

from dataclasses import dataclass

import torch

from bingo.bench.predict import network, passes
from bingo.bench.predict.flow import fused
from bingo.bench.predict.gpus import machine
from bingo.bench.predict.step import BACKWARD, seconds

MLPERF = {8: (400, 56_072.0), 64: (50, 294_686.0), 512: (40, 2.256e6), 768: (42, 3.415e6)}
"""GPUs -> batch per GPU and images per second, all GPUs together."""
FITTED = (8, 64)
EAGER_BATCH = 256
EAGER = {"bf16": 2470.0, "tf32": 938.0}
"""Images per second of one A100."""
PER_NODE = 8


@dataclass(frozen=True)
class Check:
    """Images per second, predicted and measured. error: of the prediction, as a share; fitted: seen by the model."""

    name: str
    predicted: float
    measured: float
    fitted: bool = False

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def single_gpu() -> list[Check]:
    """One GPU's kernels alone: compiled on the H100, on whose row the constants were set, and eager on the A100."""
    batch, rate = MLPERF[8]
    checks = [
        Check(f"H100, fused kernels, batch {batch}: MLPerf on 8 GPUs, per GPU", batch / _fused_s(batch), rate / 8, True)
    ]
    for precision, measured in EAGER.items():
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        kernels = passes.student_pass("resnet50", EAGER_BATCH, 224, dtype, 128, 2048, 1)
        layout = precision == "tf32"
        found = EAGER_BATCH / seconds(kernels, machine("A100"), layout=layout)
        how = "TF32, NCHW with layout passes" if layout else "mixed precision, channels-last"
        checks.append(Check(f"A100, eager PyTorch, {how}, batch {EAGER_BATCH}", found, measured))
    return checks


def many_gpus() -> list[Check]:
    """MLPerf's rows of 512 and 768 GPUs from those of 8 and 64: a share of the roofline, a constant, the network."""
    (few, many) = (_row(gpus) for gpus in FITTED)
    share = (few[1] - many[1]) / (few[0] - many[0])
    constant = few[1] - share * few[0]
    checks = []
    for gpus, (batch, rate) in MLPERF.items():
        found = batch * gpus / (constant + share * _fused_s(batch) + _network_s(batch, gpus))
        checks.append(Check(f"{gpus} H100, batch {batch} each: MLPerf", found, rate, gpus in FITTED))
    return checks


def _row(gpus: int) -> tuple[float, float]:
    """Of a measured row: seconds by the roofline, and seconds of its step without the network."""
    batch, rate = MLPERF[gpus]
    return _fused_s(batch), batch * gpus / rate - _network_s(batch, gpus)


def _fused_s(batch: int) -> float:
    kernels = passes.student_pass("resnet50", batch, 224, torch.bfloat16, 128, 2048, 1)
    return seconds(fused(kernels), machine("H100"))


def _network_s(batch: int, gpus: int) -> float:
    weights = [4 * weight.numel() for weight in passes.network("resnet50", 128, 2048).parameters()]
    return network.exposed_s(
        weights, BACKWARD * _fused_s(batch), 1, machine("H100"), max(1, gpus // PER_NODE), min(gpus, PER_NODE)
    )


def lines() -> list[str]:
    """The checks as text."""
    checks = single_gpu() + many_gpus()
    width = max(len(check.name) for check in checks)
    head = f"{'published measurement':{width}}{'predicted':>12}{'measured':>12}{'error':>9}   images/s"
    return [head] + [
        f"{check.name:{width}}{check.predicted:>12,.0f}{check.measured:>12,.0f}{100 * check.error:>+8.1f}%"
        + ("   fitted to" if check.fitted else "")
        for check in checks
    ]
