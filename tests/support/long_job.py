"""A job of one long pre-training on the digits, as a file."""

from pathlib import Path

from bingo.config import PretrainConfig
from bingo.config_parts import Augmentation, Contrast, Optimiser, Runtime
from bingo.launch.job.spec import JobSpec
from bingo.stages import Stage


def pretrain(digits: Path, root: Path) -> Stage:
    config = PretrainConfig(
        data=digits / "train",
        out=root / "run",
        model="tiny-8",
        augment=Augmentation(size=16),
        contrast=Contrast(dim=16, hidden=32, queue=100),
        optim=Optimiser(batch=64, epochs=50),
        runtime=Runtime(device="cpu", threads=1, checkpoint_every=4, log_every=1),
    )
    return Stage("teacher one", "pretrain", config)


def job(root: Path, *stages: Stage) -> Path:
    JobSpec(name="job", tasks=(stages,), nodes=1, ranks_per_node=2, collective_timeout_s=60).write(root)
    return root
