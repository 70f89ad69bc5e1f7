"""Linear protocols against plain torch loops, on one rank and on two, killed and resumed."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as TF
from PIL import Image
from torch import Tensor, nn

from bingo.config_evaluation import EvalConfig
from bingo.config_parts import IMAGENET_MEAN, IMAGENET_STD, Augmentation, Runtime
from bingo.distributed import World
from bingo.errors import UserError
from bingo.features.extract import extract
from bingo.images.open import open_dataset
from bingo.models import load_encoder, save_encoder
from bingo.protocols import PROTOCOLS
from bingo.stages import Stage, run_stage
from bingo.supervised.linear import CURE, seeded_linear
from bingo.supervised.loop import _check_finite
from bingo.supervised.plan import LabelPlan, crops_and_flips
from bingo.train.lines import read_metrics
from tests.support.forked_ranks import Ranks, checkpoints, run_ranks

EPOCHS, BATCH, SIZE = 3, 64, 16
STEPS = 12  # per epoch: 719 images, the last step has 15
ALONE = World(0, 1, torch.device("cpu"), 1)
TRAINED = ("release", "moco", "simreg")
every_protocol = pytest.mark.parametrize("protocol", TRAINED)


@pytest.fixture(scope="module")
def base(digits: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> EvalConfig:
    """Small features, and the release's rates for EfficientNet: with ten classes lr 30 throws the bias about, and then
    roundings grow."""
    folder = tmp_path_factory.mktemp("linear")
    encoder = load_encoder(teacher)[0]
    encoder.backbone[7].weight.data.mul_(0.1)  # type: ignore[index, union-attr, operator]
    save_encoder(folder / "model.pt", encoder)
    return EvalConfig(
        run=folder / "model.pt", train=digits / "val", val=digits / "train", out=folder, kinds=("linear",),
        linear_epochs=EPOCHS, linear_batch=BATCH, seed=3, augment=Augmentation(size=SIZE),
        runtime=Runtime(device="cpu", threads=1, checkpoint_every=5, log_every=1),
    )  # fmt: skip


RATES: dict[str, dict[str, Any]] = {"release": {"linear_lr": 3.0, "linear_min_lr": 0.001}, "moco": {"linear_lr": 3.0}}


def stage(base: EvalConfig, protocol: str, out: Path) -> Stage:
    config = replace(base, protocol=protocol, out=out, **RATES.get(protocol, {}))  # type: ignore[arg-type]
    return Stage(f"eval {protocol}", "eval", config)


@pytest.fixture(scope="module")
def naive(base: EvalConfig) -> dict[str, dict[str, Tensor]]:
    """Protocol -> weight and bias on features (of unit length), from one loop that is written out here."""
    data, encoder = open_dataset(base.train), load_encoder(base.run)[0].eval()
    augment = crops_and_flips(base.augment, (0.08, 1.0), 0.5)
    plan = LabelPlan(data.sizes, np.arange(len(data)), BATCH, augment, base.seed)
    shares = [plan.share(step, 0, 1) for step in range(EPOCHS * STEPS)]
    for epoch in range(EPOCHS):
        seen = np.concatenate([share.images for share in shares[epoch * STEPS : (epoch + 1) * STEPS]])
        assert sorted(seen) == list(range(len(data))), "each image once"
    with torch.no_grad():
        features = [encoder.backbone(_views(data, share)) for share in shares]
    labels = [torch.from_numpy(data.labels[share.images]).long() for share in shares]
    centre = extract(encoder, data, base.augment, 256, base.runtime, ALONE)
    variance, mean = torch.var_mean(centre / centre.norm(dim=1, keepdim=True), dim=0)
    scale = (variance + 1e-5).rsqrt()
    unit = [(rows / rows.norm(dim=1, keepdim=True) - mean) * scale for rows in features]
    simreg = _fit(base, unit, labels, 0.01, 1e-4)
    return {
        "release": _fit(base, features, labels, 3.0, 0.0, cosine_to=0.001),
        "moco": _fit(base, features, labels, 3.0, 0.0),
        "simreg": {
            "weight": simreg["weight"] * scale,
            "bias": simreg["bias"] - (simreg["weight"] * scale) @ mean,
        },
    }  # fmt: skip


def _fit(
    base: EvalConfig, features: list[Tensor], labels: list[Tensor], rate: float, decay: float, cosine_to: float = 0.0
) -> dict[str, Tensor]:
    """SGD over the steps of three epochs with torch's schedulers: a cosine, or a tenth after one and two epochs."""
    layer = seeded_linear(features[0].shape[1], 10, base.seed, like_torch=decay > 0)
    optimiser = torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
    schedule: Any = torch.optim.lr_scheduler.MultiStepLR(optimiser, [1, 2])
    if cosine_to:
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS, eta_min=cosine_to)
    for step, (x, y) in enumerate(zip(features, labels, strict=True)):
        optimiser.zero_grad()
        F.cross_entropy(layer(x), y).backward()
        optimiser.step()
        if (step + 1) % STEPS == 0:
            schedule.step()
    return {"weight": layer.weight.detach(), "bias": layer.bias.detach()}


