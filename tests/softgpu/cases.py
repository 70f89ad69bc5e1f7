"""Calls of every kernel on the executor, judged against fp64: what the mutations run, and fuzzing with random shapes.

A case is a dict that JSON can hold: its family, and the arguments of that family's function. Each function returns the
largest error as a multiple of what is allowed, so that at most 1 is right, and raises what the executor raises.
"""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.kernels import NewKeys, augment, bag_loss, dispatch, nearest
from bingo.kernels import triton_combine as ends
from bingo.kernels import triton_queue_softmax as portable
from bingo.kernels.request import Request
from tests.softgpu.truth import excluded, truth, unit, worst
from tests.support.on_gpu import on_gpu
from tests.support.poison import poison_fresh_memory
from tests.support.views import MEAN, STD, make_images, make_params

Case = dict[str, Any]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
WRONG = math.inf


def run(case: Case, prepare: Callable[[Any], None] = lambda gpu: None) -> float:
    """The verdict on one case; fresh memory is full of NaN, so that what a kernel leaves unwritten shows.

    prepare: is given the pretended GPU first, to edit code or to keep it for its log.
    """
    settings = dict(case)
    family, arch = FAMILIES[settings.pop("family")], settings.pop("arch")
    options = {name: settings.pop(name) for name in ("policy", "races") if name in settings}
    options["multiprocessors"] = settings.pop("sms", 2)
    # Triton's own pipeliner leaves the proxy fence out, so what it made of the portable kernel is not judged by it.
    whole = settings.get("keys", 0) % 128 == 0 and settings.get("unit_rows", True)
    options["strict"] = settings.get("impl") == "hopper" and whole
    with pytest.MonkeyPatch.context() as patch, on_gpu(arch, seed=settings["seed"], **options) as gpu:
        poison_fresh_memory(patch)
        prepare(gpu)
        return family(random.Random(settings["seed"]), torch.Generator().manual_seed(settings.pop("seed")), **settings)


def rows_of(generator: torch.Generator, *shape: int, length: float = 1.0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1) * length


def request_of(rng: random.Random, generator: torch.Generator, *, impl: str, rows: int, keys: int, channels: int,
               dtype: str = "bf16", q_dtype: str | None = None, normalize: bool = False, unit_rows: bool = True,
               grad: bool = True, excluded_ids: int = 0, groups: int = 1, temperature: float = 0.2,
               length: float = 1.0, one_id: bool = False, values: bool = False) -> Request:  # fmt: skip
    """A request with random rows. length: of the queue's keys; groups: rows of the excluded ids; one_id: all keys have
    the same, so that rows that exclude it are left without any; values: other rows are averaged."""
    q = rows_of(generator, rows, channels, length=2.5 if normalize else 1.0).to(DTYPES[q_dtype or dtype])
    queue = rows_of(generator, keys, channels, length=length).to(DTYPES[dtype])
    ids = exclude = None
    if excluded_ids:
        most = 1 if one_id else 30
        ids = torch.randint(0, most, (keys,), generator=generator)
        exclude = torch.randint(-1, most, (groups, excluded_ids), generator=generator)
    averaged = rows_of(generator, keys, channels).to(DTYPES[dtype]) if values else None
    return Request(q, queue, temperature, impl, exclude, ids, unit_rows, normalize, grad, averaged)


def run_softmax(rng: random.Random, generator: torch.Generator, *, splits: int | None = None, **settings: Any) -> float:
    """Partials of every split and their join."""
    request = request_of(rng, generator, **settings)
    lse, mean = ends.combine(*dispatch.partials(request, splits=splits), request.q_RC.shape[1], grad=request.grad)
    true = truth(request)
    off = worst(lse, true.lse, true.lse_slack)
    return max(off, worst(mean, true.mean, true.mean_slack)) if request.grad else off


def run_bag(rng: random.Random, generator: torch.Generator, *, batch: int, views: int, positives: int, new: int,
            new_ids: bool = True, **settings: Any) -> float:  # fmt: skip
    """Loss, gradient and the write of new keys, by the public op."""
    request = request_of(rng, generator, rows=batch * views, **settings)
    q, queue, channels = request.q_RC, request.queue_KC, request.q_RC.shape[1]
    keys = rows_of(generator, batch, positives, channels)
    weights = torch.rand(views, positives, generator=generator)
    start = rng.randrange(len(queue))
    ids = request.queue_ids_K
    fresh = NewKeys(
        torch.randn(new, channels, generator=generator).to(q.dtype), torch.tensor([start, 0]),
        torch.arange(1000, 1000 + new) if new_ids and ids is not None else None,
    )  # fmt: skip
    expected = _bag_truth(request, keys, weights)
    after = _ring_after(queue, ids, fresh)
    q = q.requires_grad_(request.grad)
    loss = bag_loss(
        q, keys, weights, queue, request.temperature, normalize=request.normalize, impl=request.impl,
        exclude=request.exclude_GE, queue_ids=ids, unit_rows=request.unit_rows, new_keys=fresh if new else None,
    )  # fmt: skip
    off = worst(loss.detach(), *expected[:2])
    if request.grad:
        loss.sum().backward()
        off = max(off, worst(q.grad, *expected[2:]))  # type: ignore[arg-type]
    same = torch.equal(queue, after[0]) and (ids is None or torch.equal(ids, after[1]))
    return off if same and torch.equal(fresh.cursor, after[2]) else WRONG


