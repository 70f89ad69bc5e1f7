"""Correctness of the kernels on this device: what a check is, the fp64 truth, `queue_softmax`'s checks.

Rule: a kernel's error against fp64 on the same inputs is at most that of plain PyTorch in the inputs' dtype plus a
tolerance: what the documented roundings can amount to. Queries, scaled by 1 / t, and weights are rounded once to the
queue's dtype (unit roundoff u, about 0.4 u as a standard deviation), everything else is fp32. To first order a rounded
query moves lse by its product with the mean key, and the mean key by its product with the keys' covariance (1 / C for
keys in random directions, and chance); rounded weights move the mean key by their spread s = sqrt(sum p^2). The factors
below make each of these about ten standard deviations. Planted data (a query that is a key, keys all opposite to it)
show a key that was left out, or one that was not there, far above any rounding.
Legend: R rows, K keys, C channels, M positives, G rows of `exclude`.
"""

import contextlib
import math
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.bench.gpu.record import Check
from bingo.kernels import queue_logsumexp, queue_ranks, queue_softmax
from bingo.kernels.device import device_capability

T = 0.2
FLOOR = 4e-6
# A query equal to a key loses at most 0.2 of its weight to the other keys of a check, and more than 0.35 without it.
LOST = 0.25
ROUNDOFF = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
# Where impl "hopper" has no excuse: capability 9.0 and these, in keys of whole tiles. Base-2 logits of unit rows up to:
HOPPER_CHANNELS, HOPPER_TILE = (64, 128, 192, 256), 128
HOPPER_MOST_CHANNELS_EXCLUDED = 128
HOPPER_SCALE = {torch.bfloat16: 100.0, torch.float16: 14.0}
ROWS_AT_ONCE = 512


class Skip(Exception):
    """Why a check does not apply here."""


class Outcome(NamedTuple):
    """A check passed if error <= bound; NaN fails."""

    error: float
    bound: float
    note: str = ""


Task = Callable[[], Outcome]


@dataclass(frozen=True)
class Setting:
    """What is being checked: implementation and queue dtype on a device; quick: small shapes."""

    device: torch.device
    impl: str
    dtype: torch.dtype
    quick: bool


def need_cuda(s: Setting) -> None:
    """`Skip` on anything else."""
    if s.device.type != "cuda":
        raise Skip("needs a CUDA device")


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """Anything in PyTorch that makes the host wait for the device is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mode announces itself as experimental
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def perform(group: str, name: str, task: Task) -> Check:
    """Run one check; whatever happens becomes a record."""
    began = time.perf_counter()
    error: float | None = None
    bound: float | None = None
    try:
        with np.errstate(all="ignore"):  # Triton's interpreter warns of the infinities that the kernels expect
            error, bound, note = task()
        status = "passed" if error <= bound else "failed"
    except Skip as reason:
        status, note = "skipped", str(reason)
    except Exception as problem:  # a check must not stop the others
        where = traceback.extract_tb(problem.__traceback__)[-1]
        text = (str(problem).strip() or "no message").splitlines()[0]
        status, note = (
            "failed",
            f"{type(problem).__name__}: {text} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})",
        )
    return record(group, name, status, note, error=error, bound=bound, seconds=time.perf_counter() - began)


def record(
    group: str, name: str, status: str, note: str, *,
    error: float | None = None, bound: float | None = None, seconds: float = 0.0,
) -> Check:  # fmt: skip
    """One check as JSON-ready values; ok is None where it was skipped or missed, an error that is no number a word."""
    ok = {"passed": True, "failed": False}.get(status)
    shown = error if error is None or math.isfinite(error) else str(error)
    return {"group": group, "name": name, "status": status, "ok": ok, "error": shown, "bound": bound, "note": note,
            "seconds": round(seconds, 3)}  # fmt: skip


def worst(*parts: tuple[str, float, float]) -> Outcome:
    """The (label, error, bound) that uses most of its bound."""
    label, error, bound = max(parts, key=lambda part: math.inf if math.isnan(part[1]) else part[1] / part[2])
    return Outcome(error, bound, label)


@contextlib.contextmanager
def allowed(s: Setting, keys: int, channels: int, temperature: float, *, exclude: bool = False) -> Iterator[None]:
    """A refusal by impl "hopper" is no failure outside its domain, which has few excluded ids and few channels then."""
    try:
        yield
    except (ValueError, ImportError) as error:
        capable = device_capability(s.device) == (9, 0)
        scale = math.log2(math.e) / temperature
        inside = capable and channels in HOPPER_CHANNELS and not keys % HOPPER_TILE
        inside = inside and not (exclude and channels > HOPPER_MOST_CHANNELS_EXCLUDED)
        if s.impl == "hopper" and not (inside and scale <= HOPPER_SCALE.get(s.dtype, 0.0)):
            raise Skip(str(error)) from error
        raise


class Truth(NamedTuple):
    """fp64 lse (R) and mean key (R, C), and the largest row's spread of the softmax."""

    lse: Tensor
    mean: Tensor
    spread: float

    def tolerance(self, dtype: torch.dtype, temperature: float, length: float = 1.0) -> tuple[float, float]:
        """Absolute errors of lse and mean key that the documented roundings explain."""
        u, root = ROUNDOFF[dtype], math.sqrt(self.mean.shape[1])
        finite = self.lse[self.lse.isfinite()].abs()
        largest = finite.max().item() if len(finite) else 0.0
        span = self.mean.norm(dim=1).max().item() if len(self.mean) else 0.0
        logit = u * length / (temperature * root)
        lse = FLOOR + 1e-6 * largest + 5 * logit * span
        return lse, FLOOR + 6 * (u * self.spread + 3 * logit * (self.spread + 1 / root)) / root


