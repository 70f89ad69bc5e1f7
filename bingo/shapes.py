"""Which network a state dict is of, by names and shapes alone: ResNets and vision transformers. No torch is needed."""

import re
from collections.abc import Mapping, Sequence

Shapes = Mapping[str, Sequence[int]]
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod)\.")
"""What DataParallel, DistributedDataParallel and torch.compile put before names."""
TIMM = "timm:"
WIDTHS = (2, 4, 5)
"""Of the ResNet-50 that SwAV and VICReg train with every layer wider."""
RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18", (False, (3, 4, 6, 3)): "resnet34", (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101", (True, (3, 8, 36, 3)): "resnet152",
}  # fmt: skip
"""(bottlenecks, blocks of each layer) -> torchvision's name."""
GROUPED = {
    ("resnet50", 128, 128): "wide_resnet50_2", ("resnet101", 128, 128): "wide_resnet101_2",
    ("resnet50", 128, 4): "resnext50_32x4d", ("resnet101", 256, 8): "resnext101_32x8d",
    ("resnet101", 256, 4): "resnext101_64x4d",
}  # fmt: skip
"""Name, outputs and inputs per group of the middle convolution -> the variant of it."""
VITS = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge", 1536: "giant"}
"""Channels of a vision transformer -> its size in words."""


def resnet_name(shapes: Shapes) -> str:
    """torchvision's name, or resnet50wWIDTH; "" for a ResNet that has none."""
    counts = tuple(len({m[1] for n in shapes if (m := re.match(rf"layer{at}\.(\d+)\.", n))}) for at in range(1, 5))
    bottlenecks = any(re.match(r"layer\d\.\d+\.conv3\.", name) for name in shapes)
    name = RESNETS.get((bottlenecks, counts), "")
    width = shapes["conv1.weight"][0] // 64
    if width > 1:
        return f"{name}w{width}" if name == "resnet50" and width in WIDTHS else ""
    outputs, inputs, *_ = shapes.get("layer1.0.conv2.weight", (0, 0))
    return GROUPED.get((name, outputs, inputs), name)


def vit_name(shapes: Shapes) -> str:
    """timm's name of a plain vision transformer; "" where several have these tensors."""
    width, _, patch = tuple(shapes["patch_embed.proj.weight"])[:3]
    if shapes.keys() & {"reg_token", "dist_token", "blocks.0.gamma_1", "blocks.0.ls1.gamma"} or width not in VITS:
        return ""
    return f"{TIMM}vit_{VITS[width]}_patch{patch}_224"


def dinov2_name(width: int, *, registers: bool) -> str:
    """timm's name of a DINOv2 of this width; "" for none."""
    size = VITS.get(width)
    return f"{TIMM}vit_{size}_patch14_{'reg4_' * registers}dinov2" if size else ""
