"""Settings of the job that `bingo bench scaling` measures: one number of ranks, one batch."""

from dataclasses import dataclass, field
from pathlib import Path

from bingo.config_parts import MOST, MOST_SEED, Augmentation, Contrast, Runtime, TrainingLoader, within


@dataclass(frozen=True, kw_only=True)
class ScalingConfig:
    """Steps of a distillation on all ranks, timed. Networks have random weights, bags are random."""

    out: Path
    """Folder of the samples."""
    ranks: int
    """Ranks that must take part."""
    batch: int
    """Images per step and rank."""
    data: Path | None = None
    """Images that the real loader reads: a packed dataset, or an image folder; `None`: random crops."""
    student: str = "resnet18"
    """Any torchvision classifier by name, timm:NAME, or tiny-WIDTH."""
    teacher: str = "resnet50"
    """Network of the frozen teacher, by such a name."""
    steps: int = 10
    """Steps of a burst, which is one sample."""
    rounds: int = 6
    """Bursts with messages between the ranks, and as many without."""
    contrast: Contrast = field(default_factory=Contrast)
    augment: Augmentation = field(default_factory=Augmentation)
    runtime: Runtime = field(default_factory=Runtime)
    loader: TrainingLoader = field(default_factory=TrainingLoader)
    seed: int = 0
    """Seed of everything that is drawn; each repeat has its own."""

    def __post_init__(self) -> None:
        within(self, ("ranks", "batch", "steps", "rounds"), 1, MOST)
        within(self, ["seed"], 0, MOST_SEED)
