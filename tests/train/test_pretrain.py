"""Pre-training: its keys' encoder."""

import torch

from bingo.config import DistillConfig, PretrainConfig
from bingo.distributed import World
from bingo.images.open import open_dataset
from bingo.train.pretrain import MoCo
from bingo.views.plan import Plan

ALONE = World(0, 1, torch.device("cpu"), 1)


def test_moco_keys_follow_by_momentum(config: DistillConfig) -> None:
    settings = PretrainConfig(
        data=config.data,
        out=config.out,
        model="tiny",
        key_momentum=0.9,
        contrast=config.contrast,
        augment=config.augment,
    )
    dataset = open_dataset(settings.data)
    plan = Plan(dataset.sizes, settings.optim.batch, settings.augment, settings.seed, views=(2,))
    method = MoCo(settings, plan, ALONE)
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(1.0)
        old = [p.clone() for p in method.key_encoder.parameters()]
        method.after_step()
    for before, query, key in zip(old, method.encoder.parameters(), method.key_encoder.parameters(), strict=True):
        torch.testing.assert_close(key, 0.9 * before + 0.1 * query)
    assert not method.key_encoder.training
