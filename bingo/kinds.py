"""The kinds of stages: the settings of each, and the module that does its work."""

from dataclasses import dataclass

from bingo.config import (
    BagsConfig,
    DemoDataConfig,
    DistillConfig,
    FeaturesConfig,
    KeysConfig,
    PackConfig,
    PretrainConfig,
    TeacherConfig,
)
from bingo.config_evaluation import EvalConfig, ExportConfig
from bingo.config_scaling import ScalingConfig


@dataclass(frozen=True)
class Kind:
    """A kind of stage: its config class and the module whose `run(config, key, world)` does the work.

    resumable: it continues after a kill, from what is in its folder; distributed: every rank takes part.
    """

    config: type
    module: str
    resumable: bool = False
    distributed: bool = False


KINDS = {
    "demo-data": Kind(DemoDataConfig, "bingo.images.demo_data"),
    "pack": Kind(PackConfig, "bingo.images.pack"),
    "pretrain": Kind(PretrainConfig, "bingo.train.pretrain", resumable=True, distributed=True),
    "features": Kind(FeaturesConfig, "bingo.features.extract", resumable=True, distributed=True),
    "teacher": Kind(TeacherConfig, "bingo.features.teacher"),
    "bags": Kind(BagsConfig, "bingo.bags.stage", distributed=True),
    "keys": Kind(KeysConfig, "bingo.features.keys", resumable=True, distributed=True),
    "distill": Kind(DistillConfig, "bingo.train.distill", resumable=True, distributed=True),
    "eval": Kind(EvalConfig, "bingo.supervised.stage", distributed=True),
    "export": Kind(ExportConfig, "bingo.export.stage"),
}
"""Kinds that a verb runs."""
MEASURED = {"scaling": Kind(ScalingConfig, "bingo.bench.scaling.job", distributed=True)}
"""Kinds that only a measurement sends: what they write differs every time."""
ALL_KINDS = KINDS | MEASURED
