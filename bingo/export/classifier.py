"""The linear classifier of an evaluation folder, checked against the model that it is to go with."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bingo.config_evaluation import ExportConfig
from bingo.errors import UserError
from bingo.files import REMEDY, read_sealed
from bingo.torch_files import read_torch

ACCEPTED = "give the folder of `bingo eval linear`, or leave out --classifier"


@dataclass(frozen=True, eq=False)
class Classifier:
    """weight (C x D) and bias (C) float32, and what the evaluation says, where it says it.

    classes: their names; results: all of results.json; fitted: whether an evaluation made it, or it is zeros.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    classes: list[str] | None = None
    results: dict[str, Any] = field(default_factory=dict)
    fitted: bool = False


def classifier_of(config: ExportConfig, dim: int, model_hash: str) -> Classifier:
    """The classifier that goes with features of `dim` channels; zeros without an evaluation.

    `UserError`: no classifier, one that is damaged, of another width, or fitted on another model than `model_hash`.
    """
    if config.classifier is None:
        return Classifier(torch.zeros(config.classes, dim), torch.zeros(config.classes))
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
    return Classifier(weight, bias, classes, described, fitted=True)


def _checked(saved: Any, path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight and bias of a classifier in fp32; `UserError` unless they are C x D and C finite numbers."""
    weight, bias = (saved.get("weight"), saved.get("bias")) if isinstance(saved, dict) else (None, None)
    if isinstance(saved, dict) and saved.get("normalise"):
        raise UserError(
            f"{path} acts on features of unit length (--protocol simreg), which no linear layer of a network makes; "
            "give the folder of another protocol, such as `bingo eval linear --protocol release`"
        )
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
