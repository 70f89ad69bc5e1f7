"""Encoders: a torchvision classifier without its last layer, or one tiny net for CPUs, and a head."""

import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bingo.config_parts import Runtime
from bingo.errors import UserError, did_you_mean
from bingo.files import new_hash, write_torch

FORMAT = "bingo-model-1"


class TinyNet(nn.Sequential):
    """Three 3x3 convolutions with batch norm, average pool and a classifier: 1.5 k parameters at width 4."""

    def __init__(self, width: int, num_classes: int = 10) -> None:
        channels = (3, width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for i in range(3):
            layers += [
                nn.Conv2d(channels[i], channels[i + 1], 3, stride=1 + (i > 0), padding=1, bias=False),
                nn.BatchNorm2d(channels[i + 1]),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes))


def build_classifier(name: str, num_classes: int = 1000) -> nn.Module:
    """A freshly initialised classifier: `tiny`, `tiny-WIDTH` or any torchvision classification model."""
    if match := re.fullmatch(r"tiny(?:-(\d+))?", name):
        return TinyNet(int(match[1] or 4), num_classes)
    import torchvision.models as zoo

    names = zoo.list_models(module=zoo)
    if name not in names:
        raise UserError(
            f"model {name!r} is unknown; {did_you_mean(name, [*names, 'tiny'])} "
            "(any torchvision classifier, tiny or tiny-WIDTH)"
        )
    extra: dict[str, Any] = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return zoo.get_model(name, weights=None, num_classes=num_classes, **extra)


def split_classifier(model: nn.Module, name: str) -> tuple[str, int]:
    """Replace the last linear layer by the identity; returns its dotted name and its number of inputs."""
    linears = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linears:
        raise UserError(
            f"model {name!r} has no linear classifier to remove; choose another torchvision model, such as resnet18"
        )
    path, last = linears[-1]
    parent, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(parent) if parent else model, leaf, nn.Identity())
    return path, last.in_features


class Encoder(nn.Module):
    """Backbone and projection head Linear-ReLU-Linear; the forward pass gives unit rows."""

    def __init__(self, name: str, *, dim: int = 128, hidden: int = 2048) -> None:
        super().__init__()
        self.name, self.dim, self.hidden = name, dim, hidden
        self.backbone = build_classifier(name)
        self.classifier_name, self.feature_dim = split_classifier(self.backbone, name)
        self.head = nn.Sequential(nn.Linear(self.feature_dim, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, dim))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """B x 3 x H x W -> B x dim float32 rows of unit length."""
        return F.normalize(self.project(images), dim=1)

    def project(self, images: torch.Tensor) -> torch.Tensor:
        """B x 3 x H x W -> B x dim float32 rows as the head gives them: the loss normalises on its way."""
        return self.head(self.backbone(images)).float()

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """B x 3 x H x W -> B x feature_dim float32, pooled, before the head."""
        return self.backbone(images).float()


def autocast(runtime: Runtime, device: torch.device) -> torch.autocast:
    """bf16 autocast when the precision asks for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=runtime.precision == "bf16")


def seeded_encoder(name: str, *, dim: int, hidden: int, seed: int) -> Encoder:
    """An encoder whose initial weights are a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(name, dim=dim, hidden=hidden)


def state_hash(state: dict[str, torch.Tensor]) -> str:
    """Content hash of weights: names, shapes, dtypes and bytes, independent of the file they came in."""
    digest = new_hash()
    for name, tensor in sorted(state.items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_encoder(path: Path, encoder: Encoder) -> str:
    """Write backbone and head atomically; returns the content hash of the weights."""
    state = {name: tensor.detach().cpu() for name, tensor in encoder.state_dict().items()}
    header = {"format": FORMAT, "model": encoder.name, "dim": encoder.dim, "hidden": encoder.hidden}
    write_torch(path, {**header, "state_dict": state})
    return state_hash(state)


def load_encoder(path: Path) -> tuple[Encoder, str]:
    """Read a model file, strictly: (encoder, content hash).

    A run folder stands for its `model.pt`. MoCo-v2 checkpoints (`arch`, `module.encoder_q.*`) are understood too.
    Raises `UserError` that lists missing and unexpected keys; a file is never loaded in part.
    """
    path = path / "model.pt" if path.is_dir() else path
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(
            f"model file {path} does not exist; give a run folder or a model.pt written by pretrain or distill"
        ) from None
    except Exception as error:
        raise UserError(
            f"model file {path} cannot be read ({type(error).__name__}: it is truncated or not a torch file)"
        ) from error
    if isinstance(saved, dict) and saved.get("format") == FORMAT:
        name, dim, hidden, state = saved["model"], saved["dim"], saved["hidden"], saved["state_dict"]
    else:
        name, dim, hidden, state = _read_moco(saved, path)
    encoder = Encoder(name, dim=dim, hidden=hidden)
    _load_strictly(encoder, state, path)
    return encoder, state_hash(encoder.state_dict())


def _read_moco(saved: Any, path: Path) -> tuple[str, int, int, dict[str, torch.Tensor]]:
    """The query encoder of a MoCo-v2 checkpoint under this project's names."""
    prefix = "module.encoder_q."
    state = saved.get("state_dict") if isinstance(saved, dict) else None
    if not isinstance(state, dict) or not any(key.startswith(prefix) for key in state):
        found = ", ".join(sorted(map(str, saved))[:5]) if isinstance(saved, dict) else type(saved).__name__
        raise UserError(f"{path} is neither a bingo model nor a MoCo-v2 checkpoint (it holds: {found})")
    renamed = {}
    for key, value in state.items():
        if key.startswith(prefix):
            inner = key.removeprefix(prefix)
            renamed[re.sub(r"^fc\.", "head.", inner) if inner.startswith("fc.") else f"backbone.{inner}"] = value
    last, first = renamed.get("head.2.weight"), renamed.get("head.0.weight")
    if first is None or last is None:
        raise UserError(
            f"{path} has no two-layer head (fc.0, fc.2): MoCo-v1 checkpoints cannot serve as BINGO teachers"
        )
    return str(saved.get("arch", "resnet50")), last.shape[0], first.shape[0], renamed


def _load_strictly(encoder: Encoder, state: dict[str, torch.Tensor], path: Path) -> None:
    wanted = encoder.state_dict()
    missing, extra = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    shapes = [
        f"{k} is {tuple(state[k].shape)}, not {tuple(wanted[k].shape)}"
        for k in wanted
        if k in state and wanted[k].shape != state[k].shape
    ]
    if missing or extra or shapes:
        raise UserError(
            f"{path} does not fit {encoder.name}: missing keys {_first(missing)}; "
            f"unexpected keys {_first(extra)}; wrong shapes {_first(shapes)}"
        )
    encoder.load_state_dict(state, strict=True)


def _first(names: list[str], count: int = 8) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return (", ".join(names[:count]) + more) if names else "none"
