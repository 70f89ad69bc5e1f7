"""What a computation costs, operation by operation, without doing it: FLOPs and bytes on meta tensors.

FLOPs are torch's own count (`torch.utils.flop_counter`): a multiply-add is two. Bytes are those of the tensors that an
operation reads and writes, each once; one that it changes in place is read and written.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bingo.models.encoder import Encoder


class Value(NamedTuple):
    """What a storage held between two operations that write it; bytes: of the part that an operation touches."""

    storage: int
    version: int
    bytes: int


@dataclass(frozen=True)
class Op:
    """One call of an aten operation that is no view. dtype: of its first floating-point tensor."""

    name: str
    flops: int
    bytes: int
    dtype: torch.dtype
    reads: tuple[Value, ...] = ()
    writes: tuple[Value, ...] = ()
    pointwise: bool = False
    """Whether each number of its result is made of the numbers at the same place alone."""


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.versions: dict[int, int] = {}
        self.kept: list[Any] = []  # a storage that is given back would lend its number to another

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if func.is_view:
            return found
        count = flop_registry.get(func.overloadpacket)
        flops = count(*args, **kwargs, out_val=found) if count else 0
        given, made = _tensors((args, kwargs)), _tensors(found)
        reads = self._values(given.values())
        changed = {key: tensor for key, tensor in given.items() if key in _changed(func, args, kwargs)}
        written = [*changed.values(), *(tensor for key, tensor in made.items() if key not in given)]
        for storage in {self._storage(tensor) for tensor in written}:
            self.versions[storage] = self.versions.get(storage, 0) + 1
        writes = self._values(written)
        floating = [tensor.dtype for tensor in (given | made).values() if tensor.is_floating_point()]
        size = sum(value.bytes for value in (*reads, *writes))
        dtype = floating[0] if floating else torch.int64
        pointwise = torch.Tag.pointwise in func.tags
        self.ops.append(Op(func.overloadpacket.__name__, int(flops), size, dtype, reads, writes, pointwise))
        return found

    def _storage(self, tensor: torch.Tensor) -> int:
        self.kept.append(storage := tensor.untyped_storage())
        return int(storage._cdata)

    def _values(self, tensors: Iterable[torch.Tensor]) -> tuple[Value, ...]:
        pairs = [(self._storage(tensor), tensor.numel() * tensor.element_size()) for tensor in tensors]
        return tuple(Value(storage, self.versions.get(storage, 0), size) for storage, size in pairs)


def _tensors(tree: Any) -> dict[int, torch.Tensor]:
    """The tensors of a tree by their identity."""
    return {id(leaf): leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}


def _changed(func: Any, args: Any, kwargs: Any) -> set[int]:
    """The identities of the tensors that a call changes in place, as its schema says."""
    named = [(argument, args[place]) for place, argument in enumerate(func._schema.arguments[: len(args)])]
    named += [(argument, kwargs.get(argument.name)) for argument in func._schema.arguments[len(args) :]]
    return {
        key
        for argument, value in named
        if argument.alias_info is not None and argument.alias_info.is_write
        for key in _tensors(value)
    }


def ops_of(call: Callable[[], object]) -> list[Op]:
    """The operations of a call, in order; on meta tensors nothing is computed."""
    with _Recorder() as recorder:
        call()
    return recorder.ops


@torch.no_grad()
def forward_flops(encoder: Encoder, size: int) -> int:
    """FLOPs of one image of `size` pixels per side through backbone and head; 0 where shapes alone do not tell."""
    network = copy.deepcopy(encoder).to("meta").eval()
    try:
        return sum(op.flops for op in ops_of(lambda: network.project(torch.zeros(1, 3, size, size, device="meta"))))
    except (NotImplementedError, RuntimeError):  # an operation that does not work on shapes
        return 0