def _bag_truth(request: Request, keys: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss (R) and gradient (R, C) in fp64, each followed by what it may be off by."""
    true, q = truth(request), request.q_RC.double()
    at = unit(q) if request.normalize else q
    rows, inverse = torch.arange(len(q)), 1 / request.temperature
    k = keys.double()[rows % len(keys)]
    w = weights.double()[rows // (len(q) // len(weights))]
    x = true.lse[:, None] - (at[:, None] * k).sum(2) * inverse
    loss = (w * F.softplus(x)).sum(1)
    loss_slack = w.sum(1) * (true.lse_slack + 1e-5)
    pull = w * torch.sigmoid(x) * inverse
    grad = (pull[..., None] * (true.mean[:, None] - k)).sum(1)
    apart = (true.mean[:, None] - k).abs().amax(2)
    slack = (w.sum(1) * inverse)[:, None] * true.mean_slack
    slack = slack + (w * inverse * apart).sum(1)[:, None] * (true.lse_slack / 4 + 1e-5)[:, None]
    if request.normalize:
        length = q.norm(dim=1, keepdim=True)
        grad = (grad - (grad * at).sum(1, keepdim=True) * at) / length
        slack = (slack + (slack * at.abs()).sum(1, keepdim=True) * at.abs()) / length
    return loss, loss_slack, grad, slack + torch.finfo(request.q_RC.dtype).eps * grad.abs()


def _ring_after(queue: Tensor, ids: Tensor | None, new: NewKeys) -> tuple[Tensor, Tensor | None, Tensor]:
    queue, ids, start = queue.clone(), None if ids is None else ids.clone(), int(new.cursor[0])
    for i, key in enumerate(new.keys):
        queue[(start + i) % len(queue)] = key.to(queue.dtype)
        if ids is not None and new.ids is not None:
            ids[(start + i) % len(queue)] = new.ids[i]
    return queue, ids, torch.tensor([(start + len(new.keys)) % len(queue), 0])


def run_ranks(rng: random.Random, generator: torch.Generator, *, positives: int, **settings: Any) -> float:
    """Keys that beat a score; those within the rounding of fp32 sums may count or not."""
    request = request_of(rng, generator, **settings)
    scores = torch.randn(len(request.q_RC), positives, generator=generator) * 0.1
    z = (request.q_RC.double() @ request.queue_KC.double().T).masked_fill(excluded(request), -math.inf)
    least, most = ((z[:, None] > scores.double()[..., None] + near).sum(2) for near in (1e-6, -1e-6))
    found = portable.ranks(request, scores)
    return 0.0 if bool(((least <= found) & (found <= most)).all()) else WRONG


def run_nearest(rng: random.Random, generator: torch.Generator, *, queries: int, rows: int, channels: int, k: int,
                dtype: str) -> float:  # fmt: skip
    """Every list holds k different rows with their own scores, and none that is left out beats the worst of them."""
    q = torch.randn(queries, channels, generator=generator).to(DTYPES[dtype])
    database = torch.randn(rows, channels, generator=generator).to(DTYPES[dtype])
    own = torch.randint(-1, rows, (queries,), generator=generator)
    scores, indices = nearest(q, database, k, exclude=own, impl="triton")
    z = q.double() @ database.double().T
    z[torch.arange(queries)[own >= 0], own[own >= 0]] = -math.inf
    expected = torch.full((queries, k), -math.inf, dtype=torch.float64)
    best = z.topk(min(k, rows), 1).values
    expected[:, : best.shape[1]] = best
    slack = 1e-6 * channels
    off = worst(scores, expected, slack)
    for score, index in zip(scores, indices, strict=True):
        live = index >= 0
        if (
            index.max() >= rows
            or len(set(index[live].tolist())) != int(live.sum())
            or not torch.equal(live, score > -math.inf)
        ):
            return WRONG
    held = indices >= 0
    mine = z.gather(1, indices.clamp_min(0))
    return max(off, worst(scores[held], mine[held], slack))


def run_augment(rng: random.Random, generator: torch.Generator, *, count: int, height: int, width: int, taps: int,
                dtype: str) -> float:  # fmt: skip
    """The chain against plain PyTorch: a pixel may be one level off, and few are."""
    images, params = make_images(count, height, width), make_params(count)
    settings = {"mean": MEAN, "std": STD, "blur_kernel": taps, "dtype": DTYPES[dtype]}
    found = augment(images, params, impl="triton", **settings).double()
    expected = augment(images, params, impl="reference", **settings).double()
    others = (found != expected).double().mean().item()
    level = 1.01 / 255 / min(STD) + torch.finfo(DTYPES[dtype]).eps * expected.abs()
    return max(worst(found, expected, level), others / max(0.001, 4 / found.numel()))


FAMILIES: dict[str, Callable[..., float]] = {
    "softmax": run_softmax,
    "bag": run_bag,
    "ranks": run_ranks,
    "nearest": run_nearest,
    "augment": run_augment,
}
