"""Pretrained networks of torchvision and timm by name: from the library's cache, or fetched by it."""

import os
from pathlib import Path
from typing import Any

import torch

from bingo.config_parts import IMAGENET_MEAN, IMAGENET_STD, Augmentation
from bingo.errors import UserError
from bingo.files import first_line
from bingo.models.architectures import TIMM, TORCHVISION, check_name, create_timm, import_timm
from bingo.models.encoder import Encoder, state_hash
from bingo.models.heads import Head
from bingo.models.strict import built, check_finite, count_batches, load_strictly

OTHER_INPUT = ("googlenet", "inception_v3")
"""torchvision's weights of these want images of another range than all others."""


def load_library(name: str) -> tuple[Encoder, str]:
    """`timm:NAME` or `torchvision:NAME` with its weights and without a head: (encoder, content hash).

    Its pooled features are what the library's own network gives without its classifier. `UserError`: no such network,
    none with weights, or weights that are neither in the cache nor can be fetched.
    """
    check_name(name)
    path = Path(name)
    encoder = built(name, Head(), path)
    state = _from_timm(name) if name.startswith(TIMM) else _from_torchvision(name)
    for leaf in ("weight", "bias"):
        state.pop(f"{encoder.classifier_name}.{leaf}", None)
    state = {f"backbone.{key}": value for key, value in state.items()}
    count_batches(encoder, state)
    load_strictly(encoder, state, path)
    check_finite(encoder, path)
    return encoder, state_hash(encoder.state_dict())


def seen_in_library(name: str) -> Augmentation:
    """The size, mean and standard deviation with which the library evaluates a network of its own."""
    if name.startswith(TIMM):
        timm = import_timm(f"model {name!r}")
        found = timm.get_pretrained_cfg(name.removeprefix(TIMM))
        if found is None:
            return Augmentation()
        return Augmentation(size=found.input_size[-1], mean=tuple(found.mean), std=tuple(found.std))
    transform: Any = _weights(name).transforms()
    crop, mean, std = (getattr(transform, each, None) for each in ("crop_size", "mean", "std"))
    return Augmentation(
        size=crop[0] if crop else 224, mean=tuple(mean or IMAGENET_MEAN), std=tuple(std or IMAGENET_STD)
    )


def _from_timm(name: str) -> dict[str, torch.Tensor]:
    timm = import_timm(f"model {name!r}")
    found = timm.get_pretrained_cfg(name.removeprefix(TIMM))
    if found is None or not found.has_weights:
        raise UserError(f"timm has no weights for {name}; `timm.list_pretrained()` names those that have some")
    try:
        return create_timm(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # of the hub, of the network, of a file in the cache: each in types of its own
        where = f"https://huggingface.co/{found.hf_hub_id}" if found.hf_hub_id else found.url
        folder = os.environ.get("HF_HOME", "~/.cache/huggingface")
        raise _unfetched(name, error, where, folder, "its model.safetensors") from error


def _from_torchvision(name: str) -> dict[str, torch.Tensor]:
    weights = _weights(name)
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except Exception as error:
        folder = os.path.join(torch.hub.get_dir(), "checkpoints")
        raise _unfetched(name, error, weights.url, folder, weights.url.rpartition("/")[2]) from error


def _weights(name: str) -> Any:
    import torchvision.models as zoo

    arch = name.removeprefix(TORCHVISION)
    try:
        found: Any = zoo.get_model_weights(arch)
    except ValueError:
        raise UserError(f"torchvision has no network {arch!r}, or no weights for it") from None
    if arch in OTHER_INPUT or not len(found):
        raise UserError(f"torchvision's weights for {arch} cannot serve here; give another network, such as resnet50")
    return found.DEFAULT


def _unfetched(name: str, error: Exception, where: str, folder: str, file: str) -> UserError:
    return UserError(
        f"the weights of {name} are not in {folder} and could not be fetched from {where} ({first_line(error)}); fetch "
        f"them on a machine with network and copy that folder here, or give {file} as a file"
    )
