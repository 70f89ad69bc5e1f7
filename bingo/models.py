"""Encoders: a torchvision classifier without its last layer, or one tiny net for CPUs, and a head."""

import os
import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bingo.config_parts import Runtime
from bingo.errors import UserError, did_you_mean
from bingo.files import REMEDY, first_line, new_hash, write_torch
from bingo.moco import read_moco
from bingo.torch_files import read_torch

FORMAT = "bingo-model-1"
ACCEPTED = "give a run folder, a model.pt written by pretrain or distill, or a MoCo-v2 checkpoint"
BROKEN = "the network is broken, not the images; train it again, or give another one"
WIDEST_TINY = 1024
SAME = 1e-6  # of the largest value: a few roundings of fp32


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
    if width := check_name(name):
        return TinyNet(width, num_classes)
    import torchvision.models as zoo

    extra: dict[str, Any] = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return zoo.get_model(name, weights=None, num_classes=num_classes, **extra)


def check_name(name: str) -> int:
    """`UserError` unless there is a classifier of this name; the width of a tiny one, 0 for the others."""
    if match := re.fullmatch(r"tiny(?:-(\d+))?", name):
        width = match[1] or "4"
        if len(width) > 4 or not 1 <= int(width) <= WIDEST_TINY:
            raise UserError(f"model {name!r}: a tiny network is 1 to {WIDEST_TINY} wide, as in tiny-8")
        return int(width)
    import torchvision.models as zoo

    names = zoo.list_models(module=zoo)
    if name not in names:
        raise UserError(
            f"model {name!r} is unknown; {did_you_mean(name, [*names, 'tiny'])} "
            "(any torchvision classifier, tiny or tiny-WIDTH)"
        )
    return 0


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

    A run folder stands for its `model.pt`. MoCo-v2 checkpoints (see `bingo.moco`) are understood too.
    The file is checked as `read_torch` says. Raises `UserError`: a file of another kind or damaged; missing, unexpected
    and misshapen keys, which are listed (a file is never loaded in part); weights that are not finite.
    """
    path = path / "model.pt" if os.path.isdir(path) else path
    saved = read_torch(path, ACCEPTED)
    own = isinstance(saved, dict) and str(saved.get("format", "")).startswith("bingo-")
    name, state = _read_own(saved, path) if own else read_moco(saved, path, ACCEPTED)
    hidden, dim = _head_shape(state, path)
    if own and (saved["dim"], saved["hidden"]) != (dim, hidden):
        raise UserError(
            f"{path} says dim={saved['dim']}, hidden={saved['hidden']}, its head has {dim} and {hidden}; {REMEDY}"
        )
    try:
        encoder = Encoder(name, dim=dim, hidden=hidden)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    _load_strictly(encoder, state, path)
    _check_finite(encoder, path)
    return encoder, state_hash(encoder.state_dict())


def _read_own(saved: dict[str, Any], path: Path) -> tuple[str, dict[str, Any]]:
    found = saved["format"]
    if str(found).startswith("bingo-checkpoint"):
        raise UserError(
            f"{path} is a checkpoint of a training; give its run folder, where model.pt lies when it has ended"
        )
    if found != FORMAT:
        raise UserError(f"{path} has the format {found}, this release reads {FORMAT}; train it again, or update bingo")
    for field, kind in (("model", str), ("dim", int), ("hidden", int), ("state_dict", dict)):
        if not isinstance(saved.get(field), kind):
            raise UserError(f"{path} has no {field!r} that is a {kind.__name__}; {REMEDY}")
    return saved["model"], saved["state_dict"]


def _head_shape(state: dict[str, Any], path: Path) -> tuple[int, int]:
    """Hidden units and output channels of a state's head; `UserError` for a value that no network has."""
    for key, value in state.items():
        if not isinstance(key, str):
            raise UserError(f"{path}: {key!r} in its state_dict is no name of a weight; {REMEDY}")
        if not isinstance(value, torch.Tensor):
            raise UserError(f"{path}: {key} is a {type(value).__name__}, not a tensor")
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu" or value.is_complex():
            raise UserError(f"{path}: {key} is a {_sort(value)} tensor; save ordinary floating-point weights")
        if value.untyped_storage().nbytes() < value.nbytes:
            raise UserError(f"{path}: {key} of shape {tuple(value.shape)} is not stored in full; save a copy of it")
    for key in ("head.0.weight", "head.2.weight"):
        if key not in state or state[key].ndim != 2 or not state[key].numel():
            found = f"has the shape {tuple(state[key].shape)}" if key in state else "is missing"
            raise UserError(f"{path}: {key} {found}; a head is two linear layers, hidden x features and dim x hidden")
    return len(state["head.0.weight"]), len(state["head.2.weight"])


