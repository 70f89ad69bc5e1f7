"""Plain torchvision weights: `model.load_state_dict(torch.load(...), strict=True)` works."""

from typing import Any

import torch

from bingo.config import ExportConfig
from bingo.distributed import World
from bingo.errors import UserError
from bingo.files import write_json, write_torch
from bingo.models import build_classifier, load_encoder, state_hash


def run(config: ExportConfig, key: str, world: World) -> dict[str, Any]:
    """Write `weights.pt` (a state dict of the named classifier) and `weights.json` beside it."""
    encoder, model_hash = load_encoder(config.model)
    weight, bias = _classifier(config, encoder.feature_dim)
    classes = len(weight)
    state = {name: tensor.contiguous() for name, tensor in encoder.backbone.state_dict().items()}
    state |= {f"{encoder.classifier_name}.weight": weight, f"{encoder.classifier_name}.bias": bias}
    build_classifier(encoder.name, classes).load_state_dict(state, strict=True)
    if world.main:
        write_torch(config.out / "weights.pt", state)
        source = "linear evaluation" if config.classifier else "zeros: train it, or export with an evaluation folder"
        write_json(
            config.out / "weights.json",
            {
                "model": encoder.name,
                "classes": classes,
                "classifier": source,
                "from": model_hash,
                "hash": state_hash(state),
            },
        )
    return {"model": encoder.name, "classes": classes}


def _classifier(config: ExportConfig, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    if config.classifier is None:
        return torch.zeros(config.classes, dim), torch.zeros(config.classes)
    path = config.classifier / "linear.pt" if config.classifier.is_dir() else config.classifier
    if not path.exists():
        raise UserError(f"{path} does not exist; run `bingo eval linear` first, or export without --classifier")
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if saved["weight"].shape[1] != dim:
        raise UserError(
            f"{path} is a classifier of {saved['weight'].shape[1]}-d features, the model has {dim}; "
            "evaluate this model first"
        )
    return saved["weight"].float(), saved["bias"].float()
