"""What the loss of a step is told besides queries and keys."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bingo.config import PretrainConfig
from bingo.config_parts import Contrast, Runtime
from bingo.losses.queue import KeyQueue
from bingo.losses.step import bag_options
from bingo.train.inputs import Feed, shared_inputs

ANCHORS = np.array([4, 2, 9])
RELATIVES = np.array([[4, 1], [2, 0]])


@pytest.mark.parametrize("negatives", ["all", "strangers"])
def test_options_of_a_step(negatives: str) -> None:
    contrast = Contrast(dim=4, hidden=8, queue=10, negatives=negatives)  # type: ignore[arg-type]
    config = PretrainConfig(data=Path("d"), out=Path("o"), contrast=contrast, runtime=Runtime(impl="chunked"))
    queue = KeyQueue(10, 4, dtype="fp32", device=torch.device("cpu"), seed=0)
    plan = SimpleNamespace(
        anchors=lambda epoch, step: ANCHORS + 10 * epoch + 100 * step, relatives=lambda group: RELATIVES + group
    )
    batch = SimpleNamespace(plan=SimpleNamespace(epoch=1, step=2, groups=(3,)), crops=[])
    feed = Feed(config.augment, torch.float32, torch.device("cpu"))
    inputs = shared_inputs(config, plan, batch, feed)  # type: ignore[arg-type]
    keys = torch.rand(3, 4, requires_grad=True)
    found = bag_options(config, queue, inputs.exclude, keys, inputs.ids)
    assert (found["impl"], found["queue_ids"] is queue.ids_K) == ("chunked", True)
    new = found["new_keys"]
    assert new is not None
    assert torch.equal(new[0], keys.detach())
    assert new[2].tolist() == [214, 212, 219], "ids of the step's anchors, of all ranks"
    excluded = found["exclude"]
    assert (None if excluded is None else excluded.tolist()) == ([[7, 4], [5, 3]] if negatives == "strangers" else None)
    assert bag_options(config, queue, inputs.exclude, None, inputs.ids)["new_keys"] is None
