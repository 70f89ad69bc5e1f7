"""Keys by a network whose batch norm sees blocks of the global batch in a planned order: shuffled batch norm.

The published code of BINGO, and of MoCo, makes keys in train mode: statistics come from the 32 images of a GPU, after
the images of all of them were shuffled. Here blocks of about 32 are cut from the shuffled global batch whatever the
number of ranks, so keys are a function of (weights, seed, step): a run resumes, and 2 ranks make the keys of 1.
Legend: B images of the global batch, C channels of a key.
"""

import numpy as np
import torch
from torch import nn

from bingo.config_parts import Runtime
from bingo.distributed import World
from bingo.errors import UserError
from bingo.kernels.transfer import to_device
from bingo.models import Encoder, autocast

BLOCK = 32
"""Images that share batch-norm statistics: those of one GPU of the release, which trains 256 on 8."""


def use_batch_statistics(encoder: Encoder, setting: str) -> None:
    """Let batch norm take its statistics from what it is given; nothing else changes, and no average is kept.

    All else stays in eval mode: dropout of a network, which ResNets have none of, does not come alive.
    `UserError` for a network without batch norm. setting: what asked for it, as it is typed.
    """
    layers = [module for module in encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not layers:
        raise UserError(f"{setting} is for networks with batch norm, and {encoder.name} has none: leave it out")
    for layer in layers:
        layer.running_mean = layer.running_var = layer.num_batches_tracked = None
        layer.track_running_stats = False


@torch.no_grad()
def keys_in_blocks(
    network: Encoder, views: torch.Tensor, order: np.ndarray, runtime: Runtime, world: World
) -> torch.Tensor:
    """fp32 unit rows of the whole global batch (B x C), in its order, on every rank.

    views: this process's rows of the global batch, normalised images; order: the planned order (B int64). Blocks are
    dealt out to the processes; images travel once to each of them, and keys once back.
    """
    images = world.gather_rows(views)()
    blocks = np.array_split(order, max(1, len(order) // BLOCK))
    dealt = [np.concatenate([order[:0], *blocks[rank :: world.size]]) for rank in range(world.size)]
    longest = max(map(len, dealt))
    mine = torch.zeros(longest, network.dim, device=images.device)
    done = 0
    for block in blocks[world.rank :: world.size]:
        # One layout, whatever a gather makes of it: another one would round otherwise.
        part = images[to_device(block, images.device)].contiguous(memory_format=torch.channels_last)
        with autocast(runtime, world.device):
            mine[done : done + len(block)] = network(part)
        done += len(block)
    keys = torch.empty(len(order), network.dim, device=images.device)
    for rows, found in zip(dealt, world.gather_rows(mine)().split(longest), strict=True):
        keys[to_device(rows, images.device)] = found[: len(rows)]
    return keys
