"""Every objective in the trainer: three whole steps equal a plain loop, and cached keys are of the student's views."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bingo.config import DistillConfig
from bingo.config_parts import Augmentation, Optimiser
from bingo.distributed import World
from bingo.errors import UserError
from bingo.features.keys import load_keys
from bingo.images.open import open_dataset
from bingo.models import load_encoder
from bingo.objectives import OBJECTIVES
from bingo.stages import Stage, run_stage
from bingo.train.distill import Distillation, replay, view_counts
from bingo.train.graph import EagerStep
from bingo.train.optimiser import sgd
from bingo.views.loader import Batch, training_batches
from bingo.views.plan import Local, Plan
from tests.support import naive_objectives as naive
from tests.support.cached_keys import SMALL, keys_config

ALONE = World(0, 1, torch.device("cpu"), 1)
STEPS = 3
WITHOUT_BAGS = [name for name, row in OBJECTIVES.items() if not row.bags]
PLAIN: dict[str, Callable[..., Tensor]] = {
    "moco": naive.moco, "seed": naive.seed, "compress": naive.compress, "pseudo-labels": naive.pseudo_labels,
}  # fmt: skip


def of(config: DistillConfig, name: str, **changes: Any) -> DistillConfig:
    return replace(config, objective=name, bags=None, optim=Optimiser(epochs=1, batch=64, lr=0.02), **changes)


def start(config: DistillConfig, source: Any = None) -> tuple[Distillation, list[Batch]]:
    """The method before its first step, and the batches of three."""
    dataset = open_dataset(config.data)
    source = source or load_encoder(config.teacher)[0]
    plan = Plan(
        dataset.sizes, 64, config.augment, config.seed, views=view_counts(config), replay=replay(config, source),
        local=Local(config.local_crops, config.local) if config.local_crops else None,
    )  # fmt: skip
    method = Distillation(config, source, plan, ALONE)
    return method, list(training_batches(dataset, plan, ALONE, start=0, stop=STEPS))


class Loop:
    """The same training as a reader of the papers would write it: whole softmaxes, a list for a queue, torch's SGD."""

    def __init__(self, method: Distillation, config: DistillConfig) -> None:
        self.config, self.teacher = config, method.teacher
        self.student = copy.deepcopy(method.encoder).train()
        self.momentum = copy.deepcopy(method.encoder).eval()
        self.average = copy.deepcopy(method.encoder)
        self.queue, self.own = method.queue.keys_KC.clone(), method.queue.keys_KC.clone()
        self.augment, self.place = method.augment, 0
        self.optimiser = torch.optim.SGD(self.student.parameters(), lr=0.02 * 64 / 256, momentum=0.9, weight_decay=1e-4)

    def step(self, batch: Batch) -> float:
        assert self.teacher is not None
        views = [self.augment(crops, batch.params(0, view)) for view, crops in enumerate(batch.crops[0])]
        queries = [self.student.project(view) for view in views[: 2 if self.config.objective == "disco" else 1]]
        with torch.no_grad():
            raw = [self.teacher.project(view) for view in views]
            new_own = F.normalize(queries[0].detach(), dim=1)
            if self.config.objective == "disco":
                new_own = F.normalize(self.momentum.project(views[1]), dim=1)
        loss = self.loss(queries, raw, new_own)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        with torch.no_grad():
            where = torch.arange(self.place, self.place + 64) % len(self.queue)
            self.queue[where], self.own[where] = F.normalize(raw[self.key], dim=1), new_own
            self.place += 64
            self.follow(self.momentum, 0.999)
            self.follow(self.average, self.config.student_ema)
        return loss.item()

    @property
    def key(self) -> int:
        """The view whose key is the student's first view's."""
        return 0 if self.config.same_view else 1

    def loss(self, queries: list[Tensor], raw: list[Tensor], new_own: Tensor) -> Tensor:
        config, tau = self.config, self.config.contrast.temperature
        key = F.normalize(raw[self.key], dim=1)
        if config.objective in PLAIN:
            return PLAIN[config.objective](queries[0], key, self.queue, tau, config.target_temperature)
        if config.objective == "compress-2q":
            return naive.compress_2q(queries[0], key, self.queue, self.own, tau, config.target_temperature)
        if config.objective == "disco":
            keys = [F.normalize(rows, dim=1) for rows in (raw if config.same_view else raw[::-1])]
            return naive.disco(queries[0], queries[1], new_own, *keys, self.own, tau)
        if config.objective == "simreg-seed":
            seed = naive.seed(queries[0], key, self.queue, tau, config.target_temperature)
            return naive.simreg(queries[0], key) + 0.5 * seed
        return naive.simreg(queries[0], key) if config.objective == "simreg" else naive.coss(queries[0], raw[self.key])

    def follow(self, average: nn.Module, keep: float) -> None:
        values = [(old, new) for old, new in zip(average.parameters(), self.student.parameters(), strict=True)]
        pairs = zip(average.buffers(), self.student.buffers(), strict=True)
        for old, new in [*values, *((old, new) for old, new in pairs if old.is_floating_point())]:
            old.copy_(keep * old + (1 - keep) * new)