def _views(data: Any, share: Any) -> Tensor:
    """PIL decodes, torchvision crops, flips and normalises."""
    views = []
    for row, index in enumerate(share.images):
        picture = Image.open(io.BytesIO(data.encoded(int(index)).tobytes())).convert("RGB")
        image = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)
        (y0, x0), (y1, x1) = share.view.start[row].astype(int), share.view.end[row].astype(int)
        crop = TF.resized_crop(image, y0, x0, y1 - y0, x1 - x0, [SIZE, SIZE], antialias=True)
        crop = TF.horizontal_flip(crop) if share.view.params.flip[row] else crop
        views.append(TF.normalize(crop.float() / 255, list(IMAGENET_MEAN), list(IMAGENET_STD)))
    return torch.stack(views)


def classifier(out: Path) -> dict[str, Tensor]:
    saved = torch.load(out / "linear.pt", weights_only=True)
    return {name: saved[name] for name in ("weight", "bias")}


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5 * float(value.abs().max()))


@every_protocol
def test_one_rank_is_the_naive_loop(
    base: EvalConfig, naive: dict[str, dict[str, Tensor]], protocol: str, tmp_path: Path
) -> None:
    record = run_stage(stage(base, protocol, tmp_path / "out"))
    found = classifier(tmp_path / "out")
    assert_near(found, naive[protocol])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    data, encoder = open_dataset(base.val), load_encoder(base.run)[0]
    features = extract(encoder, data, base.augment, 256, base.runtime, ALONE)
    if protocol == "simreg":
        features = F.normalize(features, dim=1)
    guess = (features @ found["weight"].T + found["bias"]).argmax(1)
    assert results["linear"] == pytest.approx(float((guess == torch.from_numpy(data.labels)).float().mean()), abs=2e-3)
    assert (results["protocol"], record["figures"]["protocol"], results["linear_epochs"]) == (protocol, protocol, 3)
    by_epoch = results["linear_by_epoch"]
    assert [row[0] for row in by_epoch] == [1, 2, 3]
    assert results["linear"] == by_epoch[-1][1], "the last epoch is the result"
    assert results["linear_best"] == max(row[1] for row in by_epoch)
    assert by_epoch[results["linear_best_epoch"] - 1][1] == results["linear_best"]
    rates = [line["lr"] for line in read_metrics(tmp_path / "out" / "metrics.jsonl", "train")][::STEPS]
    assert rates == pytest.approx(
        {"release": [3, 2.25025, 0.75075], "moco": [3, 0.3, 0.03]}.get(protocol, [1e-2, 1e-3, 1e-4])
    )


@pytest.fixture(scope="module")
def by_two(base: EvalConfig) -> dict[str, Path]:
    """Protocol -> the folder of a run by two ranks that nobody stopped."""
    found = {protocol: base.out / f"two-{protocol}" for protocol in TRAINED}
    for protocol, out in found.items():
        run_ranks(stage(base, protocol, out), 2, base.out / "logs")
    return found


@pytest.mark.slow
@every_protocol
def test_two_ranks_are_the_naive_loop(
    by_two: dict[str, Path], naive: dict[str, dict[str, Tensor]], protocol: str
) -> None:
    assert_near(classifier(by_two[protocol]), naive[protocol])


