"""The release-style step has the same loss as ours."""

import torch

from bingo.bench.step import main as bench
from bingo.bench.step.release import ReleaseStyle
from bingo.bench.step.variants import Changes
from bingo.distributed import World
from bingo.models import seeded_encoder
from bingo.train.distill import Distillation
from tests.support.toy_step import TOY

CPU = torch.device("cpu")


def test_release_style_step_is_the_same_loss_as_ours() -> None:
    """With one queue for both, to rounding."""
    config = bench.make_config(TOY, Changes(channels_last=False))
    plan, batches = bench.make_batches(TOY, config)
    teachers = [seeded_encoder("tiny-2", dim=16, hidden=16, seed=1) for _ in range(2)]
    ours = Distillation(config, teachers[0], plan, World(0, 1, CPU, 1))
    theirs = ReleaseStyle(config, teachers[1], plan, CPU)
    theirs.queue_KC.copy_(ours.queue.keys_KC)
    for method in (ours, theirs):
        method.encoder.train()
    torch.testing.assert_close(bench.loss_of(ours, batches[0]), theirs.loss(batches[0]), rtol=1e-5, atol=1e-5)
    key = theirs._key
    theirs.after_step()
    assert torch.equal(theirs.queue_KC[:8], key)
