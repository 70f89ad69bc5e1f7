"""Transfer: the same choice and classifier as scikit-learn, and a penalty that never sees the validation images."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.errors import UserError
from bingo.evaluate.transfer import held_out, per_class_accuracy, transfer_probe

pytest.importorskip("sklearn")
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

CLASSES, PENALTIES, HOLDOUT, SEED = 10, (1e-5, 1e-2, 1.0, 100.0), 0.25, 3


@functools.cache
def noisy() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Digits with noise, so that too small a penalty overfits; classes of the validation part in unequal numbers."""
    x, y = load_digits(return_X_y=True)
    x = torch.tensor(x / 16 + np.random.default_rng(0).normal(0, 0.5, x.shape), dtype=torch.float32)
    y, chosen = torch.tensor(y), np.arange(400, 1000)[np.random.default_rng(1).random(600) > y[400:1000] / 12]
    return x[:300], y[:300], x[chosen], y[chosen]


def sklearns(x: Tensor, y: Tensor, penalty: float) -> LogisticRegression:
    model = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-9, max_iter=20000)
    return model.fit(x.double().numpy(), y.numpy())


def test_the_choice_and_the_classifier_are_those_of_scikit_learn():
    train_x, train_y, val_x, val_y = noisy()
    found = transfer_probe(*noisy(), classes=CLASSES, penalties=PENALTIES, holdout=HOLDOUT, seed=SEED)
    aside = torch.from_numpy(held_out(train_y.numpy(), classes=CLASSES, share=HOLDOUT, seed=SEED))
    scores = {}
    for penalty in PENALTIES:
        model = sklearns(train_x[~aside], train_y[~aside], penalty)
        scores[penalty] = model.score(train_x[aside].double().numpy(), train_y[aside].numpy())
    assert found.held_out == pytest.approx(scores, abs=1.5 / int(aside.sum()))
    assert found.penalty == max(scores, key=lambda penalty: (scores[penalty], penalty))
    assert found.penalty not in (PENALTIES[0], PENALTIES[-1])
    whole = sklearns(train_x, train_y, found.penalty)
    np.testing.assert_allclose(found.probe.weight.numpy(), whole.coef_, atol=2e-4)
    predicted = whole.predict(val_x.double().numpy())
    assert found.probe.top1 == pytest.approx((predicted == val_y.numpy()).mean(), abs=1e-6)
    assert found.per_class == pytest.approx(balanced_accuracy_score(val_y.numpy(), predicted), abs=1e-6)
    assert found.per_class != pytest.approx(found.probe.top1, abs=1e-3)


def test_validation_labels_choose_nothing():
    train_x, train_y, val_x, val_y = noisy()
    settings = {"classes": CLASSES, "penalties": PENALTIES[1:3], "holdout": HOLDOUT, "seed": SEED}
    one = transfer_probe(train_x, train_y, val_x, val_y, **settings)
    other = transfer_probe(train_x, train_y, val_x.flip(1), (val_y + 1) % CLASSES, **settings)
    assert (one.penalty, one.held_out) == (other.penalty, other.held_out)
    assert torch.equal(one.probe.weight, other.probe.weight)
    assert one.probe.top1 > other.probe.top1


def test_a_best_penalty_at_the_end_is_told(caplog):
    train_x, train_y, *val = noisy()
    settings = {"classes": CLASSES, "holdout": HOLDOUT, "seed": SEED}
    transfer_probe(train_x, train_y, *val, penalties=(1e-5, 1e-2), **settings)
    assert "0.01, is at the end of --transfer-l2 1e-05,0.01" in caplog.text
    caplog.clear()
    transfer_probe(train_x, train_y, *val, penalties=PENALTIES, **settings)
    assert not caplog.text


def test_a_share_of_each_class_is_held_out_and_one_image_stays():
    labels = np.repeat(np.arange(4), [1, 2, 40, 7])
    np.random.default_rng(0).shuffle(labels)
    aside = held_out(labels, classes=4, share=0.25, seed=0)
    assert np.bincount(labels[aside], minlength=4).tolist() == [0, 0, 10, 2]
    np.testing.assert_array_equal(held_out(labels, classes=4, share=0.25, seed=0), aside)
    assert not np.array_equal(held_out(labels, classes=4, share=0.25, seed=1), aside)
    assert np.bincount(labels[held_out(labels, classes=4, share=0.9, seed=0)], minlength=4).tolist() == [0, 1, 36, 6]
    with pytest.raises(UserError, match=r"--holdout 0.2 of 3 training images in 3 classes leaves none"):
        held_out(np.arange(3), classes=3, share=0.2, seed=0)


def test_classes_without_validation_images_do_not_count():
    train_x, train_y, val_x, val_y = noisy()
    some = val_y < 3
    found = transfer_probe(
        train_x, train_y, val_x[some], val_y[some], classes=CLASSES, penalties=(0.1,), holdout=HOLDOUT, seed=SEED
    )
    right = F.linear(val_x[some], found.probe.weight, found.probe.bias).argmax(1) == val_y[some]
    shares = [right[val_y[some] == c].double().mean() for c in range(3)]
    assert per_class_accuracy(found.probe, val_x[some], val_y[some]) == pytest.approx(float(sum(shares) / 3))
