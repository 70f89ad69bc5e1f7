"""Cards: the rows of published tables on ImageNet, and recipes of today, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bingo.config import DistillConfig
from bingo.config_flags import defaults
from bingo.objectives import OBJECTIVES, local_share
from bingo.recipes.teachers import TEACHERS

IMAGES = 1_281_167
"""Training images of ImageNet."""
BINGO = "arXiv 2107.01691 (linear evaluation)"
FEW_LABELS = "arXiv 2107.01691 (few labels)"
SEED, DISCO = "arXiv 2101.04731", "arXiv 2104.09124"
SIMREG, COMPRESS = "arXiv 2201.05131", "arXiv 2010.14713"
NOT_RUN = "not yet run"
Settings = Mapping[str, Any]
"""Dotted names of settings -> values."""


@dataclass(frozen=True)
class Card:
    """A row of a table: what is trained, what is unlike the usual settings, and what is to come out."""

    method: str
    student: str
    expected: Mapping[str, float | None]
    """Teacher (a key of `TEACHERS`; "" for none) -> top-1 in per cent that is published; None: no number is known."""
    source: str
    """Where the numbers stand."""
    settings: Settings = field(default_factory=dict)
    """Of `distill` or `pretrain`, where not the usual ones."""
    judge: Settings = field(default_factory=dict)
    """Of the evaluation, likewise."""
    labels: float | None = None
    """Share of the labels that the student is fine-tuned on; None: a linear classifier on all of them."""
    key_views: int = 0
    """Views of each image whose keys are computed once; 0: the teacher runs in every step."""
    head: Literal["own", "none", "pca"] = "own"
    """What gives the teacher's keys: its own head, nothing (its features are the keys), or principal components."""
    differs: str = ""
    """What is not as published, besides bf16 and the order of the images."""
    status: str = NOT_RUN
    """`not yet run`, until somebody has; then what came out, where, and with which commit."""

    @property
    def distils(self) -> bool:
        """Whether there is a teacher: without one the student is trained by MoCo-v2."""
        return "" not in self.expected

    @property
    def epochs(self) -> int:
        """Passes over the images."""
        return int(self.settings.get("optim.epochs", 200))

    @property
    def objective(self) -> str:
        return str(self.settings.get("objective", "release")) if self.distils else ""

    @property
    def bags(self) -> bool:
        """Whether anchors bring members of their bags."""
        return self.distils and OBJECTIVES[self.objective].bags

    @property
    def passes(self) -> float:
        """Passes of the student over the images, in full views: two or three views a step are as many passes."""
        if not self.distils:
            return self.epochs
        values = {**defaults(DistillConfig), **self.settings}
        local = local_share(values["local_crops"], values["local_size"], values["augment.size"])
        return self.epochs * (OBJECTIVES[self.objective].passes() + local)

    @property
    def networks(self) -> set[str]:
        """Those of its teachers."""
        return {TEACHERS[name].network for name in self.expected if name}

    @property
    def protocol(self) -> str:
        """How the student is judged, in words."""
        if self.labels is not None:
            return f"fine-tuned on {100 * self.labels:g} % of the labels"
        return f"linear, {self.judge.get('protocol', 'release')}"

    @property
    def reported(self) -> str:
        """The published numbers in words."""
        words = [
            ("no number known" if top1 is None else f"{top1:.1f}") + (f" from {TEACHERS[name].text}" if name else "")
            for name, top1 in self.expected.items()
        ]
        return "; ".join(words)


R50 = ("moco-r50-800", "moco-r50-200")
SMALL = {"contrast.temperature": 0.12, "optim.weight_decay": 4e-5}
"""BINGO's EfficientNet script."""
EFFICIENTNET = {"linear_lr": 3.0, "linear_min_lr": 0.001}
MOCO_V2 = {"key_bn": "shuffle"}
"""As MoCo's code; all else is usual here: 200 epochs, batch 256, lr 0.03, a queue of 65 536, temperature 0.2."""
WEAK = {"augment.jitter_p": 0.0, "augment.grey_p": 0.0, "augment.blur_p": 0.0}
"""Crops and mirror images alone, as SimReg and CompRess train on."""
REGRESSED = {
    **WEAK, "objective": "simreg", "contrast.dim": 2048, "contrast.layers": 4, "optim.epochs": 130, "optim.lr": 0.05,
}  # fmt: skip
COMPRESSED = {
    **WEAK, "objective": "compress", "contrast.dim": 2048, "contrast.temperature": 0.04, "contrast.queue": 128_000,
    "optim.epochs": 130, "optim.lr": 0.01,
}  # fmt: skip
UNKNOWN_SWAV = "which of SwAV's files is not known here"
TODAY = {
    **WEAK, "objective": "simreg-seed", "contrast.dim": 256, "contrast.layers": 4, "optim.batch": 1024, "optim.lr": 0.1,
    "optim.warmup_epochs": 5.0, "student_ema": 0.9995,
}  # fmt: skip


def _bingo(student: str, expected: Mapping[str, float | None], **more: Any) -> Card:
    settings = {"cutmix_block": 32, **more.pop("settings", {})}
    return Card("BINGO", student, expected, settings=settings, **{"source": BINGO, **more})


def _simreg(expected: Mapping[str, float | None], differs: str = "") -> Card:
    judge = {"protocol": "simreg"}
    return Card("SimReg", "resnet18", expected, SIMREG, REGRESSED, judge, head="none", differs=differs)


