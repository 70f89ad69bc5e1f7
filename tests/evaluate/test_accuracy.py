"""Evaluation against scikit-learn on the same features: the bundled digits and random projections of them."""

import functools
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.errors import UserError
from bingo.evaluate import accuracy as evaluate

pytest.importorskip("sklearn")
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

CLASSES = 10


@functools.cache
def digits(kind: str = "pixels") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and validation features (fp32) and labels; "pooled" is like an average pool: positive, correlated."""
    x, y = load_digits(return_X_y=True)
    if kind == "pooled":
        x = np.maximum(x @ np.random.default_rng(0).standard_normal((64, 48)) / 32, 0)
    features, labels = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    return features[:1000], labels[:1000], features[1000:], labels[1000:]


def sklearn_fit(x: Tensor, y: Tensor, inverse_l2: float, *, scale: bool = False):
    model = LogisticRegression(C=inverse_l2, tol=1e-9, max_iter=20000)
    return (make_pipeline(StandardScaler(), model) if scale else model).fit(x.double().numpy(), y.numpy())


@pytest.mark.parametrize("kind", ["pixels", "pooled"])
@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (10, 0.07), (20, 0.5), (10, None)])
def test_knn_equals_scikit_learn(kind, k, temperature):
    train_x, train_y, val_x, val_y = digits(kind)
    weights = "uniform" if temperature is None else lambda distance: np.exp((1 - distance) / temperature)
    oracle = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=weights)
    oracle.fit(train_x.double().numpy(), train_y.numpy())
    predicted = torch.from_numpy(oracle.predict(val_x.double().numpy()))
    setting = {"k": k, "temperature": temperature}
    assert evaluate.knn_accuracy(train_x, train_y, val_x, predicted, **setting) == 1.0  # image by image
    accuracy = evaluate.knn_accuracy(train_x, train_y, val_x, val_y, **setting)
    assert accuracy == pytest.approx(oracle.score(val_x.double().numpy(), val_y.numpy()), abs=1e-12)
    assert 0.8 < accuracy < 1.0


@pytest.mark.parametrize("temperature", [0.07, None])
def test_several_k_in_one_search_equal_one_brute_force_each(temperature):
    """Neighbours from whole similarities in fp64, one vote after the other; coarse features, so that many are equal."""
    train_x, train_y, val_x, val_y = ((part * 4).round() if part.is_floating_point() else part for part in digits())
    val_x, val_y, ks = val_x[:200], val_y[:200], (10, 1, 200, 20, 1000)
    cosine = (F.normalize(val_x, dim=1) @ F.normalize(train_x, dim=1).T).double()
    order = cosine.argsort(dim=1, descending=True, stable=True)
    expected = {}
    for k in ks:
        predicted = []
        for row, similarity in zip(order[:, :k], cosine, strict=True):
            weight = ((similarity[row] - 1) / temperature).exp() if temperature else torch.ones(k).double()
            predicted.append(torch.stack([weight[train_y[row] == c].sum() for c in range(CLASSES)]).argmax())
        expected[k] = float((torch.stack(predicted) == val_y).double().mean())
    found = evaluate.knn_accuracies(train_x, train_y, val_x, val_y, ks=ks, temperature=temperature, chunk=300)
    assert list(found) == list(ks)
    assert found == pytest.approx(expected, abs=0.005)  # a product in tiles may round another way: one row of 200
    assert len(set(found.values())) > 3
    for k in ks:
        assert (
            evaluate.knn_accuracy(train_x, train_y, val_x, val_y, k=k, temperature=temperature, chunk=300) == found[k]
        )


KNN_PEAK = """
import resource, torch
from bingo.evaluate.accuracy import knn_accuracies
torch.set_num_threads(1)
train_x, train_y = torch.rand(20_000, 2048), torch.arange(20_000) % 10
knn_accuracies(train_x[:600], train_y[:600], train_x[:64], train_y[:64], ks=(10,), chunk=512)  # what torch loads
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
knn_accuracies(train_x, train_y, train_x[:512], train_y[:512], ks=(10, 20, 200), chunk=512)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def test_knn_copies_no_features():
    """In a fresh process: beyond the 164 MB of features it takes less than half of that: no copy of them."""
    found = subprocess.run([sys.executable, "-c", KNN_PEAK], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 20_000 * 2048 * 4 / 2


@pytest.mark.parametrize("chunk", [1, 7, 300, 4096])
def test_knn_does_not_depend_on_the_chunk(chunk):
    train_x, train_y, val_x, val_y = (part[:150] for part in digits())
    expected = evaluate.knn_accuracy(train_x, train_y, val_x[:50], val_y[:50], chunk=1000)
    assert evaluate.knn_accuracy(train_x, train_y, val_x[:50], val_y[:50], chunk=chunk) == expected


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
@pytest.mark.parametrize(("k", "temperature", "winner"), [(1, 0.07, 3), (2, None, 1), (4, None, 0), (4, 0.07, 0)])
def test_knn_ties_go_to_the_lower_index_then_to_the_lower_class(chunk, k, temperature, winner):
    train_x = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 0.0], [4.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    train_y = torch.tensor([2, 3, 1, 0, 0, 2])
    query = (torch.tensor([[8.0, 0.0]]), torch.tensor([winner]))
    assert evaluate.knn_accuracy(train_x, train_y, *query, k=k, temperature=temperature, chunk=chunk) == 1.0


@pytest.mark.parametrize("levels", [4, 25])
@pytest.mark.parametrize("chunk", [1, 5, 16, 100])
def test_knn_with_many_ties_equals_a_stable_sort(chunk, levels):
    rng = np.random.default_rng(1)
    cosine = rng.integers(0, levels, 60) / levels
    train_x, labels = np.stack([cosine, np.sqrt(1 - cosine**2)], axis=1), rng.integers(0, 5, 60)
    nearest = np.argsort(-train_x[:, 0], kind="stable")
    train = torch.tensor(train_x, dtype=torch.float32), torch.tensor(labels)
    for k in range(1, 41):
        winner = torch.tensor([np.bincount(labels[nearest[:k]]).argmax()])
        query = torch.tensor([[1.0, 0.0]])
        assert evaluate.knn_accuracy(*train, query, winner, k=k, temperature=None, chunk=chunk) == 1.0


def test_knn_votes_with_a_tiny_temperature_do_not_overflow():
    train_x, train_y, val_x, val_y = digits()
    tiny = evaluate.knn_accuracy(train_x, train_y, val_x, val_y, k=10, temperature=1e-6)
    assert tiny == evaluate.knn_accuracy(train_x, train_y, val_x, val_y, k=1)


@pytest.mark.slow  # when idle it takes 3 CPU s; its threads spin while others work
@pytest.mark.parametrize("kind", ["pixels", "pooled"])
@pytest.mark.parametrize("inverse_l2", [0.1, 1.0, 10.0])
def test_lbfgs_probe_equals_scikit_learn(kind, inverse_l2):
    train_x, train_y, val_x, val_y = digits(kind)
    probe = evaluate.linear_probe(train_x, train_y, val_x, val_y, classes=CLASSES, l2=1 / inverse_l2)
    oracle = sklearn_fit(train_x, train_y, inverse_l2)
    np.testing.assert_allclose(probe.weight.numpy(), oracle.coef_, atol=1e-3)
    np.testing.assert_allclose(probe.bias.numpy(), oracle.intercept_, atol=1e-3)
    scores = oracle.decision_function(val_x.double().numpy())
    assert np.array_equal(F.linear(val_x, probe.weight, probe.bias).argmax(1).numpy(), scores.argmax(1))
    assert probe.top1 == pytest.approx(top_k_accuracy_score(val_y, scores, k=1), abs=1e-12)
    assert probe.top5 == pytest.approx(top_k_accuracy_score(val_y, scores, k=5), abs=1e-12)
    assert probe.weight.shape == (CLASSES, train_x.shape[1])
    assert abs(float(probe.bias.mean())) < 1e-6
    assert (probe.weight.dtype, probe.bias.dtype, probe.solver) == (torch.float32, torch.float32, "lbfgs")


@pytest.mark.slow  # as above
def test_default_is_scikit_learns_default():
    data = digits()
    oracle = LogisticRegression(tol=1e-9, max_iter=20000).fit(data[0].double().numpy(), data[1].numpy())
    np.testing.assert_allclose(evaluate.linear_probe(*data, classes=CLASSES).weight.numpy(), oracle.coef_, atol=1e-3)


def test_standardised_probe_acts_on_raw_features():
    train_x, train_y, val_x, val_y = digits("pooled")
    stretch = torch.logspace(-3, 3, train_x.shape[1])
    train_x, val_x = train_x * stretch + 5, val_x * stretch + 5
    probe = evaluate.linear_probe(train_x, train_y, val_x, val_y, classes=CLASSES, standardise=True)
    oracle = sklearn_fit(train_x, train_y, 1.0, scale=True)
    coefficients = probe.weight.numpy() * oracle[0].scale_
    np.testing.assert_allclose(coefficients, oracle[1].coef_, atol=2e-3)
    raw = F.linear(val_x.double(), probe.weight.double(), probe.bias.double())
    decisions = np.sort(oracle.decision_function(val_x.double().numpy()), axis=1)
    clear = decisions[:, -1] - decisions[:, -2] > 0.01  # coefficients agree to 2e-3, so what is nearly equal may differ
    assert clear.mean() > 0.99
    assert np.array_equal(raw.argmax(1).numpy()[clear], oracle.predict(val_x.double().numpy())[clear])
    # As it is applied: in fp32, on features whose scales span six orders of magnitude and do not start from zero.
    applied = F.linear(val_x, probe.weight, probe.bias).argmax(1)
    assert probe.top1 == pytest.approx((applied == val_y).float().mean().item(), abs=1e-6)


def test_statistics_are_those_of_scikit_learns_scaler():
    x = digits()[0][:7]
    scaler = StandardScaler().fit(x.double().numpy())
    mean, deviation = evaluate._statistics(x)
    np.testing.assert_allclose(mean.numpy(), scaler.mean_, atol=1e-12)
    np.testing.assert_allclose(deviation.numpy(), scaler.scale_, atol=1e-12)


def test_constant_features_are_harmless_when_standardised():
    train_x, train_y, val_x, val_y = digits()
    assert (train_x.std(0) == 0).any()
    for solver, lr in (("lbfgs", 30.0), ("sgd", 0.1)):
        setting = {"classes": CLASSES, "solver": solver, "lr": lr, "epochs": 5, "standardise": True}
        probe = evaluate.linear_probe(train_x, train_y, val_x, val_y, **setting)
        assert probe.weight.isfinite().all()
        assert probe.top1 > 0.85


def test_two_classes_map_to_scikit_learns_single_vector():
    train_x, train_y, val_x, val_y = digits()
    keep, keep_val = train_y < 2, val_y < 2
    data = (train_x[keep], train_y[keep], val_x[keep_val], val_y[keep_val])
    probe = evaluate.linear_probe(*data, classes=2, l2=2.0)
    oracle = sklearn_fit(data[0], data[1], 1.0)
    np.testing.assert_allclose((probe.weight[1] - probe.weight[0]).numpy(), oracle.coef_[0], atol=1e-3)
    assert probe.top5 == 1.0


def test_probes_are_deterministic():
    for solver in evaluate.SOLVERS:
        first, second = (
            evaluate.linear_probe(*digits(), classes=CLASSES, solver=solver, lr=5.0, epochs=3, seed=4) for _ in range(2)
        )
        assert torch.equal(first.weight, second.weight)
        assert torch.equal(first.bias, second.bias)


def test_sgd_is_within_two_points_of_lbfgs_and_depends_on_its_seed():
    train_x, train_y, val_x, val_y = digits()
    data = (F.normalize(train_x, dim=1), train_y, F.normalize(val_x, dim=1), val_y)
    exact = evaluate.linear_probe(*data, classes=CLASSES)
    steps = [evaluate.linear_probe(*data, classes=CLASSES, solver="sgd", seed=seed) for seed in (0, 1)]
    assert all(abs(probe.top1 - exact.top1) <= 0.02 for probe in steps)
    assert all(probe.top5 > probe.top1 > 0.85 for probe in steps)
    assert not torch.equal(steps[0].weight, steps[1].weight)


def test_sgd_step_is_the_protocols(monkeypatch):
    """One full batch an epoch, by hand: momentum 0.9, no decay, lr / 10 after the milestone."""
    train_x, train_y, val_x, val_y = digits("pooled")
    setting = {"classes": CLASSES, "solver": "sgd", "lr": 2.0, "batch": len(train_x), "milestones": (2,), "seed": 5}
    probe = evaluate.linear_probe(train_x, train_y, val_x, val_y, epochs=4, **setting)
    weight = 0.01 * torch.randn(CLASSES, train_x.shape[1], generator=torch.Generator().manual_seed(5)).double()
    bias, moves = torch.zeros(CLASSES).double(), [0.0, 0.0]
    for lr in (2.0, 2.0, 0.2, 0.2):
        error = F.linear(train_x.double(), weight, bias).softmax(1) - F.one_hot(train_y, CLASSES)
        slopes = error.T @ train_x.double() / len(train_x), error.mean(0)
        moves = [0.9 * move + slope for move, slope in zip(moves, slopes, strict=True)]
        weight, bias = weight - lr * moves[0], bias - lr * moves[1]
    torch.testing.assert_close(probe.weight, weight.float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(probe.bias, bias.float(), atol=1e-4, rtol=1e-4)


def test_top_accuracies_rank_equal_logits_by_the_lower_class():
    weight, bias = torch.zeros(10, 3), torch.zeros(10)
    assert evaluate._top_accuracies(weight, bias, torch.ones(10, 3), torch.arange(10), (1, 5), chunk=3) == [0.1, 0.5]


@pytest.mark.parametrize(("shots", "kind"), [(1, "pixels"), (2, "pixels"), (5, "pooled")])
def test_fewshot_equals_scikit_learn_on_the_same_draws(shots, kind):
    train_x, train_y, val_x, val_y = digits(kind)
    found = evaluate.fewshot_accuracy(train_x, train_y, val_x, val_y, classes=CLASSES, shots=shots, draws=6, seed=3)
    unit, unit_val = F.normalize(train_x, dim=1), F.normalize(val_x, dim=1).double().numpy()
    for draw, accuracy in enumerate(found):
        rows = evaluate.fewshot_indices(train_y.numpy(), classes=CLASSES, shots=shots, draw=draw, seed=3)
        assert np.bincount(train_y.numpy()[rows]).tolist() == [shots] * CLASSES
        assert len(set(rows.tolist())) == shots * CLASSES
        oracle = sklearn_fit(unit[rows], train_y[rows], 1.0)
        assert accuracy == pytest.approx(oracle.score(unit_val, val_y.numpy()), abs=1e-12)
    assert len(set(found)) > 1


def test_fewshot_draws_are_a_function_of_seed_and_draw(monkeypatch):
    data = digits()
    labels = data[1].numpy()
    draws = [evaluate.fewshot_indices(labels, classes=CLASSES, shots=2, draw=d, seed=0).tolist() for d in range(20)]
    assert len({tuple(draw) for draw in draws}) == 20
    assert evaluate.fewshot_indices(labels, classes=CLASSES, shots=2, draw=0, seed=1).tolist() not in draws
    twenty = evaluate.fewshot_accuracy(*data, classes=CLASSES)
    assert len(twenty) == 20
    assert evaluate.fewshot_accuracy(*data, classes=CLASSES, draws=3) == twenty[:3]
    monkeypatch.setattr(evaluate, "PROBE_ELEMENTS", 1)  # one draw at a time
    assert evaluate.fewshot_accuracy(*data, classes=CLASSES) == twenty


def test_fewshot_images_are_drawn_uniformly():
    labels = np.array([0, 1] * 6)
    counts = np.zeros(12)
    for draw in range(3000):
        counts[evaluate.fewshot_indices(labels, classes=2, shots=2, draw=draw, seed=0)] += 1
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000 * 2 / 3)


def test_any_floating_dtype_and_no_grad_features_are_accepted():
    train_x, train_y, val_x, val_y = digits()
    with torch.inference_mode():
        half = (train_x.half(), train_y.int(), val_x.half(), val_y.int())
    assert evaluate.knn_accuracy(*half) == evaluate.knn_accuracy(train_x, train_y, val_x, val_y)
    for solver in evaluate.SOLVERS:
        probe = evaluate.linear_probe(*half, classes=CLASSES, solver=solver, lr=1.0, epochs=2)
        assert not probe.weight.requires_grad
        assert probe.top1 > 0.7
    assert len(evaluate.fewshot_accuracy(*half, classes=CLASSES, draws=2)) == 2


def data_with(**changes: Tensor) -> dict[str, Tensor]:
    names = ("train_x", "train_y", "val_x", "val_y")
    return {**dict(zip(names, (part[:30].clone() for part in digits()), strict=True)), **changes}


def nan_at(row: int) -> Tensor:
    x = digits()[2][:30].clone()
    x[row, 3] = float("nan")
    return x


KNN = evaluate.knn_accuracy
PROBE = functools.partial(evaluate.linear_probe, classes=CLASSES)
FEW = functools.partial(evaluate.fewshot_accuracy, classes=CLASSES)
LABELS = torch.arange(30) % 10
REFUSED = {
    "k > train": (KNN, {}, {"k": 31}, "k = 31 is not between 1 and .* 30"),
    "k = 0": (KNN, {}, {"k": 0}, "k = 0 is not between 1"),
    "temperature": (KNN, {}, {"temperature": 0.0}, "temperature = 0.0 is not positive"),
    "NaN temperature": (KNN, {}, {"temperature": float("nan")}, "temperature = nan is not positive"),
    "chunk": (KNN, {}, {"chunk": 0}, "chunk = 0"),
    "negative label": (KNN, {"val_y": LABELS - 1}, {}, "validation label -1 at index 0 is not 0 or more"),
    "label = classes": (PROBE, {"train_y": LABELS + 1}, {}, "training label 10 at index 9 is not between 0 and 9"),
    "few label": (FEW, {"val_y": LABELS + 1}, {}, "validation label 10 at index 9 is not between 0 and 9"),
    "lengths": (PROBE, {"train_y": LABELS[:29]}, {}, "training labels must be 30 integers"),
    "float labels": (KNN, {"val_y": LABELS.float()}, {}, "validation labels must be 30 integers"),
    "widths": (KNN, {"val_x": torch.ones(30, 5)}, {}, "64 dimensions, validation features 5"),
    "1-D": (PROBE, {"val_x": torch.ones(30)}, {}, "floating N×D tensor"),
    "integer features": (PROBE, {"val_x": torch.ones(30, 64).int()}, {}, "floating N×D tensor"),
    "empty": (FEW, {"val_x": torch.ones(0, 64), "val_y": LABELS[:0]}, {}, "floating N×D tensor"),
    "NaN": (PROBE, {"val_x": nan_at(17)}, {}, "validation feature row 17 is not finite"),
    "one class": (functools.partial(evaluate.linear_probe, classes=1), {}, {}, "classes = 1"),
    "solver": (PROBE, {}, {"solver": "lbgfs"}, "unknown solver 'lbgfs', did you mean 'lbfgs'"),
    "l2": (PROBE, {}, {"l2": 0.0}, "l2 = 0.0 is not positive"),
    "sgd setting": (PROBE, {}, {"solver": "sgd", "batch": 0}, "batch = 0 must all be positive"),
    "diverged": (PROBE, {}, {"solver": "sgd", "lr": 1e38}, "diverged in epoch [0-9]+ at lr = 1e.38: give a lower lr"),
    "shots": (FEW, {"train_y": LABELS % 9}, {}, r"shots = 2 .*class 9 has 0"),
    "no shot": (FEW, {"train_y": LABELS}, {"shots": 0}, "shots = 0 is not between 1"),
    "draws": (FEW, {}, {"draws": 0}, "draws = 0"),
    "seed": (FEW, {"train_y": LABELS}, {"seed": -1}, "seed = -1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(case):
    function, changes, settings, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        function(**data_with(**changes), **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_gpu_equals_cpu():
    data = digits()
    cuda = tuple(part.cuda() for part in data)
    assert evaluate.knn_accuracy(*cuda) == pytest.approx(evaluate.knn_accuracy(*data), abs=2e-3)
    assert evaluate.fewshot_accuracy(*cuda, classes=CLASSES) == pytest.approx(
        evaluate.fewshot_accuracy(*data, classes=CLASSES), abs=2e-3
    )
    near = functools.partial(torch.testing.assert_close, atol=1e-3, rtol=0)
    near(
        evaluate.linear_probe(*cuda, classes=CLASSES).weight.cpu(), evaluate.linear_probe(*data, classes=CLASSES).weight
    )