def _sort(value: torch.Tensor) -> str:
    if value.device.type != "cpu":
        return f"{value.device.type}-device"
    return "sparse" if value.layout != torch.strided else str(value.dtype).removeprefix("torch.")


def _load_strictly(encoder: Encoder, state: dict[str, torch.Tensor], path: Path) -> None:
    wanted = encoder.state_dict()
    missing, extra = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    both = [key for key in wanted if key in state]
    shapes = [
        f"{k} is {tuple(state[k].shape)}, not {tuple(wanted[k].shape)}"
        for k in both
        if wanted[k].shape != state[k].shape
    ]
    dtypes = [
        f"{k} is {_sort(state[k])}, not {_sort(wanted[k])}"
        for k in both
        if wanted[k].is_floating_point() != state[k].is_floating_point()
    ]
    if missing or extra or shapes or dtypes:
        raise UserError(
            f"{path} does not fit {encoder.name}: missing keys {_first(missing)}; "
            f"unexpected keys {_first(extra)}; wrong shapes {_first(shapes)}; wrong dtypes {_first(dtypes)}"
        )
    encoder.load_state_dict(state, strict=True)


def _check_finite(encoder: Encoder, path: Path) -> None:
    for name, tensor in encoder.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{path}: {name} is not finite (NaN or infinity): {BROKEN}")
        if name.endswith("running_var") and (tensor < 0).any():
            raise UserError(f"{path}: {name} holds negative variances: {BROKEN}")


@torch.no_grad()
def check_alive(encoder: Encoder, path: Path, size: int, *, head: bool) -> None:
    """`UserError` if the network from `path` gives NaN, zeros or always the same, which nothing can be learned from.

    It is shown six images of size x size pixels: plain dark and light ones, and noise. head: the keys are judged too,
    not only the features. Costs one small forward pass; leaves the mode and all random numbers as they were.
    """
    device = next(encoder.parameters()).device
    noise = torch.randn(6, 3, size, size, generator=torch.Generator().manual_seed(0))
    strength, level = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.3, 0.3]), torch.tensor([-2.0, 2.0, 0.0, 0.0, -1.0, 1.0])
    images = noise * strength.view(6, 1, 1, 1) + level.view(6, 1, 1, 1)
    training = encoder.training
    encoder.eval()
    try:
        features = encoder.features(images.to(device))
        answers = {"features": features, "keys": encoder.head(features).float()} if head else {"features": features}
    except (AssertionError, RuntimeError, ValueError) as error:
        if isinstance(error, RuntimeError) and "size" not in str(error):
            raise  # of the device, not of the image
        raise UserError(
            f"{encoder.name} of {path} cannot take images of {size} x {size} pixels ({first_line(error)}); "
            "set --augment.size to what it was trained with"
        ) from error
    finally:
        encoder.train(training)
    for what, rows in answers.items():
        rows = rows.cpu()
        if not rows.isfinite().all():
            problem = "are not finite (NaN or infinity)"
        elif not rows.any():
            problem = "are all zeros"
        elif (rows - rows[0]).abs().max() <= SAME * rows.abs().max():
            problem = "are the same whatever the image"
        else:
            continue
        raise UserError(f"the {what} of the network in {path} {problem}: {BROKEN}")


def _first(names: list[str], count: int = 8) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return (", ".join(names[:count]) + more) if names else "none"
