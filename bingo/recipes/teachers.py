"""Published teachers, as data: where each comes from, and how its file is told from others."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Teacher:
    """A published teacher."""

    text: str
    """What it is, in words."""
    network: str
    """Its name here: torchvision's, resnet50wWIDTH or timm:NAME."""
    top1: float | None
    """Its own linear top-1 on ImageNet in per cent; None: not known."""
    source: str
    """Who says so."""
    file: str = ""
    """The name under which it is published; "": it has none of its own."""
    marks: str = ""
    """How names of its tensors begin, without `module.`; "": as the network's own."""
    epoch: int | None = None
    """What the file says of its training, as MoCo's script writes it; None: nothing."""
    md5: str = ""
    """How the MD5 sum of the file begins, where its page gives that."""

    @property
    def family(self) -> tuple[str, str]:
        """Teachers of one family differ in the length of their training only."""
        return self.network, self.marks


MOCO = "encoder_q."
SWAV = "projection_head."
SWAV_PAGE = "the table of facebookresearch/swav"
TEACHERS = {
    "moco-r50-200": Teacher(
        "MoCo-v2 ResNet-50, 200 epochs", "resnet50", 67.7, "the table of facebookresearch/moco; 67.4 in SEED and BINGO",
        "moco_v2_200ep_pretrain.pth.tar", MOCO, 200, "59fd9945",
    ),
    "moco-r50-800": Teacher(
        "MoCo-v2 ResNet-50, 800 epochs", "resnet50", 71.1, "the table of facebookresearch/moco",
        "moco_v2_800ep_pretrain.pth.tar", MOCO, 800, "a04e12f8",
    ),
    "moco-r152-800": Teacher(
        "MoCo-v2 ResNet-152, 800 epochs", "resnet152", 74.1, "the table of BINGO, arXiv 2107.01691",
        "800-resnet152-moco-v2-checkpoint_0799.pth.tar", MOCO, 800,
    ),
    "swav-r50": Teacher(
        "SwAV ResNet-50", "resnet50", 75.3, SWAV_PAGE, "swav_800ep_pretrain.pth.tar", SWAV
    ),
    "swav-r50x2": Teacher(
        "SwAV ResNet-50x2, 400 epochs", "resnet50w2", 77.3, SWAV_PAGE, "swav_RN50w2_400ep_pretrain.pth.tar", SWAV
    ),
    "byol-r50": Teacher("BYOL ResNet-50, converted to torchvision's names", "resnet50", None, "arXiv 2006.07733"),
    "dinov2-b": Teacher(
        "DINOv2 ViT-B/14", "timm:vit_base_patch14_dinov2", None, "facebookresearch/dinov2",
        "dinov2_vitb14_pretrain.pth", "mask_token",
    ),
}  # fmt: skip
"""Name -> teacher. Only MoCo's page gives hashes."""
