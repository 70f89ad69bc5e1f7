"""Adapters of fused linear-cross-entropy libraries: to them the queue is a classifier's weight.

None knows a positive that is not a class. Those that give log-sum-exp and its gradient (the mean key) are asked for
that; those that only know class indices are asked for the loss of class 0, and its part is taken out again.
Checked against the sources of cut-cross-entropy 25.1.1, liger-kernel 0.8.5, inf_cl 1.2.1 and quack-kernels 0.6.5.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bingo.bench.kernels.workload import Inputs, LossShape, finish
from bingo.bench.timing import Call


def cut_cross_entropy(filtered: bool) -> Callable[[Inputs, Any], Call]:
    """Its two kernels without a target: log-sum-exp, then the gradient of that, which is the mean key.

    filtered: as the library does by default, blocks of small probabilities leave no gradient, and the keys are sorted
    by mean logit so that such blocks are many.
    """

    def build(inputs: Inputs, _: Any) -> Call:
        from cut_cross_entropy.cce_backward import cce_backward_kernel
        from cut_cross_entropy.cce_lse_forward import cce_lse_forward_kernel

        rows, queues = inputs.scaled_half, inputs.queues.half
        ones = torch.ones(inputs.shape.rows, device=rows.device)
        threshold = torch.finfo(torch.bfloat16).eps / 32 if filtered else None

        @torch.no_grad()
        def call(i: int) -> tuple[Tensor, Tensor]:
            order = None
            if filtered:
                lse, average = cce_lse_forward_kernel(rows, queues[i], return_logit_avg=True)
                order = torch.argsort(average).to(torch.int32)
            else:
                lse = cce_lse_forward_kernel(rows, queues[i])
            mean, _ = cce_backward_kernel(ones, rows, queues[i], lse, None, None, threshold, vocab_ordering=order)
            return finish(inputs, lse, mean.float())

        return call

    return build


def cut_cross_entropy_lse(inputs: Inputs, _: Any) -> Call:
    from cut_cross_entropy.cce_lse_forward import cce_lse_forward_kernel

    return lambda i: (cce_lse_forward_kernel(inputs.scaled_half, inputs.queues.half[i]),)


def from_cross_entropy(inputs: Inputs, key: Tensor, loss_R: Tensor, slope_RC: Tensor) -> tuple[Tensor, Tensor]:
    """Our answer from a library that only knows class indices: its loss and gradient for the class `key` (C)."""
    target_R = inputs.scaled_half.float() @ key.float()
    return finish(inputs, loss_R + target_R, slope_RC.float() + key.float())


def liger(inputs: Inputs, budget: int) -> Call:
    """Its forward pass, which computes the gradient too. budget: the library's `chunk_mem_const`."""
    from liger_kernel.ops.fused_linear_cross_entropy import fused_linear_cross_entropy_forward

    rows, target = inputs.scaled_half, torch.zeros(inputs.shape.rows, dtype=torch.long, device=inputs.q.device)

    @torch.no_grad()
    def call(i: int) -> tuple[Tensor, Tensor]:
        answer = fused_linear_cross_entropy_forward(
            rows,
            inputs.queues.half[i],
            target,
            reduction="none",
            compute_gradients=True,
            weight_requires_grad=False,
            chunk_mem_const=budget,
        )
        return from_cross_entropy(inputs, inputs.queues.half[i][0], answer[0], answer[4])

    return call


def liger_budgets(shape: LossShape) -> tuple[int, ...]:
    """Settings under which all rows, a half, and an eighth of them make one chunk (the default gives 1 to 8 rows)."""
    whole = -(-shape.keys // shape.dim)
    return tuple(dict.fromkeys(max(1, whole // parts) for parts in (1, 2, 8)))


def one_head(inputs: Inputs) -> tuple[Tensor, list[Tensor]]:
    """q / temperature (R, 1, C) and the queues (K, 1, C) in fp32: one head, as inf_cl wants them."""
    shape = inputs.shape
    rows = (inputs.q.detach() / shape.temperature).view(shape.rows, 1, shape.dim)
    return rows, [n.view(shape.keys, 1, shape.dim) for n in inputs.queues.single]


def inf_cl(inputs: Inputs, _: Any) -> Call:
    """Its flash log-sum-exp (what `cal_flash_loss` calls) in fp32; the gradient of that is the mean key."""
    from inf_cl.flash import FlashProb

    shape, (rows, queues) = inputs.shape, one_head(inputs)
    rows.requires_grad_()
    ones = torch.ones(shape.rows, device=rows.device)

    def call(i: int) -> tuple[Tensor, Tensor]:
        lse = FlashProb.apply(rows, queues[i])
        (mean,) = torch.autograd.grad(lse, rows, ones)
        return finish(inputs, lse.detach(), mean.view(shape.rows, shape.dim))

    return call


def inf_cl_lse(inputs: Inputs, _: Any) -> Call:
    from inf_cl.flash import FlashProb

    rows, queues = one_head(inputs)
    return lambda i: (FlashProb.apply(rows, queues[i]),)


def quack(inputs: Inputs, pipeline: str) -> Call:
    """The forward pass of `chunked_linear_cross_entropy`, which computes the gradient too, in either pipeline."""
    from quack.linear_cross_entropy import chunked_linear_cross_entropy_fwd, scaled_exp_linear_cross_entropy_fwd

    run = chunked_linear_cross_entropy_fwd if pipeline == "chunked" else scaled_exp_linear_cross_entropy_fwd
    rows, target = inputs.scaled_half, torch.zeros(inputs.shape.rows, dtype=torch.long, device=inputs.q.device)

    @torch.no_grad()
    def call(i: int) -> tuple[Tensor, Tensor]:
        answer = run(rows, inputs.queues.half[i], target, 4096, need_dx=True, need_dw=False)
        loss, slope = (part[: inputs.shape.rows] for part in answer[:2])
        return from_cross_entropy(inputs, inputs.queues.half[i][0], loss, slope)

    return call
