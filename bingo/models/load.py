"""Networks from files: our own and those of others, strictly, with the architecture that the tensors have."""

import os
from pathlib import Path
from typing import Any

from bingo.errors import UserError
from bingo.files import REMEDY
from bingo.models.architectures import TIMM, canonical, check_name
from bingo.models.encoder import FORMAT, FORMAT_HEADS, Encoder, state_hash
from bingo.models.heads import Head
from bingo.models.infer import fits, likely
from bingo.models.layouts import Found, check_state, read_layout
from bingo.models.library import load_library
from bingo.models.strict import built, check_finite, count_batches, load_strictly
from bingo.paths import library_name
from bingo.torch_files import read_network

ACCEPTED = "give a run folder, its model.pt, or a checkpoint of a kind that docs/teachers.md lists"


def load_encoder(path: Path, arch: str = "") -> tuple[Encoder, str]:
    """Read a network, strictly: (encoder, content hash).

    `timm:NAME` and `torchvision:NAME` are the library's pretrained ones (see `bingo.models.library`). A run folder
    stands for its `model.pt`. Checkpoints of others are understood as the table in `bingo.models.layouts` says; one
    without a projection head gives an encoder without one (`Head()`). arch: the network of a file that does not name
    its own, and whose tensors fit several. The file is checked as `read_torch` says. Raises `UserError`: a file of
    another kind or damaged; missing, unexpected and misshapen keys, which are listed (a file is never loaded in part);
    weights that are not finite.
    """
    if name := library_name(path):
        if arch:
            raise UserError(f"--arch is for checkpoints of others, and {name} names its network: leave it out")
        return load_library(name)
    path = path / "model.pt" if os.path.isdir(path) else path
    saved = read_network(path, ACCEPTED)
    if isinstance(saved, dict) and str(saved.get("format", "")).startswith("bingo-"):
        if arch:
            raise UserError(f"--arch is for checkpoints of others, and {path} names its network: leave it out")
        return _load_own(saved, path)
    found = read_layout(saved, path, ACCEPTED)
    name = _network_of(found, arch, path)
    state = found.state()
    encoder = built(name, found.form, path)
    if found.classifier:
        for leaf in ("weight", "bias"):
            state.pop(f"backbone.{encoder.classifier_name}.{leaf}", None)
    count_batches(encoder, state)
    load_strictly(encoder, state, path, lambda: _hint(found, name))
    check_finite(encoder, path)
    return encoder, state_hash(encoder.state_dict())


def _load_own(saved: dict[str, Any], path: Path) -> tuple[Encoder, str]:
    name, head, state = _read_own(saved, path)
    encoder = built(name, head, path)
    load_strictly(encoder, state, path)
    check_finite(encoder, path)
    return encoder, saved["content"] if saved["format"] == FORMAT_HEADS else state_hash(encoder.state_dict())


def _read_own(saved: dict[str, Any], path: Path) -> tuple[str, Head, dict[str, Any]]:
    found = saved["format"]
    if str(found).startswith("bingo-checkpoint"):
        raise UserError(
            f"{path} is a checkpoint of a training; give its run folder, where model.pt lies when it has ended"
        )
    if found not in (FORMAT, FORMAT_HEADS):
        raise UserError(
            f"{path} has the format {found}, this release reads {FORMAT} and {FORMAT_HEADS}; train it again, or update "
            "bingo"
        )
    sizes: dict[str, type] = {"dim": int, "hidden": int}
    fields = sizes if found == FORMAT else {"head": str, "widths": list, "content": str}
    for field, kind in {"model": str, **fields, "state_dict": dict}.items():
        if not isinstance(saved.get(field), kind):
            raise UserError(f"{path} has no {field!r} that is a {kind.__name__}; {REMEDY}")
    state = saved["state_dict"]
    check_state(state, path, REMEDY)
    if found == FORMAT:
        hidden, dim = _head_shape(state, path)
        if (saved["dim"], saved["hidden"]) != (dim, hidden):
            raise UserError(
                f"{path} says dim={saved['dim']}, hidden={saved['hidden']}, its head has {dim} and {hidden}; {REMEDY}"
            )
        return saved["model"], Head("LRL", (hidden, dim)), state
    widths = saved["widths"]
    whole = all(isinstance(width, int) and width <= 1 << 20 for width in widths)
    if not (whole and Head(saved["head"], tuple(widths)).valid):
        raise UserError(f"{path} has a head of the form {saved['head']!r} and {widths!r} that is none; {REMEDY}")
    return saved["model"], Head(saved["head"], tuple(widths)), state


def _head_shape(state: dict[str, Any], path: Path) -> tuple[int, int]:
    """Hidden units and output channels of a two-layer head."""
    for key in ("head.0.weight", "head.2.weight"):
        if key not in state or state[key].ndim != 2 or not state[key].numel():
            found = f"has the shape {tuple(state[key].shape)}" if key in state else "is missing"
            raise UserError(f"{path}: {key} {found}; a head is two linear layers, hidden x features and dim x hidden")
    return len(state["head.0.weight"]), len(state["head.2.weight"])


def _network_of(found: Found, arch: str, path: Path) -> str:
    """The name of the network in a file of others: as told, as its layout says, as the file does, as its shapes do."""
    if arch:
        try:
            check_name(arch)
        except UserError as error:
            raise UserError(f"--arch: {error}") from None
        return canonical(arch)
    if found.network:
        return found.network
    shapes = {name: value.shape for name, value in found.backbone.items()}
    known = [name for name in (found.arch, TIMM + found.arch) if found.arch and _is_known(name)]
    if fitting := [name for name in known if fits(name, shapes)]:
        return fitting[0]
    looks = likely(shapes)
    if looks and known and fits(looks, shapes):
        raise UserError(
            f"{path} says that it is a {found.arch}, and its tensors look like {looks}; if they are right: "
            f"--arch {looks}"
        )
    if name := looks or (known[0] if known else ""):
        return name
    says = f"its name for it, {found.arch!r}, is not known here" if found.arch else "the file does not name it"
    raise UserError(
        f"{path} is a {found.layout} whose network cannot be told: {says}, and its tensors fit none, or several; "
        "give --arch NAME (torchvision's name, or timm:NAME)"
    )


def _is_known(name: str) -> bool:
    try:
        check_name(name)
    except UserError:
        return False
    return True


def _hint(found: Found, name: str) -> str:
    """The end of the sentence about tensors that do not fit: another network that they would fit."""
    looks = likely({key: value.shape for key, value in found.backbone.items()})
    return f"; it looks like {looks}: give --arch {looks}" if looks not in ("", name) else ""
