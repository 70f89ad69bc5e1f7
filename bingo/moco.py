"""MoCo-v2 checkpoints as they are found in the wild: the query encoder under this project's names."""

import re
from pathlib import Path
from typing import Any

import torch

from bingo.errors import UserError

ENCODER = "encoder_q."
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod)\.")
"""What DistributedDataParallel and torch.compile put before names."""


def read_moco(saved: Any, path: Path, accepted: str) -> tuple[str, dict[str, Any]]:
    """(torchvision's name, state of an `Encoder`) of what a MoCo-v2 checkpoint holds: `encoder_q.*` with or without
    `module.` and `_orig_mod.`, its head in fc.0 and fc.2. accepted: ends the sentence about any other content.

    `UserError`: anything else, said by what it is or by the prefixes found. Values are not looked at.
    """
    if not isinstance(saved, dict):
        raise UserError(f"{path} holds a {type(saved).__name__}, not a model; {accepted}")
    state = saved.get("state_dict")
    plain = _without_wrappers(state, path) if isinstance(state, dict) else {}
    if not any(name.startswith(ENCODER) for name in plain):
        what = _content(saved, plain)
        raise UserError(f"{path} is neither a bingo model nor a MoCo-v2 checkpoint ({what}); {accepted}")
    found = {name.removeprefix(ENCODER): value for name, value in plain.items() if name.startswith(ENCODER)}
    layers = sorted({name.split(".")[1] for name in found if re.fullmatch(r"fc\.\d+\..+", name)}, key=int)
    if layers != ["0", "2"]:
        what = f"a head of fc.{', fc.'.join(layers)}" if layers else "no head fc.0, fc.2 (MoCo v1 has one layer)"
        raise UserError(f"{path} has {what}: a BINGO teacher has the two-layer head of MoCo v2 (fc.0, fc.2)")
    arch = saved.get("arch", "resnet50")
    if not isinstance(arch, str):
        raise UserError(f"{path}: its 'arch' is of type {type(arch).__name__}, not the name of a torchvision model")
    return arch, {(f"head.{n[3:]}" if n.startswith("fc.") else f"backbone.{n}"): v for n, v in found.items()}


def _without_wrappers(state: dict[Any, Any], path: Path) -> dict[str, Any]:
    plain = {WRAPPERS.sub("", str(name)): value for name, value in state.items()}
    if len(plain) != len(state):
        raise UserError(f"{path} holds some weights twice, with and without `module.` or `_orig_mod.` before the name")
    return plain


def _content(saved: dict[Any, Any], plain: dict[str, Any]) -> str:
    keys = {str(key) for key in saved}
    if "pytorch-lightning_version" in keys:
        what = "it is a PyTorch-Lightning checkpoint"
    elif {"student", "teacher"} <= keys:
        what = "it is a DINO checkpoint"
    elif saved and all(isinstance(value, torch.Tensor) for value in saved.values()):
        return f"it is a plain state dict of {_listed(keys)}: it names no network and has no projection head"
    else:
        what = f"it holds: {_listed(keys)}"
    prefixes = {name.partition(".")[0] + "." for name in plain}
    return f"{what}; names in its state_dict begin with {_listed(prefixes)}, not {ENCODER}" if plain else what


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
