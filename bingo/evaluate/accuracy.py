"""Judge frozen features: k nearest neighbours, a linear probe, a probe on a few labels per class.

Pure functions of feature tensors (N×D, any floating dtype, CPU or GPU) and integer labels (N). They know no files and
no models. Accuracies are fractions in [0, 1]. Letters: N images, D feature dimensions, C classes, B problems at once.
"""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.errors import UserError, did_you_mean

SOLVERS = ("lbfgs", "sgd")
STREAM = 0x66657773686F74  # second Philox key word of the few-shot draws
PROBE_ELEMENTS = 1 << 24  # largest B×C×D solved at once: L-BFGS keeps about 45 fp64 copies of it
CHECKED_ROWS = 1024
LBFGS_ROUNDS = 25
LBFGS_STEPS = 200  # per round
LBFGS_GRADIENT = 1e-7  # stop here: below about 3e-8 an fp64 loss no longer tells a better step from a worse one


@dataclasses.dataclass(frozen=True, eq=False)
class LinearProbe:
    """A classifier on raw features, logits = x @ weight.T + bias, and its accuracy on the validation features.

    weight: fp32 C×D; bias: fp32 C; top1, top5: fractions (top5 is top-C when C < 5); solver: "lbfgs" or "sgd".
    """

    weight: Tensor
    bias: Tensor
    top1: float
    top5: float
    solver: str


@torch.no_grad()
def knn_accuracy(
    train_x: Tensor,
    train_y: Tensor,
    val_x: Tensor,
    val_y: Tensor,
    *,
    k: int = 10,
    temperature: float | None = 0.07,
    chunk: int = 4096,
) -> float:
    """Accuracy of a vote among the k nearest training features: `knn_accuracies` for one k."""
    found = knn_accuracies(train_x, train_y, val_x, val_y, ks=(k,), temperature=temperature, chunk=chunk)
    return found[k]


@torch.no_grad()
def knn_accuracies(
    train_x: Tensor,
    train_y: Tensor,
    val_x: Tensor,
    val_y: Tensor,
    *,
    ks: Sequence[int],
    temperature: float | None = 0.07,
    chunk: int = 4096,
) -> dict[int, float]:
    """k -> accuracy of a vote among the k nearest training features by cosine similarity, for every k in one search.

    Each neighbour votes with exp(similarity / temperature), or with 1 where temperature is None; equal votes go to the
    lower class, equal similarities to the lower training index. Rows are L2-normalised inside, a tile at a time: memory
    beyond the features is about chunk × (chunk + D + k + C) numbers for the largest k.
    Sources: BINGO (k = 10); 20 and 200, and the exponential vote, instance discrimination (Wu et al. 2018).

    `UserError`: shapes or dtypes that do not fit, negative labels, features not finite, no k, a k outside 1..N,
    temperature or chunk not positive.
    """
    train_x, train_y, val_x, val_y = _checked(train_x, train_y, val_x, val_y)
    if wrong := [k for k in ks if not 1 <= k <= len(train_x)]:
        raise UserError(f"k = {wrong[0]} is not between 1 and the number of training images, {len(train_x)}")
    if not ks:
        raise UserError("no k is given: name a number of neighbours")
    if temperature is not None and not temperature > 0:
        raise UserError(f"temperature = {temperature} is not positive: give a positive number, or None for plain votes")
    if chunk < 1:
        raise UserError(f"chunk = {chunk} is not at least 1")
    classes = int(torch.maximum(train_y.max(), val_y.max())) + 1
    right = dict.fromkeys(ks, 0)
    for x, y in zip(val_x.split(chunk), val_y.split(chunk), strict=True):
        similarity, neighbour = _nearest(F.normalize(x, dim=1), train_x, max(ks), chunk)
        # The columns are in index order, so a stable sort leaves equal similarities to the lower index.
        order = similarity.argsort(dim=1, descending=True, stable=True)
        for k in right:
            nearest = order[:, :k].sort(dim=1).values
            labels = train_y[neighbour.gather(1, nearest)]
            right[k] += int((_vote(similarity.gather(1, nearest), labels, classes, temperature) == y).sum())
    return {k: count / len(val_y) for k, count in right.items()}


