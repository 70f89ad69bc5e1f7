"""Plain torchvision weights: `model.load_state_dict(torch.load(...), strict=True)` works."""

import logging
from pathlib import Path
from typing import Any

import torch

from bingo.config import ExportConfig
from bingo.config_parts import Augmentation
from bingo.distributed import World
from bingo.errors import UserError
from bingo.files import REMEDY, read_sealed, write_json, write_torch
from bingo.inputs import recorded
from bingo.models import build_classifier, check_alive, load_encoder, state_hash
from bingo.torch_files import read_torch

ACCEPTED = "give the folder of `bingo eval linear`, or leave out --classifier"
USUAL_SIZE = 224

log = logging.getLogger(__name__)


def run(config: ExportConfig, key: str, world: World) -> dict[str, Any]:
    """Write `weights.pt` (a state dict of the named classifier) and `weights.json` beside it.

    `weights.json`: model, classes (their number), class_names and input (see `input_of`), both null where nothing says
    them, and content hashes.
    """
    encoder, model_hash = load_encoder(config.model)
    found = _classifier(config, encoder.feature_dim, model_hash)
    run = recorded(config.model)
    shown = found["input"] or (input_of(run[0].augment) if run else None)
    check_alive(encoder, config.model, shown["size"] if shown else USUAL_SIZE, head=False)
    classes = len(found["weight"])
    state = {name: tensor.contiguous() for name, tensor in encoder.backbone.state_dict().items()}
    state |= {f"{encoder.classifier_name}.{name}": found[name] for name in ("weight", "bias")}
    build_classifier(encoder.name, classes).load_state_dict(state, strict=True)
    if world.main:
        write_torch(config.out / "weights.pt", state)
        source = "linear evaluation" if config.classifier else "zeros: train it, or export with an evaluation folder"
        if config.classifier is None:
            log.warning(
                "the classifier in %s is %d zero outputs; give --classifier RUN/eval/linear", config.out, classes
            )
        write_json(
            config.out / "weights.json",
            {
                "model": encoder.name,
                "classes": classes,
                "class_names": found["classes"],
                "input": shown,
                "classifier": source,
                "from": model_hash,
                "hash": state_hash(state),
            },
        )
    return {"model": encoder.name, "classes": classes}


def input_of(augment: Augmentation) -> dict[str, Any]:
    """What images a network is evaluated on, as JSON: RGB from 0 to 1, the shorter side resized to `resize` pixels, the
    central `size` x `size` of it, less `mean`, by `std`."""
    return {
        "size": augment.size, "resize": augment.eval_resize, "crop": "centre", "interpolation": "bilinear, antialiased",
        "mean": list(augment.mean), "std": list(augment.std),
    }  # fmt: skip


def _classifier(config: ExportConfig, dim: int, model_hash: str) -> dict[str, Any]:
    """weight (C x dim) and bias (C) float32, the names of the classes or None, the input of the evaluation or None."""
    if config.classifier is None:
        weight, bias = torch.zeros(config.classes, dim), torch.zeros(config.classes)
        return {"weight": weight, "bias": bias, "classes": None, "input": None}
    path = config.classifier / "linear.pt" if config.classifier.is_dir() else config.classifier
    saved = read_torch(path, ACCEPTED)
    weight, bias = _checked(saved, path)
    if weight.shape[1] != dim:
        raise UserError(
            f"{path} is a classifier of {weight.shape[1]}-d features, the model has {dim}; evaluate this model first"
        )
    results = path.with_name("results.json")
    described = read_sealed(results) if results.exists() else {}
    for name, fitted in ((path, saved.get("model")), (results, described.get("model"))):
        if fitted not in (None, model_hash):
            raise UserError(
                f"{name} is of another model than {config.model} (content hash {fitted}, not {model_hash}); "
                "evaluate this model with `bingo eval linear` first"
            )
    classes = saved.get("classes") or described.get("classes")
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if classes is not None and not (named and len(classes) == len(weight)):
        raise UserError(f"{path} has {len(weight)} outputs but not as many class names; {REMEDY}")
    return {"weight": weight, "bias": bias, "classes": classes, "input": described.get("input")}


def _checked(saved: Any, path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight and bias of a classifier in fp32; `UserError` unless they are C x D and C finite numbers."""
    weight, bias = (saved.get("weight"), saved.get("bias")) if isinstance(saved, dict) else (None, None)
    if not (isinstance(weight, torch.Tensor) and isinstance(bias, torch.Tensor)):
        raise UserError(f"{path} is no linear classifier (tensors weight and bias); {ACCEPTED}")
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or not weight.numel():
        raise UserError(
            f"{path}: weight is {tuple(weight.shape)}, bias {tuple(bias.shape)}, not C x D and C; evaluate again"
        )
    if not (weight.is_floating_point() and bias.is_floating_point()):
        raise UserError(f"{path}: weight is {weight.dtype}, bias {bias.dtype}, not floating point; evaluate again")
    weight, bias = weight.float(), bias.float()
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise UserError(f"{path} is not finite (NaN or infinity): its fit diverged; evaluate again")
    return weight, bias
