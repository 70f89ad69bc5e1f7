"""The checks of `nearest` on the device at hand.

Rows of small whole numbers have exact products in every dtype, and most scores tie: then scores and indices must equal
fp64's, equal scores by the lower index. Rows of unit length must have the scores of fp64 to the rounding of the sum.
Legend: Q queries, N database rows, D channels.
"""

import torch
from torch import Tensor

from bingo.bench.gpu.checks import FLOOR, Outcome, Setting, Skip, far, need_cuda, poisoned_memory, unit
from bingo.kernels.knn import best_keys, from_keys, nearest, to_keys

REPEATS = 20
LONG_BYTES = 12e9


def implementation(s: Setting) -> str:
    return "reference" if s.impl == "chunked" else s.impl


def whole_numbers(s: Setting, rows: int, channels: int, seed: int) -> Tensor:
    generator = torch.Generator(s.device).manual_seed(seed)
    return torch.randint(-2, 3, (rows, channels), generator=generator, device=s.device).to(s.dtype)


def exact(queries: Tensor, database: Tensor, k: int, exclude: Tensor) -> tuple[Tensor, Tensor]:
    """The definition in fp64."""
    places = torch.arange(len(database), device=queries.device)
    parts = []
    for block, own in zip(queries.split(1024), exclude.split(1024), strict=True):
        scores = (block.double() @ database.double().T).float().masked_fill_(places == own[:, None], -torch.inf)
        parts.append(best_keys(to_keys(scores, places), k))
    return from_keys(torch.cat(parts))


def ties(s: Setting, queries: int, rows: int, channels: int, k: int) -> Outcome:
    """Scores and indices where most scores tie, outputs in memory full of NaN; the error is how many differ."""
    database = whole_numbers(s, rows, channels, 1)
    asked = database[:queries] if queries <= rows else whole_numbers(s, queries, channels, 2)
    own = torch.arange(queries, device=s.device)
    with poisoned_memory():
        scores, indices = nearest(asked, database, k, exclude=own, impl=implementation(s))
    true_scores, true_indices = exact(asked, database, k, own)
    wrong = (scores != true_scores) | (indices != true_indices)
    return Outcome(wrong.sum().item(), 0, f"of {wrong.numel()} places wrong")


def unit_rows(s: Setting, queries: int, rows: int, channels: int, k: int) -> Outcome:
    """Scores of random unit rows, best first."""
    database = unit(s, rows, channels, seed=1)
    own = torch.arange(queries, device=s.device)
    scores, indices = nearest(database[:queries], database, k, exclude=own, impl=implementation(s))
    assert (indices != own[:, None]).all(), "a row is its own neighbour"
    true_scores, _ = exact(database[:queries], database, k, own)
    return Outcome(far(scores, true_scores), FLOOR + channels * 2.0**-23, "score")


def repeats(s: Setting, queries: int, rows: int, channels: int) -> Outcome:
    """Bitwise equal results of equal calls; the error is how many differ from the first."""
    database = unit(s, rows, channels, seed=1)
    first = nearest(database[:queries], database, 16, impl=implementation(s))
    count = 2 if s.quick else REPEATS
    others = [nearest(database[:queries], database, 16, impl=implementation(s)) for _ in range(count)]
    return Outcome(sum(not all(map(torch.equal, first, other)) for other in others), 0, f"of {count} differ")


def long_database(s: Setting) -> Outcome:
    """N * D beyond 2^31: each query is a row near the end, and finds itself first."""
    need_cuda(s)
    channels, rows = 2048, 2**20 + 77
    if torch.cuda.mem_get_info(s.device)[0] < LONG_BYTES:
        raise Skip(f"needs {LONG_BYTES / 1e9:.0f} GB of free memory")
    database = torch.empty(rows, channels, device=s.device, dtype=s.dtype)
    for first in range(0, rows, 1 << 16):
        database[first : first + (1 << 16)] = unit(s, min(1 << 16, rows - first), channels, seed=first)
    last = torch.arange(rows - 200, rows, device=s.device)
    _, indices = nearest(database[last], database, 16, impl=implementation(s))
    return Outcome((indices[:, 0] != last).sum().item(), 0, "of 200 queries miss themselves")