@pytest.mark.slow
@pytest.mark.parametrize(("protocol", "then"), [("release", 2), ("moco", 1), ("simreg", 2)])
def test_killed_and_resumed_in_the_middle_of_an_epoch(
    base: EvalConfig, by_two: dict[str, Path], protocol: str, then: int, tmp_path: Path
) -> None:
    """Two ranks begin, two or a single process end: bit for bit what nobody stopped."""
    out = tmp_path / "out"
    Ranks(stage(base, protocol, out), 2, tmp_path).kill_once(out / "checkpoints" / "step-0000000020.pt")
    assert not (out / "results.json").exists()
    reached = int(checkpoints(out)[-1].stem.split("-")[1])
    assert 20 <= reached < EPOCHS * STEPS
    run_ranks(stage(base, protocol, out), then, tmp_path)
    whole = by_two[protocol]
    for name, value in classifier(whole).items():
        assert torch.equal(classifier(out)[name], value)
    assert (out / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    kinds = ("train", "accuracy")
    lines, expected = (
        [x | {"time": 0} for k in kinds for x in read_metrics(o / "metrics.jsonl", k)] for o in (out, whole)
    )
    assert lines == expected, "each step and each accuracy once"
    record = json.loads((out / "stage.json").read_text())
    assert (record["ranks"], record["figures"]["protocol"]) == (2, protocol)


def test_asked_to_leave_it_goes_on_from_there(base: EvalConfig, tmp_path: Path) -> None:
    from bingo.watch import Leaving, Watch

    class Asked(Watch):
        def beat(self, step: int) -> None:
            self.asked = "SIGUSR2" if step == 20 else self.asked

    one = stage(base, "release", tmp_path / "out")
    with pytest.raises(Leaving, match="left at step 20 because of SIGUSR2"):
        run_stage(one, watch=Asked())
    run_stage(one)
    run_stage(stage(base, "release", tmp_path / "whole"))
    for name, value in classifier(tmp_path / "whole").items():
        assert torch.equal(classifier(tmp_path / "out")[name], value)


def test_a_classifier_that_diverges_stops_in_a_sentence(base: EvalConfig, tmp_path: Path) -> None:
    """On features of 10^20 the first step's weights make logits that no float holds."""
    encoder = load_encoder(base.run)[0]
    encoder.backbone[7].weight.data.mul_(1e20)  # type: ignore[index, union-attr, operator]
    save_encoder(tmp_path / "model.pt", encoder)
    config = replace(base, protocol="moco", run=tmp_path / "model.pt", out=tmp_path / "out")
    with pytest.raises(
        UserError, match=r"the loss is (nan|inf) at step \d; lower --linear-lr and start again in a new"
    ):
        run_stage(Stage("e", "eval", config))
    assert not (tmp_path / "out" / "results.json").exists()
    with pytest.raises(
        UserError, match=r"diverged in epoch 4 \(weights not finite\): lower --linear-lr, in a new --out"
    ):
        _check_finite([torch.ones(2), torch.tensor([1.0, torch.inf])], 3, CURE)


def test_several_kinds_in_one_folder(base: EvalConfig, tmp_path: Path) -> None:
    """What stored features are enough for stands beside what was trained, as the recipes ask for it."""
    config = replace(base, protocol="simreg", kinds=("linear", "knn"), linear_epochs=1, k=(3,), out=tmp_path / "out")
    record = run_stage(Stage("e", "eval", config))
    results = json.loads((config.out / "results.json").read_text())
    assert record["figures"].keys() == {"protocol", "knn", "linear", "linear_top5", "linear_best"}
    assert record["figures"]["knn"] == results["knn"] > 0.1
    assert torch.load(config.out / "linear.pt", weights_only=True)["normalise"] is True
    other = replace(config, protocol="cached", linear_epochs=1)
    with pytest.raises(UserError, match=r"holds an evaluation made with .*protocol=simreg, not cached"):
        run_stage(Stage("e", "eval", other))
    (config.out / "stage.json").unlink()
    assert run_stage(Stage("e", "eval", config))["figures"] == record["figures"], "from the checkpoint, nothing trained"


def test_the_published_settings() -> None:
    """Rates by epoch against torch's own schedulers, over the whole length."""
    for name, (rate, epochs, drops) in {"moco": (30.0, 100, [60, 80]), "simreg": (0.01, 40, [15, 30])}.items():
        optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)
        steps = torch.optim.lr_scheduler.MultiStepLR(optimiser, drops)
        schedule = PROTOCOLS[name].schedule
        assert schedule.epochs == epochs
        for epoch in range(epochs):
            assert schedule.at(epoch) == pytest.approx(steps.get_last_lr()[0])
            optimiser.step()
            steps.step()
    release = PROTOCOLS["release"].schedule
    assert (release.epochs, release.at(0), release.at(60)) == (120, 30.0, pytest.approx(15.005))
    assert release.at(119) == pytest.approx(0.01 + 29.99 * (1 + np.cos(np.pi * 119 / 120)) / 2)
    small = PROTOCOLS["release"].changed(3.0, 0.001, None).schedule
    assert (small.at(0), small.epochs, small.min_lr) == (3.0, 120, 0.001)
    assert PROTOCOLS["simreg"].weight_decay == 1e-4
    assert not PROTOCOLS["cached"].augmented
