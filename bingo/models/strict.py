"""Strict loading: every tensor of a network from the file, none of the file's left over, all of them finite."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import torch

from bingo.errors import UserError
from bingo.models.encoder import Encoder
from bingo.models.heads import Head
from bingo.models.layouts import sort_of

BROKEN = "the network is broken, not the images; train it again, or give another one"


def built(name: str, head: Head, path: Path) -> Encoder:
    """The network, where possible without memory and initial weights, which the file's tensors replace."""
    try:
        with contextlib.suppress(NotImplementedError, RuntimeError), torch.device("meta"):
            encoder = Encoder(name, head=head)
            if {key for key, _ in encoder.named_buffers()} <= set(encoder.state_dict()):
                return encoder
        return Encoder(name, head=head)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def count_batches(encoder: Encoder, state: dict[str, torch.Tensor]) -> None:
    """Add how many batches each batch norm has seen where the file lacks it, as converted ones do: nothing reads it."""
    for key, value in encoder.state_dict().items():
        if key.endswith("num_batches_tracked") and key not in state:
            state[key] = torch.zeros(value.shape, dtype=value.dtype)


def load_strictly(encoder: Encoder, state: dict[str, torch.Tensor], path: Path, hint: Callable[[], str] = str) -> None:
    """Give the encoder these tensors; `UserError` that lists what does not fit. hint: asked for its end."""
    wanted = encoder.state_dict()
    missing, extra = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    both = [key for key in wanted if key in state]
    shapes = [
        f"{k} is {tuple(state[k].shape)}, not {tuple(wanted[k].shape)}"
        for k in both
        if wanted[k].shape != state[k].shape
    ]
    dtypes = [
        f"{k} is {sort_of(state[k])}, not {str(wanted[k].dtype).removeprefix('torch.')}"
        for k in both
        if wanted[k].is_floating_point() != state[k].is_floating_point()
    ]
    if missing or extra or shapes or dtypes:
        raise UserError(
            f"{path} does not fit {encoder.name}: missing keys {_first(missing)}; "
            f"unexpected keys {_first(extra)}; wrong shapes {_first(shapes)}; wrong dtypes {_first(dtypes)}{hint()}"
        )
    own = {key: torch.empty(value.shape, dtype=value.dtype).copy_(state[key]) for key, value in wanted.items()}
    encoder.load_state_dict(own, strict=True, assign=True)


def check_finite(encoder: Encoder, path: Path) -> None:
    """`UserError` for weights that are not finite, and for negative variances."""
    for name, tensor in encoder.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{path}: {name} is not finite (NaN or infinity): {BROKEN}")
        if name.endswith("running_var") and (tensor < 0).any():
            raise UserError(f"{path}: {name} holds negative variances: {BROKEN}")


def _first(names: list[str], count: int = 8) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return (", ".join(names[:count]) + more) if names else "none"