@pytest.mark.parametrize("key_view", ["same", "cross"])
@pytest.mark.parametrize("name", WITHOUT_BAGS)
def test_three_steps_equal_a_plain_loop(config: DistillConfig, name: str, key_view: str) -> None:
    """Weights, the average, both queues."""
    config = of(config, name, key_view=key_view, student_ema=0.9, teacher_temperature=0.07)
    method, batches = start(config)
    plain = Loop(method, config)
    optimiser = sgd(method.model.parameters(), config.optim)
    train_on = EagerStep(method, optimiser, ALONE.device)
    method.encoder.train()
    for batch in batches:
        loss, _ = train_on([batch], 0.02 * 64 / 256, 0, measure=False)
        assert loss.item() == pytest.approx(plain.step(batch), rel=1e-5, abs=1e-6)
    pairs = {
        "student": (method.encoder, plain.student), "average": (method.saved, plain.average),
        **({"momentum": (method.momentum, plain.momentum)} if method.momentum is not None else {}),
    }  # fmt: skip
    for part, (ours, theirs) in pairs.items():
        for (place, value), wanted in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            torch.testing.assert_close(
                value, wanted, rtol=1e-4, atol=2e-5, msg=lambda s, at=(part, place): f"{at}: {s}"
            )
    torch.testing.assert_close(method.queue.keys_KC, plain.queue, rtol=0, atol=1e-6)
    if method.own_queue is not None:
        torch.testing.assert_close(method.own_queue.keys_KC, plain.own, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["seed", "simreg", "coss"])
def test_local_crops_have_the_images_own_key(config: DistillConfig, name: str) -> None:
    """Two crops of 8 pixels beside one of 16: the mean over all three views, of one key."""
    config = of(config, name, local_crops=2, local_size=8, local_scale=(0.1, 0.3), teacher_temperature=0.07)
    method, (batch, *_) = start(config)
    assert [tuple(crops.shape[1:]) for crops in batch.crops[0]] == [(16, 16, 3), (8, 8, 3), (8, 8, 3)]
    area = [float(np.prod(view.end - view.start, axis=1).mean()) for view in batch.plan.views[0]]
    assert area[0] > 2 * max(area[1:])
    plain = Loop(method, config)
    (inputs,) = method.prepare([batch], method.feed)
    whole, *small = [make() for make in inputs.views[0]]
    queries = [plain.student.project(view) for view in (whole, *small)]
    assert plain.teacher is not None
    with torch.no_grad():
        raw = plain.teacher.project(whole)
    if name == "coss":
        expected = naive.coss(torch.cat(queries), raw.repeat(3, 1))
    else:
        expected = torch.stack([plain.loss([query], [raw], raw) for query in queries]).mean()
    loss, _ = next(method.losses([batch]))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(method.queue.keys_KC[:64], F.normalize(raw, dim=1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in WITHOUT_BAGS if not OBJECTIVES[name].lengths])
