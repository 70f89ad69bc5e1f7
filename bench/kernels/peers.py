"""What the kernel benchmark times: ours, plain PyTorch, attention; `libraries` has the rest.

An adapter gives a peer what it wants ahead of time (rounded inputs, the queue split as a batch) and then asks it for
our answer: log-sum-exp and mean key from the library, the remaining arithmetic in plain PyTorch (`workload.finish`),
both timed. Libraries are imported by their adapter: one that is missing is a row that says so.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bingo.bench.kernels.libraries import (
    cut_cross_entropy,
    cut_cross_entropy_lse,
    inf_cl,
    inf_cl_lse,
    liger,
    liger_budgets,
    quack,
)
from bingo.bench.kernels.workload import (
    LOSS,
    LSE,
    Inputs,
    LossShape,
    combine,
    finish_arguments,
    finish_tensors,
    naive_loss,
    with_gradient,
)
from bingo.bench.timing import Call
from bingo.kernels import bag_loss, queue_logsumexp, resolve_impl

BF16, FP32, LOOSE = (2e-5, 2e-4), (1e-5, 1e-5), (2e-2, 2e-2)
BF16_KEYS = 65536
SPLITS = (1, 2, 4, 8, 16, 32, 64)
COMPILE_LIMIT = 64  # versions of one function that torch.compile may hold; one per shape here
SYNCHRONISES = "it waits for the device inside"

Build = Callable[[Inputs, Any], Call]


@dataclass(frozen=True)
class Variant:
    """One way to compute a task. build(inputs, option) -> call; tolerance: relative error of loss and of gradient.

    options: settings of which the fastest is reported; like: the variant whose fastest setting is taken over instead.
    tolerance None: it gives no answer to check. no_capture: why a CUDA graph cannot hold it. compile_seconds: what
    torch.compile may take for one shape, 0 where it is not used.
    """

    name: str
    group: str
    build: Build
    options: Callable[[LossShape], tuple[Any, ...]] = lambda shape: (None,)
    tolerance: tuple[float, float] | None = LOOSE
    no_capture: str = ""
    compile_seconds: float = 0.0
    like: str = ""
    note: str = ""

    def allowed(self, shape: LossShape) -> tuple[float, ...]:
        """The tolerance at this size: that of bf16 is for 65 536 keys, and rounding averages out less over fewer."""
        scale = max(1.0, math.sqrt(BF16_KEYS / shape.keys)) if self.tolerance == BF16 else 1.0
        return tuple(scale * limit for limit in self.tolerance or ())

    @property
    def ours(self) -> bool:
        return self.group.startswith("ours")


def ours_loss(impl: str, half: bool = True) -> Build:
    """`bag_loss` with fp32 rows and a bf16 (or fp32) queue, and its gradient."""

    def build(inputs: Inputs, _: Any) -> Call:
        resolve_impl(impl, inputs.q.device)
        queues = inputs.queues.half if half else inputs.queues.single
        fixed, temperature = (inputs.keys, inputs.weights), inputs.shape.temperature

        def call(i: int) -> tuple[Tensor, Tensor]:
            return with_gradient(
                lambda: bag_loss(inputs.q, *fixed, queues[i], temperature, impl=impl, unit_rows=True),
                inputs.q,
                inputs.upstream,
            )

        return call

    return build


def ours_lse(impl: str, half: bool = True) -> Build:
    """`queue_logsumexp` on detached rows."""

    def build(inputs: Inputs, _: Any) -> Call:
        resolve_impl(impl, inputs.q.device)
        queues, q = inputs.queues.half if half else inputs.queues.single, inputs.q.detach()
        temperature = inputs.shape.temperature
        return lambda i: (queue_logsumexp(q, queues[i], temperature, impl=impl, unit_rows=True),)

    return build


def naive(half: bool, mode: str = "") -> Build:
    """The materialised loss in fp32, or under bf16 autocast with a bf16 queue; through torch.compile with a mode."""

    def build(inputs: Inputs, _: Any) -> Call:
        queues = inputs.queues.half if half else inputs.queues.single
        loss = torch.compile(naive_loss, mode=mode, dynamic=False) if mode else naive_loss
        fixed, temperature = (inputs.q, inputs.keys, inputs.weights), inputs.shape.temperature

        def losses(i: int) -> Tensor:
            with torch.autocast(inputs.q.device.type, torch.bfloat16, enabled=half):
                return loss(*fixed, queues[i], temperature)

        return lambda i: with_gradient(lambda: losses(i), inputs.q, inputs.upstream)

    return build


def naive_lse(half: bool) -> Build:
    """Logits in memory, then torch.logsumexp in fp32."""

    def build(inputs: Inputs, _: Any) -> Call:
        queues = inputs.queues.half if half else inputs.queues.single
        q, temperature = inputs.q_half if half else inputs.q.detach(), inputs.shape.temperature
        return lambda i: (torch.logsumexp((q @ queues[i].T).float() / temperature, dim=1),)

    return build


def products(count: int) -> Build:
    """The one or two bf16 matrix products of the task without any softmax: q n^T, and then that times n."""

    def build(inputs: Inputs, _: Any) -> Call:
        queues, q = inputs.queues.half, inputs.q_half

        def call(i: int) -> tuple[Tensor]:
            logits = torch.mm(q, queues[i].T)
            return (torch.mm(logits, queues[i]) if count == 2 else logits,)

        return call

    return build


def splits(shape: LossShape) -> tuple[int, ...]:
    """Numbers of parts of the queue to try: powers of two that leave at least 16 keys in a part."""
    return tuple(s for s in SPLITS if shape.keys % s == 0 and shape.keys // s >= 16)


def attention(attend: Callable[..., tuple[Tensor, Tensor]], compiled: bool = False, heads_last: bool = False) -> Build:
    """An attention library over the queue split into S parts as a batch; combine and loss arithmetic are counted.

    attend(q, k, scale) -> out and natural log-sum-exp, for q (S, 1, R, C) and k (S, 1, K / S, C), or with heads_last
    (S, R, 1, C) and (S, K / S, 1, C). The S copies of q are made ahead of time. compiled: the arithmetic after the
    library goes through torch.compile.
    """

    def build(inputs: Inputs, parts: int) -> Call:
        shape, scale = inputs.shape, 1 / inputs.shape.temperature
        q = inputs.q_half.expand(parts, -1, -1).contiguous().unsqueeze(2 if heads_last else 1)
        keys = [n.view(parts, -1, shape.dim).unsqueeze(2 if heads_last else 1) for n in inputs.queues.half]
        end = torch.compile(_attention_end, dynamic=False) if compiled else _attention_end
        fixed = finish_arguments(inputs)

        @torch.no_grad()
        def call(i: int) -> tuple[Tensor, Tensor]:
            out, lse = attend(q, keys[i], scale)
            return end(*fixed, lse.reshape(parts, shape.rows), out.reshape(parts, shape.rows, shape.dim))

        return call

    return build


def _attention_end(
    q_RC: Tensor, keys_RMC: Tensor, weights_1M: Tensor, upstream_R: Tensor, temperature: float, lse_SR: Tensor,
    mean_SRC: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return finish_tensors(q_RC, keys_RMC, weights_1M, upstream_R, temperature, *combine(lse_SR, mean_SRC))


def cudnn(q: Tensor, k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    answer = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, k, None, True, scale=scale)
    return answer[0], answer[1]


def flash(q: Tensor, k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    aten = torch.ops.aten
    attend = aten._scaled_dot_product_flash_attention if q.is_cuda else aten._scaled_dot_product_flash_attention_for_cpu
    answer = attend(q, k, k, scale=scale)
    return answer[0], answer[1]


def flex(q: Tensor, k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Uncompiled off CUDA, where it is only a check of this adapter."""
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention

    run: Any = _compiled_flex() if q.is_cuda else flex_attention
    out, also = run(q, k, k, scale=scale, return_aux=AuxRequest(lse=True))
    return out, also.lse