def truth(
    q: Tensor, queue: Tensor, temperature: float, exclude: Tensor | None = None, ids: Tensor | None = None,
    values: Tensor | None = None,
) -> Truth:  # fmt: skip
    """The definition in fp64, a block of rows at a time; row i reads line i % G of exclude."""
    queue = queue.double()
    averaged = queue if values is None else values.double()
    parts = []
    for first in range(0, max(1, len(q)), ROWS_AT_ONCE):
        block = q[first : first + ROWS_AT_ONCE].double()
        logits = (block @ queue.T) / temperature
        if exclude is not None and ids is not None:
            lines = exclude[torch.arange(first, first + len(block), device=q.device) % len(exclude)]
            out = ((ids[None, :, None] == lines[:, None]) & (lines >= 0)[:, None]).any(2)
            logits.masked_fill_(out, -torch.inf)
        lse = torch.logsumexp(logits, 1)
        weights = torch.exp(logits - lse[:, None]).nan_to_num_(0.0)
        parts.append((lse, weights @ averaged, weights.square_().sum(1).sqrt()))
    lse, mean, spread = (torch.cat(column) for column in zip(*parts, strict=True))
    return Truth(lse, mean, spread.max().item() if len(spread) else 0.0)


def same_dtype(q: Tensor, queue: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Plain PyTorch with everything in the inputs' dtype."""
    parts = []
    for block in q.split(ROWS_AT_ONCE):
        logits = (block @ queue.T) / temperature
        parts.append((torch.logsumexp(logits, 1), torch.softmax(logits, 1) @ queue))
    lse, mean = (torch.cat(column) for column in zip(*parts, strict=True))
    return lse, mean


def far(ours: Tensor, exact: Tensor) -> float:
    """Largest absolute difference; equal infinities do not differ, NaN does; 0 for empty tensors."""
    assert ours.shape == exact.shape, f"shape {tuple(ours.shape)}, not {tuple(exact.shape)}"
    if not ours.numel():
        return 0.0
    gap = torch.where(ours == exact, 0.0, (ours.double() - exact.double()).abs())
    return math.nan if gap.isnan().any() else gap.max().item()


def against(exact: Truth, lse: Tensor, mean: Tensor, bounds: tuple[float, float]) -> Outcome:
    """lse (R) and mean key (R, C) against the truth, within absolute errors."""
    return worst(("lse", far(lse, exact.lse), bounds[0]), ("mean key", far(mean, exact.mean), bounds[1]))


def among_nan(s: Setting, before: int, rows: int, after: int, channels: int) -> Tensor:
    """(rows, channels) of NaN in the setting's dtype to be filled, with rows of NaN before and after it in memory."""
    whole = torch.full((before + rows + after, channels), math.nan, device=s.device, dtype=s.dtype)
    return whole[before : before + rows]


def unit(s: Setting, *shape: int, seed: int, dtype: torch.dtype | None = None) -> Tensor:
    """Random rows of length one, in the setting's dtype or another."""
    generator = torch.Generator(s.device).manual_seed(seed)
    rows = torch.randn(*shape, generator=generator, device=s.device)
    return F.normalize(rows, dim=-1).to(dtype or s.dtype)


def against_rule(
    s: Setting, q: Tensor, queue: Tensor, lse: Tensor, mean: Tensor, alone: Tensor, *, spread: float | None = None
) -> Outcome:
    """lse (R), mean key (R, C) and the loss-only path's lse (R) against the rule; spread: in place of the truth's."""
    exact, peer = truth(q, queue, T), same_dtype(q, queue, T)
    tolerances = (exact if spread is None else exact._replace(spread=spread)).tolerance(s.dtype, T)
    bounds = [far(p, e) + t for p, e, t in zip(peer, exact[:2], tolerances, strict=True)]
    return worst(
        ("lse", far(lse, exact.lse), bounds[0]), ("mean key", far(mean, exact.mean), bounds[1]),
        ("lse alone", far(alone, exact.lse), bounds[0]),
    )  # fmt: skip


def accuracy(
    s: Setting, rows: int, keys: int, channels: int, *, unit_rows: bool = True, lse_only: bool = False
) -> Outcome:
    """lse and mean key of random unit rows against the rule."""
    q, queue = unit(s, rows, channels, seed=0), unit(s, keys, channels, seed=1)
    with allowed(s, keys, channels, T):
        lse, mean = queue_softmax(q, queue, T, impl=s.impl, unit_rows=unit_rows)
        alone = queue_logsumexp(q, queue, T, impl=s.impl, unit_rows=unit_rows) if lse_only else lse
    assert lse.dtype == mean.dtype == torch.float32
    return against_rule(s, q, queue, lse, mean, alone)


def clustered(s: Setting, rows: int, keys: int, channels: int) -> Outcome:
    """Keys around 64 centres, queries near one of them: roundings no longer average out, so the spread counts as 1."""
    centres = unit(s, 64, channels, seed=2, dtype=torch.float32)
    draw = torch.Generator(s.device).manual_seed(3)
    where = torch.randint(64, (rows + keys,), generator=draw, device=s.device)
    noise = torch.randn(rows + keys, channels, generator=draw, device=s.device) * (0.5 / math.sqrt(channels))
    points = F.normalize(centres[where] + noise, dim=1).to(s.dtype)
    q, queue = points[:rows], points[rows:].contiguous()
    with allowed(s, keys, channels, T):
        lse, mean = queue_softmax(q, queue, T, impl=s.impl)
    return against_rule(s, q, queue, lse, mean, lse, spread=1.0)


def every_key_counts(s: Setting, keys: int, channels: int, temperature: float) -> Outcome:
    """Each key in turn is the query and has most weight: 1 - mean . key is near 0, and near 1 if it was left out."""
    queue = unit(s, keys, channels, seed=4)
    lost = 0.0
    for block in queue.split(3072):
        with allowed(s, keys, channels, temperature):
            _, mean = queue_softmax(block, queue, temperature, impl=s.impl, unit_rows=True)
        found = (mean * block.float()).sum(1).min().item()
        lost = math.nan if math.isnan(found) else max(lost, 1 - found)
        if math.isnan(lost):
            break
    return Outcome(lost, LOST, "1 - mean key . key")


def nothing_else_counts(s: Setting, keys: int, channels: int, temperature: float) -> Outcome:
    """All keys opposite to the queries: a zero row read past the queue would outweigh them. Both lie among NaN."""
    towards = unit(s, 1, channels, seed=5, dtype=torch.float32)
    draw = torch.Generator(s.device).manual_seed(6)
    noise = 0.2 / math.sqrt(channels)
    q, queue = among_nan(s, 8, 65, 8, channels), among_nan(s, 16, keys, 284, channels)
    for rows, sign in ((q, 1), (queue, -1)):
        spots = sign * towards + noise * torch.randn(rows.shape, generator=draw, device=s.device)
        rows.copy_(F.normalize(spots, dim=1))
    with allowed(s, keys, channels, temperature):
        lse, mean = queue_softmax(q, queue, temperature, impl=s.impl, unit_rows=True)
    return against(truth(q, queue, temperature), lse, mean, (0.1, 0.05))


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fresh tensors are full of NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(False)


def every_output_is_written(s: Setting, rows: int, keys: int, channels: int) -> Outcome:
    """Outputs and partials begin as NaN, inputs lie among NaN."""
    q, queue = among_nan(s, 4, rows, 5, channels), among_nan(s, 5, keys, 4, channels)
    q.copy_(unit(s, rows, channels, seed=0))
    queue.copy_(unit(s, keys, channels, seed=1))
    with poisoned_memory(), allowed(s, keys, channels, T):
        assert q.new_empty(3, dtype=torch.float32).isnan().all(), "fresh memory is not filled with NaN"
        lse, mean = queue_softmax(q, queue, T, impl=s.impl)
        alone = queue_logsumexp(q, queue, T, impl=s.impl)
    return against_rule(s, q, queue, lse, mean, alone)


def stays_finite(s: Setting, keys: int, channels: int, length: float, temperature: float) -> Outcome:
    """Rows of any length at low temperature, each along a key: the softmax is that key alone."""
    queue = unit(s, keys, channels, seed=1)
    which = torch.arange(64, device=s.device) * 7919 % keys
    which[0] = keys - 1
    q = (length * queue[which].float()).to(s.dtype)
    with allowed(s, keys, channels, temperature):
        lse, mean = queue_softmax(q, queue, temperature, impl=s.impl)
    exact, u = truth(q, queue, temperature), ROUNDOFF[s.dtype]
    bound = exact.tolerance(s.dtype, temperature, length)[0]
    return against(exact, lse, mean, (bound, FLOOR + 2 * u))


def excludes(s: Setting, rows: int, keys: int, channels: int) -> Outcome:
    """Ids in common with a row's line are left out, negative ones never are; one line excludes no key at all."""
    draw = torch.Generator(s.device).manual_seed(7)
    ids = torch.randint(-2, 40, (keys,), generator=draw, device=s.device)
    exclude = torch.randint(-2, 40, (rows // 3, 3), generator=draw, device=s.device)
    exclude[0] = -1
    q, queue = unit(s, rows, channels, seed=0), unit(s, keys, channels, seed=1)
    with allowed(s, keys, channels, T, exclude=True):
        lse, mean = queue_softmax(q, queue, T, impl=s.impl, exclude=exclude, queue_ids=ids)
    exact = truth(q, queue, T, exclude, ids)
    return against(exact, lse, mean, exact.tolerance(s.dtype, T))


def excludes_everything(s: Setting, keys: int, channels: int) -> Outcome:
    """A row without any key has lse -inf and mean key 0, and its neighbours do not notice."""
    ids = torch.full((keys,), 7, device=s.device)
    exclude = torch.tensor([[7], [8]], device=s.device)
    q, queue = unit(s, 6, channels, seed=0), unit(s, keys, channels, seed=1)
    with allowed(s, keys, channels, T, exclude=True):
        lse, mean = queue_softmax(q, queue, T, impl=s.impl, exclude=exclude, queue_ids=ids)
    exact = truth(q, queue, T, exclude, ids)
    assert lse[0] == -math.inf, f"lse of a row without keys is {lse[0].item()}"
    assert not mean[::2].any(), "mean key of a row without keys is not 0"
    return against(exact, lse, mean, exact.tolerance(s.dtype, T))


def averages_values(s: Setting, rows: int, keys: int, channels: int) -> Outcome:
    """The softmax over the queue averages the rows of another matrix."""
    q, queue, values = (unit(s, count, channels, seed=seed) for seed, count in enumerate((rows, keys, keys)))
    lse, mean = queue_softmax(q, queue, T, impl=s.impl, values=values)
    exact, of_keys = truth(q, queue, T, values=values), truth(q, queue, T)
    return against(exact, lse, mean, (of_keys.tolerance(s.dtype, T)[0], exact.tolerance(s.dtype, T)[1]))


def counts_ranks(s: Setting, rows: int, keys: int, channels: int) -> Outcome:
    """Counts lie between those with the score moved up and down by the rounding of a product."""
    q, queue = unit(s, rows, channels, seed=0), unit(s, keys, channels, seed=1)
    scores = (q[:, None].double() * unit(s, rows, 2, channels, seed=2).double()).sum(2).float()
    ids = torch.arange(keys, device=s.device) % 5
    exclude = torch.tensor([[3, -1]], device=s.device)
    with allowed(s, keys, channels, T):
        found = queue_ranks(q, queue, scores, impl=s.impl, exclude=exclude, queue_ids=ids)
    outside = 0
    for first in range(0, rows, ROWS_AT_ONCE):
        block = slice(first, first + ROWS_AT_ONCE)
        z = (q[block].double() @ queue.double().T).masked_fill_((ids == 3)[None], -math.inf)
        for m in range(2):
            score = scores[block, m, None].double()
            least, most = ((z > score + shift).sum(1) for shift in (1e-5, -1e-5))
            outside += int(((found[block, m] < least) | (found[block, m] > most)).sum())
    return Outcome(outside, 0, "wrong counts")


def takes_other_inputs(s: Setting, keys: int, channels: int) -> Outcome:
    """Queries with other strides, and fp32 queries with a half-precision queue."""
    queue = unit(s, keys, channels, seed=1)
    strided = unit(s, channels, 9, seed=0).T
    wide = unit(s, 9, channels, seed=0, dtype=torch.float32)
    parts = []
    for name, q in (("strided", strided), ("fp32 queries", wide)):
        with allowed(s, keys, channels, T):
            lse, mean = queue_softmax(q, queue, T, impl=s.impl)
        exact = truth(q, queue, T)
        bounds = exact._replace(spread=1.0).tolerance(s.dtype, T, q.float().norm(dim=1).max().item())
        parts += [(f"lse, {name}", far(lse, exact.lse), bounds[0]), (f"mean, {name}", far(mean, exact.mean), bounds[1])]
    return worst(*parts)