@pytest.mark.parametrize("key_view", ["same", "cross"])
def test_cached_keys_are_of_the_views_that_the_student_sees(
    digits: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory, config: DistillConfig, name: str,
    key_view: str,
) -> None:  # fmt: skip
    """As if the teacher stood beside: with the same view its own pixels' keys, with another one not."""
    folder = tmp_path_factory.getbasetemp() / "own-views"
    run_stage(Stage("keys", "keys", replace(keys_config(digits, teacher, folder), seed=11)))
    config = of(config, name, key_view=key_view, keys=folder, teacher=None, augment=SMALL)
    cache = load_keys(folder, open_dataset(config.data), SMALL, ALONE)
    method, batches = start(config, cache)
    frozen = load_encoder(teacher)[0].eval()
    (inputs,) = method.prepare(batches[:1], method.feed)
    with torch.no_grad():
        seen = [
            frozen(method.augment(crops, batches[0].params(0, view))) for view, crops in enumerate(batches[0].crops[0])
        ]
    if OBJECTIVES[name].views == 2:
        assert not torch.equal(batches[0].crops[0][0], batches[0].crops[0][1])
    cosines = torch.stack([(key * own).sum(dim=1) for key, own in zip(inputs.keys, seen, strict=True)])
    assert (cosines.min() > 0.9999) if key_view == "same" else (cosines.mean() < 0.9999)
    assert torch.equal(inputs.new_keys, inputs.keys[0])


def test_a_replayed_view_is_the_caches(digits: Path) -> None:
    """Of any images in any order the view that `bingo keys` made of each."""
    sizes = open_dataset(digits / "train").sizes
    plan = Plan(sizes, 8, Augmentation(size=16), seed=5)
    images, numbers = np.array([17, 3, 1000, 3]), np.array([0, 2, 1, 1])
    ours = Plan(sizes, 8, Augmentation(size=16), seed=99).replayed(images, numbers, 5)
    for row, (image, number) in enumerate(zip(images, numbers, strict=True)):
        theirs = plan.key_view(int(image), int(image) + 1, int(number))
        assert (ours.start[row] == theirs.start[0]).all()
        assert (ours.end[row] == theirs.end[0]).all()
        for name, value in vars(theirs.params).items():
            assert (getattr(ours.params, name)[row] == value[0]).all(), name


def test_two_cached_views_of_an_image_are_never_one(digits: Path) -> None:
    plan = Plan(open_dataset(digits / "train").sizes, 512, Augmentation(size=16))
    drawn = np.concatenate([plan.cached_views(epoch, 0, 3, apart=True) for epoch in range(4)])
    assert (drawn[:, 0] != drawn[:, 1]).all()
    assert sorted({tuple(pair) for pair in drawn.tolist()}) == [(a, b) for a in range(3) for b in range(3) if a != b]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"objective": "paper"}, "--objective paper needs bags: give --bags DIR"),
        ({"objective": "coss", "teacher": None, "keys": Path("k")}, "needs the lengths of the teacher's outputs"),
        ({"objective": "coss", "teacher_bn": "batch"}, "and teacher-bn=batch makes keys of length one"),
        ({"objective": "seed", "teacher_temperature": -1.0}, "teacher-temperature=-1.0 is not allowed"),
        ({"objective": "seed", "student_ema": 1.0}, "student-ema=1.0 is not allowed"),
        ({"objective": "seed", "local_crops": 7}, "local-crops=7 is not allowed"),
        ({"objective": "disco", "local_crops": 2}, "is for objectives with one view of an image"),
        ({"objective": "seed", "local_crops": 2, "local_scale": (0.5, 0.1)}, "local-scale=.* is not allowed"),
    ],
)
def test_what_an_objective_refuses(changes: dict[str, Any], sentence: str) -> None:
    given = {"data": Path("d"), "out": Path("o"), "teacher": Path("t")} | changes
    with pytest.raises(UserError, match=sentence):
        DistillConfig(**given)
