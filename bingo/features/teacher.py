"""A network of others made a teacher: kept with its own head, or given one that its features or a seed decide.

Distillation needs keys of a few channels. Where a network has no projection head, a linear one stands for it: the first
principal components of its pooled features, or fixed orthogonal directions. It is made once, recorded with its hashes,
and read by `features`, `keys` and `distill` as a teacher of one's own. Legend: N images, D features, C channels.
"""

import logging
from typing import Any

import numpy as np
import torch

from bingo.config import TeacherConfig
from bingo.distributed import World
from bingo.errors import UserError
from bingo.features.alike import load_same
from bingo.features.extract import load_features
from bingo.files import write_sealed
from bingo.models import Encoder, save_encoder
from bingo.models.heads import Head
from bingo.paths import quoted

log = logging.getLogger(__name__)

CHUNK = 1 << 14
"""Rows whose products are summed together."""
FLAT = 1e-9
"""Share of the largest variance below which a direction counts as none."""


def run(config: TeacherConfig, key: str, world: World) -> dict[str, Any]:
    """Write `model.pt` and `teacher.json`: what it was made of, and how much of the variance its keys keep.

    The content hash is that of the given network: its features and bags are those of the new teacher.
    """
    own, size = config.head == "own", config.augment.size
    encoder, content = load_same(config.model, size, world, head=own, arch=config.arch)
    encoder.cpu()
    record: dict[str, Any] = {"network": encoder.name, "from": content, "head": config.head, "dim": encoder.dim}
    given = encoder
    if not own:
        form, tensors, facts = Head(), dict[str, torch.Tensor](), dict[str, Any]()
        if config.head != "none":
            weight, bias, facts = _projection(config, encoder, content, world)
            form, tensors = Head("L", (len(weight),)), {"head.0.weight": weight, "head.0.bias": bias}
        given = Encoder(encoder.name, head=form)
        state = {n: v for n, v in encoder.state_dict().items() if n.startswith("backbone.")}
        given.load_state_dict({**state, **tensors})
        record |= {"dim": given.dim, **facts}
    save_encoder(config.out / "model.pt", given, content=content)
    write_sealed(config.out / "teacher.json", record)
    return {name: record[name] for name in ("network", "head", "dim", "variance") if name in record}


def _projection(
    config: TeacherConfig, encoder: Encoder, content: str, world: World
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Weight (C x D) and bias (C) fp32 of the head, and what to record of it."""
    width, dim = encoder.feature_dim, config.dim
    if dim > width:
        raise UserError(f"--dim {dim} is more than the {width} features of {config.model}; lower --dim")
    if config.head == "orthogonal":
        return orthogonal(dim, width, config.seed), torch.zeros(dim), {"seed": config.seed}
    assert config.features is not None
    rows_ND, header = load_features(config.features, world)
    if header["teacher"] != content:
        raise UserError(
            f"{config.features} holds features of another network than {config.model} (content hash "
            f"{header['teacher']}, not {content}); make them with `bingo features --model {quoted(config.model)}`"
        )
    mean, components, variances = principal_components(rows_ND)
    useful = int((variances > FLAT * variances[0]).sum())
    if dim > useful:
        raise UserError(
            f"--dim {dim} is more than the {useful} directions in which the {len(rows_ND)} rows of {config.features} "
            "differ; lower --dim, or give features of more images"
        )
    kept = float(variances[:dim].sum() / variances.sum())
    scale = 1 / variances[:dim].sqrt() if config.whiten else torch.ones(dim, dtype=torch.float64)
    weight = components[:dim] * scale[:, None]
    facts = {"features": header["hash"], "images": len(rows_ND), "whiten": config.whiten, "variance": round(kept, 6)}
    return weight.float(), -(weight @ mean).float(), facts


def orthogonal(dim: int, width: int, seed: int) -> torch.Tensor:
    """C x D fp32 with orthonormal rows, a function of the seed: uniform over all such (Haar)."""
    drawn = torch.randn(width, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q, r = torch.linalg.qr(drawn)
    return (q * r.diagonal().sign()).T.contiguous().float()


def principal_components(rows_ND: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean (D), components (D x D, a row each, largest variance first) and their variances (D), all fp64.

    Of each component the entry of largest magnitude is positive, so the sign is not left to the solver.
    """
    width = rows_ND.shape[1]
    total, products = torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
    for start in range(0, len(rows_ND), CHUNK):
        rows = torch.from_numpy(np.asarray(rows_ND[start : start + CHUNK], dtype=np.float64))
        total += rows.sum(0)
        products += rows.T @ rows
    mean = total / len(rows_ND)
    covariance = products / len(rows_ND) - torch.outer(mean, mean)
    variances, vectors = torch.linalg.eigh(covariance)
    components = vectors.T.flip(0)
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    return mean, components * largest.sign(), variances.flip(0).clamp(min=0)
