"""Networks by name: one tiny net for CPUs, wide ResNets, any classifier of torchvision or timm."""

import re
from typing import Any

from torch import nn

from bingo.errors import UserError, did_you_mean
from bingo.models.wide_resnet import WideResNet
from bingo.shapes import TIMM, WIDTHS

WIDEST_TINY = 1024
TORCHVISION = "torchvision:"
WIDE = {f"resnet50w{width}": width for width in WIDTHS}
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "bingo_efficientnet_b0": ("tf_efficientnet_b0", {"drop_rate": 0.2, "drop_path_rate": 0.2}),
    "moco_v3_vit_small": ("vit_small_patch16_224", {"num_heads": 12}),
    "dinov3_vits16": ("vit_small_patch16_dinov3_qkvb", {"global_pool": "token"}),
    "dinov3_vits16plus": ("vit_small_plus_patch16_dinov3_qkvb", {"global_pool": "token"}),
    "dinov3_vitb16": ("vit_base_patch16_dinov3_qkvb", {"global_pool": "token"}),
    "dinov3_vitl16": ("vit_large_patch16_dinov3_qkvb", {"global_pool": "token"}),
    "dinov3_vith16plus": ("vit_huge_plus_patch16_dinov3_qkvb", {"global_pool": "token"}),
}
"""Name -> timm's network and what is unlike its default: BINGO's EfficientNet drops features and blocks while it is
trained, MoCo-v3's ViT-S has 12 heads where timm's has 6, DINOv3 is pooled by its class token, not by the mean."""
LACKS_TIMM = "needs timm: pip install 'bingo-distill[teachers]'"


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


def canonical(name: str) -> str:
    """The name under which a network is recorded: `torchvision:resnet18` is `resnet18`; all others stay."""
    return name.removeprefix(TORCHVISION)


def build_classifier(name: str, num_classes: int = 1000) -> nn.Module:
    """A freshly initialised classifier: `tiny`, `tiny-WIDTH`, `resnet50w2`, one of torchvision, or `timm:NAME`."""
    name = canonical(name)
    if width := check_name(name):
        return TinyNet(width, num_classes)
    if name in WIDE:
        return WideResNet(WIDE[name], num_classes)
    if name in PUBLISHED or name.startswith(TIMM):
        return _of_timm(name, num_classes)
    import torchvision.models as zoo

    extra: dict[str, Any] = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return zoo.get_model(name, weights=None, num_classes=num_classes, **extra)


def check_name(name: str) -> int:
    """`UserError` unless there is a network of this name; the width of a tiny one, 0 for the others."""
    name = canonical(name)
    if match := re.fullmatch(r"tiny(?:-(\d+))?", name):
        width = match[1] or "4"
        if len(width) > 4 or not 1 <= int(width) <= WIDEST_TINY:
            raise UserError(f"model {name!r}: a tiny network is 1 to {WIDEST_TINY} wide, as in tiny-8")
        return int(width)
    if name in WIDE:
        return 0
    if name in PUBLISHED or name.startswith(TIMM):
        _check_timm(name)
        return 0
    import torchvision.models as zoo

    names = zoo.list_models(module=zoo)
    if name not in names:
        raise UserError(
            f"model {name!r} is unknown; {did_you_mean(name, [*names, *WIDE, 'tiny'])} "
            "(any torchvision classifier, timm:NAME, tiny or tiny-WIDTH)"
        )
    return 0


def _check_timm(name: str) -> None:
    timm = import_timm(f"model {name!r}")
    if name in PUBLISHED:
        return
    arch = name.removeprefix(TIMM)
    if not timm.is_model(arch):
        known = [TIMM + each for each in timm.list_models()]
        raise UserError(f"model {name!r} is unknown to timm {timm.__version__}; {did_you_mean(name, known)}")
    try:
        timm.get_pretrained_cfg(arch)
    except RuntimeError:  # a tag after the dot that this network does not have
        known = [TIMM + each for each in timm.list_pretrained(f"{arch.partition('.')[0]}.*")]
        raise UserError(f"model {name!r} is unknown to timm {timm.__version__}; {did_you_mean(name, known)}") from None


def import_timm(what: str) -> Any:
    """The module; `UserError` without it. what: begins the sentence."""
    try:
        import timm
    except ImportError:
        raise UserError(f"{what} {LACKS_TIMM}") from None
    return timm


def create_timm(name: str, **settings: Any) -> nn.Module:
    """`timm.create_model` of a name of ours; where the network can, for images of any size."""
    timm = import_timm(f"model {name!r}")
    arch, extra = PUBLISHED.get(name, (name.removeprefix(TIMM), {}))
    settings = {**extra, **settings}
    try:
        return timm.create_model(arch, dynamic_img_size=True, **settings)
    except TypeError:  # most convolutional networks know no such setting, and need none
        return timm.create_model(arch, **settings)


def _of_timm(name: str, num_classes: int) -> nn.Module:
    return create_timm(name, num_classes=num_classes)


def _split_timm(model: Any, linears: list[tuple[str, nn.Linear]]) -> tuple[str, int]:
    """As `split_classifier`. A network without a classifier of one linear layer has none to write back: ""."""
    classifier = model.get_classifier()
    found = [(path, module.in_features) for path, module in linears if module is classifier]
    model.reset_classifier(0)
    return found[0] if found else ("", model.num_features)


def split_classifier(model: nn.Module, name: str) -> tuple[str, int]:
    """Take the classifier off, so that `forward` gives pooled features; its dotted name and its number of inputs.

    Of timm's networks timm says which layer that is; elsewhere it is the last linear one, replaced by the identity.
    """
    linears = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if name in PUBLISHED or name.startswith(TIMM):
        return _split_timm(model, linears)
    if not linears:
        raise UserError(
            f"model {name!r} has no linear classifier to remove; choose another torchvision model, such as resnet18"
        )
    path, last = linears[-1]
    parent, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(parent) if parent else model, leaf, nn.Identity())
    return path, last.in_features
