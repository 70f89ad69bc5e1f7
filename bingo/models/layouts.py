"""The table of checkpoints as they are found in the wild: where backbone and head lie, and what is left out by name."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bingo.errors import UserError
from bingo.models.heads import Head, read_head
from bingo.models.renames import State, renamed
from bingo.shapes import WRAPPERS

QUEUE = r"|queue|queue_ptr"


@dataclass(frozen=True)
class Layout:
    """A row of the table. A file is of the first row one of whose `holders` has names that match every mark.

    Names are those of the file without `module.` and `_orig_mod.`.
    """

    name: str
    holders: tuple[str, ...]
    """Keys of the file below which the state lies; "" is the file itself."""
    marks: tuple[str, ...]
    """Patterns of names."""
    prefix: str = ""
    """What stands before the names of the backbone."""
    heads: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Prefix of a head, and the forms that it may have (see `bingo.models.heads`)."""
    dropped: str = ""
    """Pattern of the names that are left out: other networks, predictors, prototypes, queues."""
    classifier: bool = False
    """A classifier may be there, and is left out."""
    network: Callable[[Mapping[str, torch.Tensor]], str] | None = None
    """The network, where names and shapes do not say it."""


def _moco_v3(backbone: Mapping[str, torch.Tensor]) -> str:
    width = backbone["cls_token"].shape[-1] if "cls_token" in backbone else 0
    return "moco_v3_vit_small" if width == 384 else ""


MOCO = ("L", "LRL")
LAYOUTS = (
    Layout(
        "SimReg student", ("state_dict", "model"), (r"encoder_q\.", r"predict_q\."), "encoder_q.",
        (("predict_q.", ("LBRLLBRL", "LL", "BL")), ("encoder_q.fc.", MOCO)), r"encoder_t\..*",
    ),
    Layout(
        "DisCo student", ("state_dict",), (r"encoder_q\.", r"teacher_encoder_[qk]\."), "encoder_q.",
        (("encoder_q.fc.", MOCO), ("encoder_q.classifier.", MOCO)), r"(teacher_)?encoder_[qk]\..*" + QUEUE,
    ),
    Layout(
        "MoCo v1 or v2, or BINGO's student", ("state_dict",), (r"encoder_q\.",), "encoder_q.",
        (("encoder_q.fc.", MOCO),), r"encoder_k\..*" + QUEUE,
    ),
    Layout(
        "SEED student", ("state_dict",), (r"student\.", r"teacher\."), "student.",
        (("student.fc.", MOCO), ("student.classifier.", MOCO)), r"teacher\..*" + QUEUE,
    ),
    Layout(
        "MoCo v3", ("state_dict",), (r"base_encoder\.",), "base_encoder.",
        (("base_encoder.fc.", ("lBRlb",)), ("base_encoder.head.", ("lBRlBRlb",))),
        r"(momentum_encoder|predictor)\..*", network=_moco_v3,
    ),
    Layout(
        "SimSiam", ("state_dict",), (r"encoder\.", r"predictor\."), "encoder.",
        (("encoder.fc.", ("lBRlBRLb",)),), r"predictor\..*",
    ),
    Layout(
        "Barlow Twins or VICReg", ("model",), (r"backbone\.",), "backbone.",
        (("projector.", ("lBRlBRl", "LBRLBRl")),), r"bn\.(running_mean|running_var|num_batches_tracked)",
    ),
    Layout(
        "BYOL", ("model",), (r"online_network\.",), "online_network.encoder.",
        (("online_network.projetion.", ("LBRL",)), ("online_network.projection.", ("LBRL",))),
        r"(target_network|predictor)\..*",
    ),
    Layout(
        "DINO checkpoint", ("teacher",), (r"backbone\.",), "backbone.",
        (("head.mlp.", ("LGLGL", "LBGLBGL", "L")), ("dino_head.mlp.", ("LGLGL", "LBGLBGL"))),
        r"(head|dino_head)\.last_layer\..*|ibot_head\..*",
    ),
    Layout(
        "SwAV", ("", "state_dict"), (r"(projection_head|prototypes)\.",), "",
        (("projection_head.", ("LBRL", "L")),), r"prototypes\..*",
    ),
    Layout(
        "state dict", ("", "model", "state_dict"),
        (r"(conv1|patch_embed\.proj|conv_stem|_conv_stem|features\.\d.*|stem\..*|conv_proj)\.weight",), classifier=True,
    ),
)  # fmt: skip
"""CompRess's students, the backbones of DINO, DINOv2, DINOv3, BYOL and VICReg, files of torchvision and timm, and
safetensors are plain state dicts. Of MoCo v3 the base encoder is taken, which its own evaluation uses; of DINO the
teacher; of SwAV the projection head without the prototypes."""
BYOL_HEAD = {"l1": "0", "bn1": "1", "l2": "3"}


@dataclass(frozen=True)
class Found:
    """What a file holds: tensors of backbone and head under our names, and which network that is.

    arch: what the file itself names; network: what its layout says; "" for neither.
    """

    layout: str
    backbone: State
    head: State
    form: Head
    arch: str
    network: str
    classifier: bool

    def state(self) -> State:
        head = {f"head.{name}": value for name, value in self.head.items()}
        return {**{f"backbone.{name}": value for name, value in self.backbone.items()}, **head}


