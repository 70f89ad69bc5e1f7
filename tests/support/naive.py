"""Independent oracles for the losses: materialised logits, one softmax per positive, written from the formulas."""

import torch
from torch import Tensor

# Triton's kernels run on the GPU where there is one; otherwise `on_gpu` pretends one, which takes CPU tensors.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def unit_rows(rows: int, channels: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random rows of length one, drawn in fp64 and then rounded."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, channels, generator=generator, dtype=torch.float64)
    return (values / values.norm(dim=1, keepdim=True)).to(DEVICE, dtype)


def ce(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Cross-entropy (R) of the class "k" among [k, every queue key]."""
    logits = torch.cat([torch.linalg.vecdot(q, k)[:, None], torch.einsum("rc,kc->rk", q, queue)], dim=1) / temperature
    target = torch.zeros(len(q), dtype=torch.long, device=q.device)
    return torch.nn.functional.cross_entropy(logits, target, reduction="none")


def cross_entropy(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """The mean of `ce` in fp64, whatever the dtypes."""
    return ce(q.double(), k.double(), queue.double(), temperature).mean()


def naive_paper_loss(qa: Tensor, qp: Tensor, ka: Tensor, queue: Tensor, t: float) -> Tensor:
    return (ce(qa, ka, queue, t) + ce(qp, ka, queue, t)).mean()


def naive_release_loss(
    qa: Tensor, qp: Tensor, qm: Tensor | None, ka: Tensor, kp: Tensor, queue: Tensor, t: float,
    lambdas: tuple[float, float], mix: float,
) -> Tensor:  # fmt: skip
    first = lambdas[0] * ce(qa, ka, queue, t) + lambdas[1] * ce(qa, kp, queue, t)
    second = lambdas[1] * ce(qp, ka, queue, t) + lambdas[0] * ce(qp, kp, queue, t)
    if qm is None:
        return ((first + second) / 2).mean()
    third = mix * ce(qm, ka, queue, t) + (1 - mix) * ce(qm, kp, queue, t)
    return ((first + second + third) / 3).mean()
