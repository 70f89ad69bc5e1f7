"""Backbones under names of their own: tensors under those of timm or torchvision, and which network they are."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from bingo.errors import UserError
from bingo.shapes import dinov2_name

State = dict[str, torch.Tensor]
STAGES = {
    16: (1, 2, 2, 3, 3, 4, 1), 23: (2, 3, 3, 4, 4, 5, 2), 26: (2, 3, 3, 5, 5, 6, 2), 32: (2, 4, 4, 6, 6, 8, 2),
    39: (3, 5, 5, 7, 7, 9, 3), 45: (3, 6, 6, 8, 8, 11, 3), 55: (4, 7, 7, 10, 10, 13, 4),
    21: (1, 3, 3, 4, 4, 5, 1), 24: (1, 3, 3, 5, 5, 6, 1), 30: (1, 4, 4, 6, 6, 8, 1),
}  # fmt: skip
"""Blocks of an EfficientNet -> blocks of each of its stages; the last row is of the Lite ones."""
EFFICIENTNETS = {
    (16, 1280): "b0", (23, 1280): "b1", (23, 1408): "b2", (26, 1536): "b3", (32, 1792): "b4", (39, 2048): "b5",
    (45, 2304): "b6", (55, 2560): "b7",
}  # fmt: skip
"""(blocks, channels of the last convolution) -> which EfficientNet."""
PARTS = {
    True: {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
        "_project_conv": "conv_pwl", "_bn2": "bn3",
    },
    False: {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"},
}  # fmt: skip
"""Whether a block widens its input first -> its layers in `efficientnet_pytorch` and in timm."""
SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
BYOL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Places of a ResNet's children in `nn.Sequential(*children)` -> their names."""


class Renamed(NamedTuple):
    """A backbone's tensors under the names of our network, and that network ("": the names do not say)."""

    state: State
    network: str = ""


def renamed(state: State) -> Renamed:
    """The first of these styles whose tensors are there; a state of no such style as it is.

    `UserError`: a style's own check, such as a number of blocks that no EfficientNet has.
    """
    for mark, rename in STYLES:
        if mark in state:
            return rename(state)
    return Renamed(state)


def _efficientnet(state: State) -> Renamed:
    """`efficientnet_pytorch` (SEED's and BINGO's students, the Lite networks in wheels) -> timm's `tf_*`."""
    blocks = {int(match[1]) for name in state if (match := re.match(r"_blocks\.(\d+)\.", name))}
    places = dict(enumerate(_places(len(blocks))))
    found = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        if first == "_blocks":
            at, layer, leaf = rest.split(".", 2)
            parts = PARTS[f"_blocks.{at}._expand_conv.weight" in state] | SQUEEZE
            found[f"blocks.{places.get(int(at), at)}.{parts.get(layer, layer)}.{leaf}"] = value
        else:
            found[f"{TOP.get(first, first)}.{rest}"] = value
    lite = not any("._se_reduce." in name for name in state)
    size = EFFICIENTNETS.get((len(blocks), len(state["_conv_head.weight"]))) if "_conv_head.weight" in state else None
    if lite:
        size = {16: "lite0", 21: "lite1", 24: "lite3", 30: "lite4"}.get(len(blocks))
        if size == "lite1" and len(blocks) == 21 and len(state["_blocks.20._project_conv.weight"]) != 320:
            size = "lite2"
    return Renamed(found, f"timm:tf_efficientnet_{size}" if size else "")


def _places(blocks: int) -> Iterator[str]:
    """timm's `stage.block` of each block in turn."""
    if blocks not in STAGES:
        raise UserError(f"its {blocks} blocks are those of no EfficientNet (known: {', '.join(map(str, STAGES))})")
    for stage, count in enumerate(STAGES[blocks]):
        yield from (f"{stage}.{block}" for block in range(count))


def _dinov2(state: State) -> Renamed:
    """DINOv2's release -> timm; what masks patches in training is left out. Registers carry no position."""
    found = {name: value for name, value in state.items() if name not in ("mask_token", "register_tokens")}
    registers = "register_tokens" in state
    if registers:
        found["reg_token"] = state["register_tokens"]
        if {"cls_token", "pos_embed"} <= found.keys():
            found["cls_token"] = found["cls_token"] + found["pos_embed"][:, :1]
            found["pos_embed"] = found["pos_embed"][:, 1:]
    for old, new in ((".mlp.w12.", ".mlp.fc1."), (".mlp.w3.", ".mlp.fc2.")):
        found = {name.replace(old, new): value for name, value in found.items()}
    width = found["cls_token"].shape[-1] if "cls_token" in found else 0
    return Renamed(found, dinov2_name(width, registers=registers))


def _dinov3(state: State) -> Renamed:
    """DINOv3's release -> timm. The bias of q, k and v counts times its mask, as there; that of k must come to zero.

    Left out: what masks patches in training, and the rotary periods, which are fixed.
    """
    found: State = {}
    for name, value in state.items():
        if name in ("mask_token", "rope_embed.periods") or name.endswith(".bias_mask") or "local_cls_norm" in name:
            continue
        if name.endswith(".attn.qkv.bias"):
            mask = state.get(f"{name}_mask")
            q, k, v = (value if mask is None else value * mask).chunk(3)
            if k.any():
                raise UserError(f"{name} has a bias of the keys that is not zero, which DINOv3 never has")
            found[name.replace("qkv.bias", "q_bias")], found[name.replace("qkv.bias", "v_bias")] = q, v
        else:
            name = name.replace("storage_tokens", "reg_token")
            found[re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", name)] = value
    size = {384: "vits16", 768: "vitb16", 1024: "vitl16", 1280: "vith16plus"}.get(state["storage_tokens"].shape[-1])
    if size == "vits16" and "blocks.0.mlp.w1.weight" in state:
        size = "vits16plus"
    for old, new in ((".mlp.w1.", ".mlp.fc1_g."), (".mlp.w2.", ".mlp.fc1_x."), (".mlp.w3.", ".mlp.fc2.")):
        found = {name.replace(old, new): value for name, value in found.items()}
    return Renamed(found, f"dinov3_{size}" if size else "")


def _sequential_resnet(state: State) -> Renamed:
    """A ResNet as the list of its children, as a BYOL in PyTorch has it -> torchvision."""
    found = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        found[f"{BYOL.get(first, first)}.{rest}"] = value
    return Renamed(found)


STYLES: tuple[tuple[str, Callable[[State], Renamed]], ...] = (
    ("_conv_stem.weight", _efficientnet),
    ("storage_tokens", _dinov3),
    ("mask_token", _dinov2),
    ("4.0.conv1.weight", _sequential_resnet),
)
"""A tensor that only this style has, and what gives it our names."""
