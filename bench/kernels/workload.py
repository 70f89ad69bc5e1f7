"""What the kernel benchmark computes: the inputs, the release's naive loss, and the exact answers.

Two tasks. LOSS: the weighted loss of M positives per row and its gradient, d(sum of upstream * loss)/dq. LSE: the
log-sum-exp of each row over the queue, alone.
Legend: R rows, K keys of the queue, C channels, M positives per row.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LOSS, LSE = "loss + L + dq", "L only"
TASKS = (LOSS, LSE)
QUEUES = 4  # at least; more where they do not exceed twice the L2 cache
EXACT_ROWS = 128  # rows of the fp64 answer at a time: 128 x 2 x 65 537 logits are 134 MB


@dataclass(frozen=True)
class LossShape:
    """Sizes of one loss: R rows, K keys, C channels, M positives."""

    rows: int
    keys: int = 65536
    dim: int = 128
    positives: int = 2
    temperature: float = 0.2

    def flops(self, task: str) -> int:
        """Of the matrix products: two (logits, mean key) for loss and gradient, one for the log-sum-exp."""
        return (4 if task == LOSS else 2) * self.rows * self.keys * self.dim

    def least_bytes(self) -> int:
        """Half-precision queue, fp32 rows, positives and gradient, each moved once."""
        return 2 * self.keys * self.dim + 4 * self.rows * self.dim * (2 + self.positives)


@dataclass(frozen=True)
class Queues:
    """Several queues (K x C, unit rows) to use in turn: fp32 as drawn, and rounded to bf16."""

    single: list[Tensor]
    half: list[Tensor]

    def __len__(self) -> int:
        return len(self.half)


@dataclass(frozen=True)
class Inputs:
    """q (R, C) fp32 unit rows that want a gradient, keys (R, M, C) fp32, weights (1, M), upstream (R), queues."""

    shape: LossShape
    q: Tensor
    keys: Tensor
    weights: Tensor
    upstream: Tensor
    queues: Queues

    @functools.cached_property
    def q_half(self) -> Tensor:
        """q in bf16, rounded ahead of time: peers that take bf16 are not charged for the conversion."""
        return self.q.detach().bfloat16()

    @functools.cached_property
    def scaled_half(self) -> Tensor:
        """q / temperature in bf16, for peers without a temperature; also made ahead of time."""
        return (self.q.detach() / self.shape.temperature).bfloat16()


def unit(generator: torch.Generator, device: torch.device, *shape: int) -> Tensor:
    """Random rows of length one, fp32. Drawn on the CPU: a failed graph capture can break the GPU's generator."""
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1).to(device)


def make_queues(shape: LossShape, device: torch.device, l2_bytes: int, generator: torch.Generator) -> Queues:
    """At least QUEUES of them, and in bf16 at least twice the L2 cache together."""
    count = max(QUEUES, -(-2 * l2_bytes // (2 * shape.keys * shape.dim)))
    single = [unit(generator, device, shape.keys, shape.dim) for _ in range(count)]
    return Queues(single, [queue.bfloat16() for queue in single])


def make_inputs(shape: LossShape, queues: Queues, device: torch.device, generator: torch.Generator) -> Inputs:
    """Fresh rows and positives; weights fall with m and add to one; upstream is that of a mean over the rows."""
    weights = torch.arange(shape.positives, 0, -1, dtype=torch.float32)[None, :]
    return Inputs(
        shape,
        unit(generator, device, shape.rows, shape.dim).requires_grad_(),
        unit(generator, device, shape.rows, shape.positives, shape.dim),
        (weights / weights.sum()).to(device),
        torch.full((shape.rows,), 1 / shape.rows, device=device),
        queues,
    )


def naive_loss(q: Tensor, keys: Tensor, weights: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Loss per row with all logits materialised, (R, M, 1 + K): what the published code does for each positive."""
    positive = torch.einsum("rc,rmc->rm", q, keys)[:, :, None]
    negative = (q @ queue.T)[:, None, :].expand(-1, keys.shape[1], -1)
    logits = torch.cat([positive, negative], dim=2) / temperature
    return -(weights * F.log_softmax(logits, dim=2)[:, :, 0]).sum(dim=1)


def with_gradient(loss: Callable[[], Tensor], q: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Loss (R) and the gradient (R, C) with respect to q."""
    losses = loss()
    return losses.detach(), torch.autograd.grad(losses, q, upstream.to(losses.dtype))[0]


def finish(inputs: Inputs, lse_R: Tensor, mean_RC: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and gradient from log-sum-exp and mean key, in plain PyTorch: the part that attention libraries lack."""
    return finish_tensors(*finish_arguments(inputs), lse_R, mean_RC)


def finish_arguments(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """What `finish_tensors` takes of the inputs; apart, because torch.compile wants tensors."""
    return inputs.q.detach(), inputs.keys, inputs.weights, inputs.upstream, inputs.shape.temperature


def finish_tensors(
    q_RC: Tensor, keys_RMC: Tensor, weights_1M: Tensor, upstream_R: Tensor, temperature: float, lse_R: Tensor,
    mean_RC: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    margin_RM = lse_R[:, None] - (q_RC[:, None, :] * keys_RMC).sum(2) / temperature
    loss_R = -(weights_1M * F.logsigmoid(-margin_RM)).sum(1)
    slope_RM = weights_1M * torch.sigmoid(margin_RM) * (upstream_R / temperature)[:, None]
    toward_RC = torch.bmm(slope_RM[:, None, :], keys_RMC).squeeze(1)
    return loss_R, slope_RM.sum(1, keepdim=True) * mean_RC - toward_RC


def combine(lse_SR: Tensor, mean_SRC: Tensor) -> tuple[Tensor, Tensor]:
    """Join the partial answers of S parts of the queue, in fp32."""
    if len(lse_SR) == 1:
        return lse_SR[0], mean_SRC[0].float()
    largest_R = lse_SR.amax(0)
    weights_SR = torch.exp(lse_SR - largest_R)
    total_R = weights_SR.sum(0)
    mean_RC = ((weights_SR / total_R)[:, :, None] * mean_SRC).sum(0)
    return largest_R + total_R.log(), mean_RC


def exact(inputs: Inputs, task: str) -> tuple[Tensor, ...]:
    """The task's answer on queue 0 in fp64, from the inputs as drawn (nothing rounded to half precision)."""
    queue, temperature = inputs.queues.single[0].double(), inputs.shape.temperature
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, inputs.shape.rows, EXACT_ROWS):
        block = slice(start, start + EXACT_ROWS)
        q = inputs.q.detach()[block].double()
        if task == LSE:
            parts.append((torch.logsumexp(q @ queue.T / temperature, dim=1),))
            continue
        q.requires_grad_()
        arguments = (q, inputs.keys[block].double(), inputs.weights.double(), queue, temperature)
        parts.append(with_gradient(functools.partial(naive_loss, *arguments), q, inputs.upstream[block]))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))
