"""Which network a state dict is of: by the number of its blocks and the shapes of its tensors."""

import functools
from collections.abc import Mapping

import torch

from bingo.models.architectures import build_classifier, split_classifier
from bingo.shapes import resnet_name, vit_name

Shapes = Mapping[str, torch.Size]
FAMILIES = {
    "features.denseblock1.denselayer1.norm1.weight": ("densenet",), "conv_proj.weight": ("vit",),
    "features.0.weight": ("alexnet", "vgg"), "features.1.block.0.0.weight": ("mobilenet_v3",),
    "features.1.conv.0.0.weight": ("mobilenet_v2",), "features.1.0.block.0.0.weight": ("efficientnet",),
    "features.1.0.layer_scale": ("convnext",), "features.1.0.norm1.weight": ("swin",),
}  # fmt: skip
"""A tensor -> beginnings of the names of torchvision's networks that have it: these are compared one by one."""
CLOSE = 0.1
"""Share of tensors that may differ in a network that a file looks like: then the sentence about it names them."""


def likely(shapes: Shapes) -> str:
    """The name of the network that these tensors of a backbone look like; "" for none, or for more than one."""
    if "conv1.weight" in shapes and any(name.startswith("layer1.0.") for name in shapes):
        return resnet_name(shapes)
    if "patch_embed.proj.weight" in shapes:
        return vit_name(shapes)
    for mark, families in FAMILIES.items():
        if mark in shapes:
            return _closest(shapes, families)
    return ""


def _closest(shapes: Shapes, families: tuple[str, ...]) -> str:
    """The network of these families with the most tensors in common; "" if that is not close, or not the only one."""
    import torchvision.models as zoo

    names = [name for name in zoo.list_models(module=zoo) if name.startswith(families)]
    apart = {name: len(differences(name, shapes)) for name in names}
    best = min(apart.values())
    closest = [name for name, count in apart.items() if count == best]
    return closest[0] if len(closest) == 1 and best <= CLOSE * len(shapes) else ""


def fits(name: str, shapes: Shapes) -> bool:
    """Whether the backbone of this network has tensors of just these names and shapes, its classifier aside."""
    return not differences(name, shapes)


def differences(name: str, shapes: Shapes) -> set[str]:
    """Names of the tensors that only one of the two has, or that have another shape; its classifier aside."""
    wanted, classifier = backbone_shapes(name)
    names = {key for key in wanted.keys() | shapes.keys() if key not in classifier and not _counts(key)}
    return {key for key in names if wanted.get(key) != shapes.get(key)}


@functools.cache
def backbone_shapes(name: str) -> tuple[dict[str, torch.Size], tuple[str, str]]:
    """Names and shapes of a backbone without memory for it, and the names of the classifier that was taken off.

    `UserError` as for `build_classifier`.
    """
    try:
        with torch.device("meta"):
            model = build_classifier(name)
    except (NotImplementedError, RuntimeError):  # some networks look at what they initialise
        model = build_classifier(name)
    path, _ = split_classifier(model, name)
    return {key: value.shape for key, value in model.state_dict().items()}, (f"{path}.weight", f"{path}.bias")


def _counts(name: str) -> bool:
    return name.endswith("num_batches_tracked")