def _moco(student: str, top1: float, **more: Any) -> Card:
    judge = {"protocol": "moco"}
    return Card("MoCo-v2", student, {"": top1}, **{"source": BINGO, "settings": MOCO_V2, "judge": judge, **more})


_TABLE = {
    "moco-resnet18": _moco("resnet18", 52.5),
    "moco-resnet34": _moco("resnet34", 57.4),
    "moco-efficientnet-b0": _moco("bingo_efficientnet_b0", 42.2, source=SEED),
    "moco-mobilenetv3": _moco(
        "mobilenet_v3_large", 36.3, source=SEED, differs="torchvision's MobileNetV3, where SEED has one of its own"
    ),
    "resnet18-r50": _bingo("resnet18", {"moco-r50-800": 64.0, "moco-r50-200": 61.4}),
    "resnet34-r50": _bingo("resnet34", {"moco-r50-800": 66.1, "moco-r50-200": 63.5}),
    "resnet18-r152": _bingo("resnet18", {"moco-r152-800": 65.9}),
    "resnet34-r152": _bingo("resnet34", {"moco-r152-800": 69.1}),
    "resnet18-r50x2": _bingo("resnet18", {"swav-r50x2": 65.5}),
    "resnet34-r50x2": _bingo("resnet34", {"swav-r50x2": 68.9}),
    "resnet50-r50x2": _bingo(
        "resnet50", {"swav-r50x2": None}, source="none; SEED has 74.3 from SwAV's ResNet-50x4 (arXiv 2101.04731)"
    ),
    "efficientnet-b0-r50x2": _bingo(
        "bingo_efficientnet_b0", {"swav-r50x2": 69.3}, settings=SMALL, judge=EFFICIENTNET
    ),
    "mobilenetv3-r50x2": _bingo(
        "mobilenet_v3_large", {"swav-r50x2": 67.1}, settings=SMALL, differs="torchvision's MobileNetV3"
    ),
    "seed-resnet18-r50": Card(
        "SEED", "resnet18", {"moco-r50-200": 57.6}, BINGO, {"objective": "seed"}, {"protocol": "moco"}
    ),
    "disco-resnet18-r50": Card(
        "DisCo", "resnet18", {"moco-r50-200": 60.6}, BINGO, {"objective": "disco"}, {"protocol": "moco"}
    ),
    "simreg-resnet18-r50": _simreg({"moco-r50-800": 65.1}, "which MoCo-v2 R-50 is not known here"),
    "simreg-resnet18-swav": _simreg({"swav-r50": 65.8}, UNKNOWN_SWAV),
    "simreg-resnet18-byol": _simreg({"byol-r50": 66.8}),
    "compress-resnet18-swav": Card(
        "CompRess", "resnet18", {"swav-r50": 65.6}, COMPRESS, COMPRESSED, {"protocol": "simreg"}, head="none",
        differs=f"a cosine in place of two drops of the rate; {UNKNOWN_SWAV}",
    ),
    "resnet18-dinov2b": Card(
        "SimReg and half of SEED on cached keys", "resnet18", {"dinov2-b": None},
        "none; the best published ResNet-18 has 66.8 (SimReg)",
        TODAY, key_views=16, head="pca", differs="nothing is published: settings by reasoning, not by trial",
    ),
    "resnet18-dinov2b-local": Card(
        "the same with local crops", "resnet18", {"dinov2-b": None}, "none; as for resnet18-dinov2b",
        {**TODAY, "local_crops": 4}, key_views=16, head="pca",
        differs="as for resnet18-dinov2b, without the bag term that was thought of for it",
    ),
}  # fmt: skip
_FEW = {
    "moco-resnet18": ({"": 30.9}, {"": 45.8}),
    "resnet18-r50": (dict.fromkeys(R50, 42.8), dict.fromkeys(R50, 57.5)),
    "resnet18-r152": ({"moco-r152-800": 50.3}, {"moco-r152-800": 61.2}),
    "resnet18-r50x2": ({"swav-r50x2": 48.2}, {"swav-r50x2": 60.2}),
}
"""Card -> top-1 after fine-tuning on 1 % and on 10 % of the labels, by teacher."""
_RATES: dict[float, Settings] = {
    0.01: {"finetune.lr": 0.02, "finetune.head_lr": 5.0}, 0.1: {"finetune.lr": 0.01, "finetune.head_lr": 0.2}
}  # fmt: skip
"""Share of the labels -> rates of SwAV's page (`eval_semisup.py`); the paper's own are not known here."""


def _few(name: str, labels: float, expected: Mapping[str, float | None]) -> Card:
    differs = "rates of SwAV's script; images are drawn from the seed, where the paper has SimCLR's list"
    if len(expected) > 1:
        differs += "; which R-50 the row is from is not known here"
    return replace(
        _TABLE[name], expected=expected, source=FEW_LABELS, judge=_RATES[labels], labels=labels, differs=differs
    )


TABLE: dict[str, Card] = _TABLE | {
    f"{name}-{100 * labels:g}pct": _few(name, labels, expected)
    for name, both in _FEW.items()
    for labels, expected in zip(_RATES, both, strict=True)
}


def lacking(card: Card) -> list[str]:
    """Settings that a card asks for and this version does not have."""
    return [name for name in card.settings if card.distils and name not in defaults(DistillConfig)]


CARDS = {name: card for name, card in TABLE.items() if not lacking(card)}
"""Recipe -> its card."""