def _nearest(x: Tensor, train_x: Tensor, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    """Similarity and index (rows×k, in index order) of the k nearest, keeping the best so far while tiles stream by."""
    similarity, index = x.new_empty(len(x), 0), torch.empty(len(x), 0, dtype=torch.long, device=x.device)
    for start in range(0, len(train_x), chunk):
        tile = x @ F.normalize(train_x[start : start + chunk], dim=1).T
        place = torch.arange(start, start + tile.shape[1], device=x.device).expand(len(x), -1)
        similarity, index = torch.cat([similarity, tile], 1), torch.cat([index, place], 1)
        best = _top_columns(similarity, min(k, similarity.shape[1]))
        similarity, index = similarity.gather(1, best), index.gather(1, best)
    return similarity, index


def _top_columns(values: Tensor, k: int) -> Tensor:
    """Columns of the k largest of each row, ascending; ties go to the lower column, which topk alone leaves open."""
    top, columns = values.topk(k, dim=1)
    tied = ((values >= top[:, -1:]).sum(1) > k).nonzero()[:, 0]
    if len(tied):
        columns[tied] = values[tied].argsort(dim=1, descending=True, stable=True)[:, :k]
    return columns.sort(dim=1).values


def _vote(similarity: Tensor, labels: Tensor, classes: int, temperature: float | None) -> Tensor:
    """The winning class of each row. Votes are scaled by the nearest one's, so that no temperature overflows."""
    weight = torch.ones_like(similarity, dtype=torch.float64)
    if temperature is not None:
        weight = ((similarity - similarity.amax(1, keepdim=True)).double() / temperature).exp()
    votes = weight.new_zeros(len(weight), classes).scatter_add_(1, labels, weight)
    return votes.argmax(1)


def linear_probe(
    train_x: Tensor,
    train_y: Tensor,
    val_x: Tensor,
    val_y: Tensor,
    *,
    classes: int,
    solver: str = "lbfgs",
    l2: float = 1.0,
    standardise: bool = False,
    lr: float = 30.0,
    epochs: int = 100,
    milestones: tuple[int, ...] = (60, 80),
    batch: int = 256,
    seed: int = 0,
) -> LinearProbe:
    """Train a linear classifier on frozen features and measure it on the validation features.

    The features are used as they are (meant: the backbone's average pool). With `standardise` they are shifted and
    scaled to mean 0 and deviation 1 by the statistics of the training features; that is folded into the returned weight
    and bias, which act on raw features either way.

    solver="lbfgs": multinomial logistic regression, full batch in fp64, L-BFGS with strong-Wolfe line search run to
    convergence, deterministic. It minimises the sum of cross-entropies + l2/2 · |weight|², bias free, which is
    scikit-learn's LogisticRegression(C=1/l2); the default is its C = 1. (For two classes scikit-learn fits one weight
    vector instead of two: there l2 = 2/C.) Uses `l2`; ignores the settings after `standardise`.

    solver="sgd": the ImageNet protocol (MoCo, BINGO): SGD with momentum 0.9, no weight decay, `lr` divided by 10 at
    each of `milestones`, weights from N(0, 0.01²), reshuffled each epoch from `seed`; the final epoch is reported.
    Features are extracted once, so there is no augmentation. Ignores `l2`.

    `UserError`: shapes or dtypes that do not fit, labels outside 0..classes-1, features not finite, an unknown solver,
    a setting out of range, an sgd run that diverged.
    """
    train_x, train_y, val_x, val_y = _checked(train_x, train_y, val_x, val_y, classes)
    if solver not in SOLVERS:
        raise UserError(f"unknown solver {solver!r}, {did_you_mean(solver, SOLVERS)}")
    x = train_x
    if standardise:
        mean, deviation = _statistics(train_x)
        x = ((train_x.double() - mean) / deviation).float()
    if solver == "lbfgs":
        weight, bias = (part[0] for part in _fit_softmax(x[None], train_y[None], classes, l2))
    else:
        weight, bias = _fit_sgd(x, train_y, classes, lr, epochs, milestones, batch, seed)
    if standardise:
        weight = weight.double() / deviation
        bias = bias - weight @ mean
    weight, bias = weight.float(), bias.float()
    top1, top5 = _top_accuracies(weight, bias, val_x, val_y, (1, 5))
    return LinearProbe(weight, bias, top1, top5, solver)


def fewshot_accuracy(
    train_x: Tensor,
    train_y: Tensor,
    val_x: Tensor,
    val_y: Tensor,
    *,
    classes: int,
    shots: int = 2,
    draws: int = 20,
    seed: int = 0,
    l2: float = 1.0,
) -> list[float]:
    """Validation accuracy of `draws` probes, each trained on `shots` labelled images per class (`fewshot_indices`).

    The probe is `linear_probe`'s lbfgs on L2-normalised features, same `l2`; all draws are solved as one problem.
    The images drawn depend on (train_y, classes, shots, seed, draw) only: every model sees the same ones.

    `UserError`: as `linear_probe`, and a class with fewer than `shots` training images.
    """
    train_x, train_y, val_x, val_y = _checked(train_x, train_y, val_x, val_y, classes)
    if draws < 1:
        raise UserError(f"draws = {draws} is not at least 1")
    train_x, val_x = F.normalize(train_x, dim=1), F.normalize(val_x, dim=1)
    labels = train_y.cpu().numpy()
    chosen = np.stack([fewshot_indices(labels, classes=classes, shots=shots, draw=d, seed=seed) for d in range(draws)])
    at_once = max(1, PROBE_ELEMENTS // (classes * train_x.shape[1]))
    accuracies: list[float] = []
    for group in torch.from_numpy(chosen).to(train_x.device).split(at_once):
        weights, biases = _fit_softmax(train_x[group], train_y[group], classes, l2)
        for weight, bias in zip(weights.float(), biases.float(), strict=True):
            accuracies += _top_accuracies(weight, bias, val_x, val_y, (1,))
    return accuracies


def fewshot_indices(labels: np.ndarray, *, classes: int, shots: int, draw: int, seed: int) -> np.ndarray:
    """The images of one few-shot draw: int64 classes·shots, class by class, a pure function of (labels, seed, draw).

    `UserError`: shots or seed out of range, a class with fewer than `shots` images.
    """
    counts = np.bincount(labels, minlength=classes)
    if shots < 1 or counts.min() < shots:
        poorest = int(counts.argmin())
        raise UserError(
            f"shots = {shots} is not between 1 and the number of training images of the smallest class "
            f"(class {poorest} has {counts[poorest]})"
        )
    if not 0 <= seed < 2**64:
        raise UserError(f"seed = {seed} is not between 0 and 2^64 - 1")
    # Counters of one key are 2^64 blocks apart, so no two draws overlap.
    philox = np.random.Philox(key=np.array([seed, STREAM], np.uint64), counter=np.array([0, draw, 0, 0], np.uint64))
    order = np.lexsort((np.random.Generator(philox).random(len(labels)), labels))
    first = np.cumsum(counts) - counts
    return order[(first[:, None] + np.arange(shots)).ravel()]


def _fit_softmax(x: Tensor, y: Tensor, classes: int, l2: float) -> tuple[Tensor, Tensor]:
    """Solve B independent multinomial logistic regressions at once. x: B×N×D, y: B×N. Returns fp64 B×C×D and B×C.

    Features are centred, which only moves the free bias. L-BFGS runs in rounds, each with the unknowns rescaled by the
    Hessian's diagonal at its start: the optimum is the same, and badly scaled features take far fewer steps.
    """
    if not l2 > 0:
        raise UserError(f"l2 = {l2} is not positive: without it separable features have no best weight")
    x = x.double()
    mean = x.mean(1, keepdim=True)
    x = x - mean
    fit = x.new_zeros(len(x), classes, x.shape[2] + 1)  # weight, and bias as the last column
    for _ in range(LBFGS_ROUNDS):
        fit, gradient = _lbfgs_round(fit, x, y, l2 / x.shape[1])
        if gradient <= LBFGS_GRADIENT:
            break
    else:
        warnings.warn(f"the linear probe stopped at gradient {gradient:.1e}: give a larger l2", stacklevel=3)
    weight = fit[..., :-1]
    bias = fit[..., -1] - (weight @ mean.transpose(1, 2))[..., 0]
    return weight, bias - bias.mean(1, keepdim=True)  # one constant for all classes is free: make it 0


def _lbfgs_round(fit: Tensor, x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, float]:
    """One run of L-BFGS from `fit` (B×C×(D+1)); returns the new fit and its largest (rescaled) gradient component."""
    scale = _hessian_diagonal(fit, x, penalty).rsqrt()
    unknown = (fit / scale).requires_grad_()
    optimiser = torch.optim.LBFGS(
        [unknown],
        max_iter=LBFGS_STEPS,
        history_size=20,
        tolerance_grad=LBFGS_GRADIENT,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        unknown.grad = None
        loss = _softmax_loss(unknown * scale, x, y, penalty)
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
        closure()
    return unknown.detach() * scale, float(unknown.grad.abs().max()) if unknown.grad is not None else 0.0


def _softmax_loss(fit: Tensor, x: Tensor, y: Tensor, penalty: float) -> Tensor:
    """Sum over the B problems of (mean cross-entropy + penalty/2 · |weight|²)."""
    data = F.cross_entropy(_logits(fit, x).flatten(0, 1), y.flatten(), reduction="sum") / x.shape[1]
    return data + penalty / 2 * fit[..., :-1].square().sum()


def _logits(fit: Tensor, x: Tensor) -> Tensor:
    return x @ fit[..., :-1].transpose(1, 2) + fit[:, None, :, -1]


def _hessian_diagonal(fit: Tensor, x: Tensor, penalty: float) -> Tensor:
    """Diagonal of the Hessian of `_softmax_loss`, B×C×(D+1). The bias has no penalty: a small one keeps it above 0."""
    share = _logits(fit, x).softmax(2)
    spread = (share * (1 - share)).transpose(1, 2) / x.shape[1]  # B×C×N
    return torch.cat([spread @ x.square() + penalty, spread.sum(2, keepdim=True) + 1e-6], 2)


def _fit_sgd(
    x: Tensor, y: Tensor, classes: int, lr: float, epochs: int, milestones: tuple[int, ...], batch: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Weight fp32 C×D and bias C after the last epoch. All randomness is drawn on the CPU: same on every device."""
    if not lr > 0 or epochs < 1 or batch < 1:
        raise UserError(f"lr = {lr}, epochs = {epochs} and batch = {batch} must all be positive")
    generator = torch.Generator().manual_seed(seed)
    weight = (0.01 * torch.randn(classes, x.shape[1], generator=generator)).to(x.device).requires_grad_()
    bias = torch.zeros(classes, device=x.device, requires_grad=True)
    optimiser = torch.optim.SGD([weight, bias], lr=lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, list(milestones), gamma=0.1)
    with torch.enable_grad():
        for epoch in range(epochs):
            for rows in torch.randperm(len(x), generator=generator).to(x.device).split(batch):
                optimiser.zero_grad()
                F.cross_entropy(F.linear(x[rows], weight, bias), y[rows]).backward()
                optimiser.step()
            if not weight.isfinite().all():
                raise UserError(f"the linear probe diverged in epoch {epoch + 1} at lr = {lr}: give a lower lr")
            schedule.step()
    return weight.detach(), bias.detach()


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """fp64 mean and (population) deviation of each feature; a constant feature gets deviation 1."""
    x = x.double()
    deviation = x.std(0, correction=0)
    return x.mean(0), torch.where(deviation > 0, deviation, 1.0)


@torch.no_grad()
def _top_accuracies(
    weight: Tensor, bias: Tensor, x: Tensor, y: Tensor, tops: tuple[int, ...], chunk: int = 65536
) -> list[float]:
    """Fraction of rows whose class is among the first t logits, for each t; equal logits rank by the lower class."""
    right = [0] * len(tops)
    for x_part, y_part in zip(x.split(chunk), y.split(chunk), strict=True):
        found = top_right(F.linear(x_part, weight, bias), y_part, tops)
        right = [count + more for count, more in zip(right, found, strict=True)]
    return [count / len(y) for count in right]


def top_right(logits: Tensor, y: Tensor, tops: tuple[int, ...]) -> list[int]:
    """How many of N rows (logits N×C, labels y) have their class among the first t logits, for each t.

    Equal logits rank by the lower class. Logits must be finite: a row of NaN would count as right.
    """
    own = logits.gather(1, y[:, None])
    place = torch.arange(logits.shape[1], device=logits.device)
    rank = ((logits > own) | ((logits == own) & (place < y[:, None]))).sum(1)
    return [int((rank < top).sum()) for top in tops]


def _checked(
    train_x: Tensor, train_y: Tensor, val_x: Tensor, val_y: Tensor, classes: int | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """fp32 features and int64 labels on the training features' device, or a `UserError` naming what does not fit."""
    if classes is not None and classes < 2:
        raise UserError(f"classes = {classes} is not at least 2")
    device = train_x.device
    train_x, train_y = _checked_pair("training", train_x, train_y, classes)
    val_x, val_y = _checked_pair("validation", val_x.to(device), val_y, classes)
    if train_x.shape[1] != val_x.shape[1]:
        raise UserError(f"training features have {train_x.shape[1]} dimensions, validation features {val_x.shape[1]}")
    return train_x, train_y, val_x, val_y


def _checked_pair(name: str, x: Tensor, y: Tensor, classes: int | None) -> tuple[Tensor, Tensor]:
    if x.ndim != 2 or not x.is_floating_point() or x.numel() == 0:
        raise UserError(f"{name} features must be a floating N×D tensor, not {x.dtype} of shape {tuple(x.shape)}")
    if y.shape != x.shape[:1] or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise UserError(f"{name} labels must be {len(x)} integers, not {y.dtype} of shape {tuple(y.shape)}")
    x, y = x.detach().float(), y.to(x.device, torch.long)
    wrong = ((y < 0) | (y >= classes) if classes is not None else y < 0).nonzero()[:, 0]
    if len(wrong):
        allowed = "0 or more" if classes is None else f"between 0 and {classes - 1}"
        raise UserError(f"{name} label {int(y[wrong[0]])} at index {int(wrong[0])} is not {allowed}")
    # In parts: the test makes a copy of what it looks at.
    broken = (~torch.cat([part.isfinite().all(1) for part in x.split(CHECKED_ROWS)])).nonzero()[:, 0]
    if len(broken):
        raise UserError(f"{name} feature row {int(broken[0])} is not finite (NaN or infinity): extract it again")
    return x, y
