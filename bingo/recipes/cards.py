"""Cards: the rows of published tables on ImageNet, as data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A row of the paper's ImageNet table: what is unlike ResNet-18, and what the paper reports for it."""

    student: str
    reported: str
    """Linear top-1 in per cent, by teacher."""
    temperature: float = 0.2
    weight_decay: float = 1e-4
    linear_lr: float | None = None
    """Of the linear evaluation, and where its cosine ends; None: the protocol's."""
    linear_min_lr: float | None = None


CARDS = {
    "resnet18-r50": Card("resnet18", "64.0 from the MoCo-v2 file of 800 epochs, 61.4 from that of 200"),
    "resnet34-r50": Card("resnet34", "66.1 from the MoCo-v2 file of 800 epochs, 63.5 from that of 200"),
    "resnet18-r152": Card("resnet18", "65.9 from a MoCo-v2 ResNet-152 of 800 epochs"),
    "resnet34-r152": Card("resnet34", "69.1 from a MoCo-v2 ResNet-152 of 800 epochs"),
    "resnet18-r50x2": Card("resnet18", "65.5 from SwAV's ResNet-50x2 of 400 epochs"),
    "resnet34-r50x2": Card("resnet34", "68.9 from SwAV's ResNet-50x2 of 400 epochs"),
    "resnet50-r50x2": Card("resnet50", "no number known for it; SEED has 74.3 from SwAV's ResNet-50x4"),
    "efficientnet-b0-r50x2": Card(
        "bingo_efficientnet_b0",
        "69.3 from SwAV's ResNet-50x2 of 400 epochs",
        temperature=0.12,
        weight_decay=4e-5,
        linear_lr=3.0,
        linear_min_lr=0.001,
    ),
    "mobilenetv3-r50x2": Card(
        "mobilenet_v3_large", "67.1 from SwAV's ResNet-50x2 of 400 epochs", temperature=0.12, weight_decay=4e-5
    ),
}
"""Recipe -> its card. The teacher's file is the user's: a recipe from R-50 gives what that file can give."""
