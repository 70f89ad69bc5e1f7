"""From operations to the kernels that a GPU runs: batch norm and convolutions split, elementwise work fused or not.

How fusion is modelled, in full: an elementwise operation joins the kernel of the last operation that made one of its
inputs, if that kernel is elementwise too and everything else that it reads was there before the kernel began. A
reduction (the sums of a batch norm) joins in the same way, and ends its kernel. A kernel reads what others made, once,
and writes what is read after it; what only it reads never reaches memory. Products and convolutions are calls of a
library, and nothing joins them unless `epilogues` says so. The bias of a convolution is a pass of its own, compiled or
not: PyTorch adds it after cuDNN's call (`_convolution` in ATen), and its compiler peels it off ("cudnn is slower with
it"). So a batch norm that is folded into a frozen convolution costs on a GPU what it cost before; only fusion saves it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from bingo.models.costs import Op, Value

Kind = Literal["elementwise", "reduction", "other"]
Key = tuple[int, int]
"""Storage and version of a `Value`."""
NO_KERNEL = (
    *("empty", "empty_like", "empty_strided", "new_empty", "detach", "lift_fresh"),
    *("_record_function_enter_new", "_record_function_exit"),
)
ELEMENTWISE = ("_to_copy", "copy_", "zero_", "fill_", "ones_like", "zeros_like", "hardswish", "hardswish_",
               "hardswish_backward", "silu_backward", "hardsigmoid", "hardsigmoid_backward")  # fmt: skip
REDUCTIONS = ("sum", "mean", "linalg_vector_norm", "var_mean", "native_layer_norm")


@dataclass
class Kernel:
    """One launch. name: of its first operation; dtype: of what it multiplies; reads, writes: bytes by value."""

    name: str
    kind: Kind
    flops: int = 0
    dtype: torch.dtype = torch.float32
    reads: dict[Key, int] = field(default_factory=dict)
    writes: dict[Key, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(self.reads.values()) + sum(self.writes.values())


def kernels_of(ops: Iterable[Op], *, training: bool = True) -> list[Kernel]:
    """The launches of operations run one by one. training: batch norm takes the batch's statistics."""
    return [kernel for op in ops if op.name not in NO_KERNEL for kernel in _split(op, training)]


def _split(op: Op, training: bool) -> list[Kernel]:
    if "batch_norm" in op.name and training:
        return _norm(op, 2 if "backward" in op.name else 1)
    if op.name == "convolution":
        return _convolution(op)
    if op.name == "convolution_backward":
        return _convolution_backward(op)
    kind: Kind = "reduction" if op.name in REDUCTIONS else "other"
    if op.pointwise or op.name in ELEMENTWISE or "batch_norm" in op.name:
        kind = "elementwise"
    return [_kernel(op, kind, op.reads, op.writes, op.flops)]


def _norm(op: Op, large: int) -> list[Kernel]:
    """Sums per channel, then what is made of them: the first `large` inputs, the size of the images, are read twice."""
    result, *sums = op.writes
    return [
        _kernel(op, "reduction", op.reads[:large], sums),
        _kernel(op, "elementwise", [*op.reads, *sums], [result]),
    ]


def _convolution(op: Op) -> list[Kernel]:
    """The product, and a pass over its result for a bias."""
    images, weight, *bias = op.reads
    product = _kernel(op, "other", [images, weight], op.writes, op.flops)
    if not bias:
        return [product]
    made = op.writes[0]
    early = made._replace(version=-1 - made.version)  # the result before its bias
    product.writes = _bytes([early])
    return [product, _kernel(op, "elementwise", [early, *bias], [made])]