def read_layout(saved: Any, path: Path, accepted: str) -> Found:
    """What the first row that fits finds in a file's content. accepted: ends the sentence about any other content.

    `UserError`: no row fits, said by what is there; a name that the row does not know; a head that is not whole.
    """
    if not isinstance(saved, dict):
        raise UserError(f"{path} holds a {type(saved).__name__}, not a model; {accepted}")
    for layout in LAYOUTS:
        for holder in layout.holders:
            state = saved.get(holder) if holder else {n: v for n, v in saved.items() if isinstance(v, torch.Tensor)}
            if not isinstance(state, dict):
                continue
            plain = without_wrappers(state, path)
            if all(any(re.match(mark, name) for name in plain) for mark in layout.marks):
                return _take(layout, plain, saved, path)
    raise UserError(f"{path} is no network of a kind that is known here ({_content(saved)}); {accepted}")


def without_wrappers(state: dict[Any, Any], path: Path) -> dict[str, Any]:
    """The state under names without what parallel training and compilation put before them."""
    plain = {WRAPPERS.sub("", str(name)): value for name, value in state.items()}
    if len(plain) != len(state):
        raise UserError(f"{path} holds some weights twice, with and without `module.` or `_orig_mod.` before the name")
    return plain


def _take(layout: Layout, plain: dict[str, Any], saved: dict[Any, Any], path: Path) -> Found:
    head, form, rest = _take_head(layout, plain, path)
    backbone = {n.removeprefix(layout.prefix): v for n, v in rest.items() if n.startswith(layout.prefix)}
    others = sorted(n for n in rest if not n.startswith(layout.prefix) and not re.fullmatch(layout.dropped, n))
    if others:
        raise UserError(
            f"{path} is a {layout.name} checkpoint by its names, and {_listed(set(others))} "
            f"{'are' if len(others) > 1 else 'is'} not among those that such a file holds"
        )
    backbone = {n: v for n, v in backbone.items() if not (layout.dropped and re.fullmatch(layout.dropped, n))}
    _check_tensors({**backbone, **{f"head.{n}": v for n, v in head.items()}}, path)
    try:
        taken = renamed(backbone)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    arch = saved.get("arch", "")
    if not isinstance(arch, str):
        raise UserError(f"{path}: its 'arch' is of type {type(arch).__name__}, not the name of a network")
    network = taken.network or (layout.network(taken.state) if layout.network else "")
    return Found(layout.name, taken.state, head, form, arch, network, layout.classifier)


def _take_head(layout: Layout, plain: dict[str, Any], path: Path) -> tuple[State, Head, dict[str, Any]]:
    """The tensors of the head under the names of `nn.Sequential`, its form, and all other tensors."""
    for prefix, forms in layout.heads:
        inside = {n.removeprefix(prefix): v for n, v in plain.items() if n.startswith(prefix)}
        if not inside:
            continue
        rest = {n: v for n, v in plain.items() if not n.startswith(prefix)}
        if layout.name == "BYOL":
            inside = {f"{BYOL_HEAD.get(n.split('.')[0], n)}.{n.partition('.')[2]}": v for n, v in inside.items()}
        alone = inside.keys() <= {"weight", "bias"}  # one linear layer in place of a list of layers
        inside = {f"0.{n}": v for n, v in inside.items()} if alone else inside
        forms = tuple(form for form in forms if alone == (len(form) == 1))
        if not forms:
            raise UserError(
                f"{path} ({layout.name}): {prefix}weight is one layer, where such a file has a list of layers"
            )
        _check_tensors({prefix + n: v for n, v in inside.items()}, path)
        names = {place: name for name, place in BYOL_HEAD.items()} if layout.name == "BYOL" else None
        return inside, read_head(inside, forms, f"{path} ({layout.name}): {prefix}", names), rest
    return {}, Head(), plain


def _check_tensors(state: Mapping[str, Any], path: Path) -> None:
    """`UserError` for a value that no network has."""
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(f"{path}: {key} is a {type(value).__name__}, not a tensor")
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu" or value.is_complex():
            raise UserError(f"{path}: {key} is a {sort_of(value)} tensor; save ordinary floating-point weights")
        if value.untyped_storage().nbytes() < value.nbytes:
            raise UserError(f"{path}: {key} of shape {tuple(value.shape)} is not stored in full; save a copy of it")


def check_state(state: Mapping[Any, Any], path: Path, remedy: str) -> None:
    """As for the tensors of a layout; names must be texts. remedy: ends the sentence about others."""
    for key in state:
        if not isinstance(key, str):
            raise UserError(f"{path}: {key!r} in its state_dict is no name of a weight; {remedy}")
    _check_tensors(state, path)


def sort_of(value: torch.Tensor) -> str:
    """What is unusual of a tensor, in a word."""
    if value.device.type != "cpu":
        return f"{value.device.type}-device"
    return "sparse" if value.layout != torch.strided else str(value.dtype).removeprefix("torch.")


def _content(saved: dict[Any, Any]) -> str:
    keys = {str(key) for key in saved}
    if "pytorch-lightning_version" in keys:
        what = "it is a PyTorch-Lightning checkpoint"
    else:
        what = f"it holds: {_listed(keys)}"
    for holder in ("state_dict", "model", "teacher"):
        if isinstance(state := saved.get(holder), dict) and state:
            prefixes = {WRAPPERS.sub("", str(name)).partition(".")[0] + "." for name in state}
            return f"{what}; names in its {holder} begin with {_listed(prefixes)}"
    return what


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
