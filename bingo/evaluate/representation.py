"""Judge features without labels: the directions they use, how evenly they spread, what is dead, whose neighbours agree.

Pure functions of feature tensors (N×D, any floating dtype, CPU or GPU). Samples are evenly spaced rows, so that they
are the same at each call and, of images sorted by class, hold each class.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

RANK_ROWS = 25_600
"""Rows that RankMe looks at, as its authors do."""
PAIR_ROWS = 2_048
"""Rows of which all pairs are compared."""
DEAD = 0.01
"""Share of the median channel's deviation up to which a channel counts as dead."""
EPSILON = 1e-7
"""What RankMe adds to each singular value's share, for fp32."""
CHUNK = 4096


def spaced(count: int, most: int) -> Tensor:
    """Numbers of at most `most` of `count` rows, evenly spaced; int64 on the CPU."""
    rows = min(count, most)
    return torch.arange(rows) * count // max(rows, 1)


@torch.no_grad()
def rank_me(x: Tensor) -> float:
    """exp of the entropy of the singular values' shares, 1 to D: how many directions the features use.

    Source: RankMe (Garrido et al. 2023), of features that are not centred: p_k = s_k / sum(s) + 1e-7. The singular
    values come from the fp64 Gram matrix (D×D), so that memory beyond the features is small.
    """
    gram = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for part in x.split(CHUNK):
        wide = part.double()
        gram += wide.T @ wide
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    shares = values / values.sum().clamp_min(torch.finfo(torch.float64).tiny) + EPSILON
    return float((-(shares * shares.log()).sum()).exp())


@torch.no_grad()
def uniformity(x: Tensor) -> float:
    """log of the mean over pairs of exp(-2 |a - b|²) of unit rows: 0 where all are equal, down to about -4.

    Source: Wang and Isola 2020, t = 2. All pairs of N rows are held at once. Of a single row it is 0.
    """
    unit, rows = F.normalize(x.double(), dim=1), len(x)
    if rows < 2:
        return 0.0
    close = (-2 * (2 - 2 * unit @ unit.T)).exp().fill_diagonal_(0)
    return float((close.sum() / (rows * (rows - 1))).log())


@torch.no_grad()
def dead_dimensions(x: Tensor) -> int:
    """Channels that hardly change from image to image: deviation at most `DEAD` of the median channel's, or 0."""
    deviation = x.double().std(dim=0, correction=0)
    return int((deviation <= DEAD * deviation.median()).sum())


@torch.no_grad()
def neighbour_agreement(a: Tensor, b: Tensor) -> float:
    """Share of images that have the same nearest other image (cosine) by both; a, b: rows of the same N images.

    Widths may differ. Two representations that know nothing of each other agree on 1 / (N - 1).
    """
    nearest = []
    for x in (a, b):
        unit = F.normalize(x.double(), dim=1)
        nearest.append((unit @ unit.T).fill_diagonal_(-2).argmax(dim=1))
    return float((nearest[0] == nearest[1]).double().mean())


def described(x: Tensor) -> dict[str, float]:
    """What a line of an evaluation says of the features (N×D) of a dataset, see the functions above.

    `rankme` and `dead_dimensions` of `rankme_rows` rows, `uniformity` of `PAIR_ROWS`; four digits: on other devices
    the ones behind them are others.
    """
    rows = x[spaced(len(x), RANK_ROWS).to(x.device)]
    return {
        "rankme": four_digits(rank_me(rows)),
        "rankme_rows": len(rows),
        "uniformity": four_digits(uniformity(x[spaced(len(x), PAIR_ROWS).to(x.device)])),
        "dead_dimensions": dead_dimensions(rows),
    }


def four_digits(value: float) -> float:
    return float(f"{value:.4g}")