def _convolution_backward(op: Op) -> list[Kernel]:
    """The gradient of the weight, and of the images where it is asked for: two products of the same size."""
    gradient, images, weight, *_ = op.reads
    of_weight = [value for value in op.writes if value.bytes == weight.bytes][-1:]
    of_images = [value for value in op.writes if value.bytes == images.bytes and value not in of_weight][:1]
    of_bias = [value for value in op.writes if value not in (*of_weight, *of_images)]
    flops = op.flops // (1 + len(of_images))
    found = [_kernel(op, "other", [gradient, images], of_weight, flops)]
    found += [_kernel(op, "other", [gradient, weight], [value], flops) for value in of_images]
    return found + [_kernel(op, "reduction", [gradient], [value]) for value in of_bias]


def _kernel(op: Op, kind: Kind, reads: Iterable[Value], writes: Iterable[Value], flops: int = 0) -> Kernel:
    return Kernel(op.name, kind, flops, op.dtype, _bytes(reads), _bytes(writes))


def _bytes(values: Iterable[Value]) -> dict[Key, int]:
    return {(value.storage, value.version): value.bytes for value in values}


def fused(kernels: Sequence[Kernel], *, epilogues: bool = False) -> list[Kernel]:
    """The kernels as a compiler would join them: see the head of this file.

    epilogues: elementwise work joins the convolution before it too, as cuDNN's fused operations allow.
    """
    kernels = [_small_indices(kernel) for kernel in kernels]
    groups: list[list[int]] = []
    maker: dict[Key, int] = {}  # value -> the group that makes it
    born: dict[Key, int] = {}  # value -> the kernel that makes it
    for number, kernel in enumerate(kernels):
        place = _place(kernel, kernels, groups, maker, born, epilogues)
        if place is None:
            place = len(groups)
            groups.append([])
        groups[place].append(number)
        for key in kernel.writes:
            maker[key], born[key] = place, number
    readers: dict[Key, set[int]] = {}
    for number, kernel in enumerate(kernels):
        for key in kernel.reads:
            readers.setdefault(key, set()).add(number)
    return [_joined([kernels[number] for number in group], group, readers) for group in groups]


def _place(
    kernel: Kernel, kernels: Sequence[Kernel], groups: list[list[int]], maker: dict[Key, int], born: dict[Key, int],
    epilogues: bool,
) -> int | None:  # fmt: skip
    """The group that a kernel can join, or None."""
    made = [key for key in kernel.reads if key in born]
    if kernel.kind == "other" or not made:
        return None
    place = maker[max(made, key=born.__getitem__)]
    group = groups[place]
    first, last = kernels[group[0]], kernels[group[-1]]
    open_ended = epilogues and kernel.kind == "elementwise" and first.name == "convolution"
    if last.kind == "reduction" or ("other" in (first.kind, last.kind) and not open_ended):
        return None
    before = all(maker[key] == place or born[key] < group[0] for key in made)
    return place if before else None


def _small_indices(kernel: Kernel) -> Kernel:
    """Max-pooling remembers places in 8 bytes each; compiled, as a place within the window, in one.

    Its backward pass then takes each gradient from the few windows around it: elementwise work.
    """
    if not kernel.name.startswith("max_pool2d_with_indices"):
        return kernel
    backward = "backward" in kernel.name
    values = kernel.reads if backward else kernel.writes
    indices = list(values)[-1]
    small = {**values, indices: values[indices] // 8}
    return replace(kernel, kind="elementwise", reads=small) if backward else replace(kernel, writes=small)


def _joined(parts: list[Kernel], numbers: list[int], readers: dict[Key, set[int]]) -> Kernel:
    """One kernel of several: inner values are free unless something else reads them, or nothing ever does."""
    if len(parts) == 1:
        return parts[0]
    made = {key: size for part in parts for key, size in part.writes.items()}
    reads = {key: size for part in parts for key, size in part.reads.items() if key not in made}
    inside = set(numbers)
    writes = {key: size for key, size in made.items() if not readers.get(key) or readers[key] - inside}
    kind: Kind = "other" if parts[0].kind == "other" else parts[-1].kind
    return Kernel(parts[0].name, kind, sum(part.flops for part in parts), parts[0].dtype, reads, writes)