@functools.cache
def _compiled_flex() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def flash4(q: Tensor, k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    from flash_attn.cute import flash_attn_func

    out, lse = flash_attn_func(q, k, k, softmax_scale=scale, return_lse=True)[:2]
    return out, lse


def _ours(make: Callable[..., Build]) -> list[Variant]:
    return [
        Variant("triton", "ours", make("triton"), tolerance=BF16),
        Variant("hopper", "ours", make("hopper"), tolerance=BF16),
        Variant("triton fp32", "ours fp32", make("triton", False), tolerance=FP32),
        Variant("chunked", "ours chunked", make("chunked"), tolerance=BF16),
    ]


PLAIN = {
    LOSS: [
        *_ours(ours_loss),
        Variant("two matrix products", "products", products(2), tolerance=None, note="no softmax, no answer"),
        Variant("cuDNN attention", "attention", attention(cudnn), splits),
        Variant("flash attention", "attention", attention(flash), splits),
        Variant("naive bf16 autocast", "naive", naive(True)),
        Variant("naive fp32", "naive", naive(False), note="IEEE fp32, no TF32"),
    ],
    LSE: [
        *_ours(ours_lse),
        Variant("one matrix product", "products", products(1), tolerance=None, note="no softmax, no answer"),
        Variant("naive bf16", "naive", naive_lse(True)),
        Variant("naive fp32", "naive", naive_lse(False)),
    ],
}
"""Our implementations and what every PyTorch has, cheapest first."""

LIBRARIES = {
    LOSS: [
        Variant("flash_attn 4", "attention", attention(flash4, heads_last=True), splits),
        Variant("cut_cross_entropy", "fused", cut_cross_entropy(False), note="unfiltered"),
        Variant("cut_cross_entropy filtered", "filtered", cut_cross_entropy(True), note="drops small gradients"),
        Variant("quack", "fused", quack, lambda shape: ("scaled exp", "chunked")),
        Variant("liger_kernel tuned", "fused", liger, liger_budgets, no_capture=SYNCHRONISES),
        Variant("liger_kernel", "fused", liger, lambda shape: (1,), no_capture=SYNCHRONISES),
        Variant("inf_cl", "fused", inf_cl, note="its gradient of the queue is computed too"),
    ],
    LSE: [
        Variant("cut_cross_entropy", "fused", cut_cross_entropy_lse),
        Variant("inf_cl", "fused", inf_cl_lse),
    ],
}
"""Packages that may be absent, or crash: they run after everything in PLAIN is safe."""

COMPILED = [
    [
        Variant(
            "cuDNN, compiled combine",
            "attention",
            attention(cudnn, True),
            like="cuDNN attention",
            compile_seconds=8,
        ),
        Variant(
            "flash, compiled combine",
            "attention",
            attention(flash, True),
            like="flash attention",
            compile_seconds=8,
        ),
        Variant("flex_attention", "attention", attention(flex), like="flash attention", compile_seconds=20),
    ],
    [Variant("naive compiled", "naive", naive(True, "max-autotune-no-cudagraphs"), compile_seconds=45)],
]
"""LOSS through torch.compile, in the order in which the budget is spent; what stands together is timed together."""
