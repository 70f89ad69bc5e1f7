"""Distillation: the loss of a real step, the keys that enter the queue, and every setting that changes it."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from bingo.bags.file import load_bags
from bingo.config import DistillConfig
from bingo.config_parts import Augmentation, Contrast, Optimiser, Runtime
from bingo.distributed import World
from bingo.images.open import open_dataset
from bingo.models import load_encoder, state_hash
from bingo.stages import Stage, run_stage
from bingo.train.distill import Distillation, view_counts
from bingo.train.lines import read_metrics
from bingo.views.loader import training_batches
from bingo.views.plan import Plan, StepPlan
from tests.support.naive import ce, cross_entropy

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU, 1)


def first_step(config: DistillConfig) -> tuple[Distillation, Plan, list[list[torch.Tensor]], torch.Tensor]:
    """The method with the queue as it was before, its plan, the views of step 0 and the loss it computes for them."""
    dataset = open_dataset(config.data)
    teacher, teacher_hash = load_encoder(config.teacher)
    members = load_bags(config.bags / "bags.npz", dataset_hash=dataset.hash, teacher_hash=teacher_hash).members
    views = view_counts(config)
    plan = Plan(dataset.sizes, config.optim.batch, config.augment, config.seed, views=views, bags=members)
    method = Distillation(config, teacher, plan, ALONE)
    batch = next(training_batches(dataset, plan, ALONE, start=0, stop=1))
    finished = [[method.augment(c, batch.params(g, v)) for v, c in enumerate(cs)] for g, cs in enumerate(batch.crops)]
    before = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in method.queue.state().items()}
    loss, _ = next(method.losses([batch]))
    method.after = method.queue.state() | {"keys": method.queue.keys_KC.clone(), "ids": method.queue.ids_K.clone()}  # type: ignore[attr-defined]
    method.queue.load(before)
    return method, plan, finished, loss


def test_release_step_is_the_formula_on_the_planned_views(config: DistillConfig) -> None:
    method, plan, ((t1, t2), (t3, t4)), loss = first_step(config)
    y0, x0, y1, x1 = plan.cutmix_box(0, 0)
    mixed = t1.clone()
    mixed[:, :, y0:y1, x0:x1] = t3[:, :, y0:y1, x0:x1]
    share = 1 - (y1 - y0) * (x1 - x0) / 256
    student, teacher, queue = method.encoder.train(), method.teacher, method.queue.keys_KC
    with torch.no_grad():
        q, qp, m = student(t1), student(t3), student(mixed)
        k, kp = teacher(t2), teacher(t4)

    def each(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return cross_entropy(a, b, queue, config.contrast.temperature)

    both = 0.5 * (each(q, k) + each(q, kp)) + 0.5 * (each(qp, k) + each(qp, kp))
    expected = (both + share * each(m, k) + (1 - share) * each(m, kp)) / 3
    assert abs(loss.item() - expected.item()) < 1e-5


def test_every_block_of_anchors_is_cut_by_its_own_box(config: DistillConfig) -> None:
    """Blocks of 24 of a batch of 64: the last has 16."""
    method, plan, ((t1, t2), (t3, t4)), loss = first_step(replace(config, cutmix_block=24))
    mixed, shares = t1.clone(), torch.zeros(64, dtype=torch.double)
    for row in range(64):
        y0, x0, y1, x1 = plan.cutmix_box(0, 0, row // 24)
        mixed[row, :, y0:y1, x0:x1] = t3[row, :, y0:y1, x0:x1]
        shares[row] = 1 - (y1 - y0) * (x1 - x0) / 256
    assert len(set(shares.tolist())) == 3
    student, teacher, queue = method.encoder.train(), method.teacher, method.queue.keys_KC
    with torch.no_grad():
        q, qp, m = student(t1), student(t3), student(mixed)
        k, kp = teacher(t2), teacher(t4)
    both = 0.5 * sum(cross_entropy(a, b, queue, 0.2) for a in (q, qp) for b in (k, kp))
    third = [ce(m.double(), key.double(), queue.double(), 0.2) for key in (k, kp)]
    expected = (both + (shares * third[0] + (1 - shares) * third[1]).mean()) / 3
    assert abs(loss.item() - expected.item()) < 1e-5


def test_ranks_cut_the_blocks_of_the_global_batch(config: DistillConfig) -> None:
    """Rows of 3 ranks of 32 in blocks of 24: put together they are those of one rank of 96."""
    dataset = open_dataset(config.data)
    settings = replace(config, cutmix_block=24, optim=replace(config.optim, batch=96))
    bags = np.tile(np.arange(5, dtype=np.int32), (len(dataset), 1))
    plan = Plan(dataset.sizes, 96, config.augment, config.seed, views=(2, 2), bags=bags)
    teacher, _ = load_encoder(config.teacher)
    black, white = torch.zeros(96, 3, 16, 16), torch.ones(96, 3, 16, 16)
    method = Distillation(settings, teacher, plan, ALONE)

    def mixed(method: Distillation, step: StepPlan) -> tuple[torch.Tensor, torch.Tensor]:
        rows, found = len(step.groups[0]), method._weights(step, method.feed)
        parts = [part.mix(black[part.rows], white[part.rows]) for part in found["parts"]]
        assert sum(map(len, parts)) == rows
        return torch.cat(parts), found["weights"][2, 0] if found["mix"] is None else found["mix"]

    whole, shares = mixed(method, plan.step(5))
    parts = [mixed(method, plan.step(5, rank, 3)) for rank in range(3)]
    assert torch.equal(torch.cat([views for views, _ in parts]), whole)
    assert torch.equal(torch.cat([share for _, share in parts]), shares)
    torch.testing.assert_close(1 - whole.mean(dim=(1, 2, 3)), shares)
    one = mixed(Distillation(replace(settings, cutmix_block=96), teacher, plan, ALONE), plan.step(5))
    step = mixed(Distillation(replace(settings, cutmix_block=0), teacher, plan, ALONE), plan.step(5))
    assert torch.equal(one[0], step[0])
    assert one[1] == step[1]
    assert torch.equal(step[0][:24], whole[:24]), "the first block has the step's box"


def test_warm_epochs_use_each_images_own_key(config: DistillConfig) -> None:
    method, _, ((t1, t2), (t3, t4)), loss = first_step(replace(config, warm_epochs=1, cutmix=False))
    student, teacher, queue = method.encoder, method.teacher, method.queue.keys_KC
    with torch.no_grad():
        own = [cross_entropy(student(a), teacher(b), queue, 0.2) for a, b in ((t1, t2), (t3, t4))]
    assert abs(loss.item() - (own[0] + own[1]).item() / 2) < 1e-5


@pytest.mark.parametrize("key_view", ["cross", "same"])
def test_paper_step_is_the_formula(config: DistillConfig, key_view: str) -> None:
    method, _, (anchor, positive), loss = first_step(replace(config, objective="paper", key_view=key_view))
    student, teacher, queue = method.encoder, method.teacher, method.queue.keys_KC
    assert (len(anchor), len(positive)) == ((2, 1) if key_view == "cross" else (1, 1))
    with torch.no_grad():
        key = teacher(anchor[-1])
        expected = sum(cross_entropy(student(view), key, queue, 0.2) for view in (anchor[0], positive[0]))
    assert abs(loss.item() - float(expected)) < 1e-5


def test_only_the_anchors_keys_enter_the_queue_in_batch_order(config: DistillConfig) -> None:
    method, plan, ((_, t2), _), _ = first_step(config)
    with torch.no_grad():
        key = method.teacher(t2)
    torch.testing.assert_close(method.after["keys"][:64], key)  # type: ignore[attr-defined]
    torch.testing.assert_close(method.after["keys"][64:], method.queue.keys_KC[64:])  # type: ignore[attr-defined]
    assert method.after["ids"].tolist() == [*plan.anchors(0, 0), *[-1] * 36]  # type: ignore[attr-defined]
    assert method.after["pointer"] == 64  # type: ignore[attr-defined]


@pytest.mark.parametrize("objective", ["paper", "release"])
def test_strangers_leave_out_the_keys_of_the_image_and_its_bag(config: DistillConfig, objective: str) -> None:
    """Two steps: in the second, the queue holds keys of step 0; the loss equals one over the kept keys alone."""
    contrast = replace(config.contrast, negatives="strangers")
    config = replace(config, contrast=contrast, objective=objective, cutmix=False)
    method, plan, _, _ = first_step(config)
    anchors = plan.anchors(0, 1)
    queue = method.queue
    related = np.concatenate([anchors[:, None], plan.bags[anchors]], axis=1)
    queue.ids_K[:] = torch.from_numpy(np.resize(related[:, 1:3].ravel(), 100).astype(np.int64))
    keys, ids = queue.keys_KC.clone(), queue.ids_K.clone()
    dataset = open_dataset(config.data)
    batch = next(training_batches(dataset, plan, ALONE, start=1, stop=2))
    loss, _ = next(method.losses([batch]))
    views = [[method.augment(c, batch.params(g, v)) for v, c in enumerate(cs)] for g, cs in enumerate(batch.crops)]
    queries = [method.encoder(views[0][0]), method.encoder(views[1][0])]
    teacher_keys = [method.teacher(group[-1]) for group in views]
    expected, kept_some = 0.0, False
    for row, line in enumerate(related):
        kept = keys[torch.tensor([i not in line for i in ids.tolist()])]
        kept_some = kept_some or len(kept) < 100
        parts = [[cross_entropy(q[row : row + 1], k[row : row + 1], kept, 0.2) for k in teacher_keys] for q in queries]
        if objective == "paper":
            expected += (parts[0][0] + parts[1][0]).item()
        else:
            expected += sum(0.25 * p.item() for pair in parts for p in pair)
    assert kept_some
    assert abs(loss.item() - expected / len(anchors)) < 1e-5


def test_the_teacher_is_frozen(config: DistillConfig) -> None:
    before = load_encoder(config.teacher)[1]
    method, _, _, loss = first_step(config)
    loss.backward()
    assert state_hash(method.teacher.state_dict()) == before
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad is not None for p in method.encoder.parameters())


@pytest.mark.slow
@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "change",
    [
        {"objective": "paper"},
        {"view_norm": "joint"},
        {"student": "efficientnet_b0", "augment": Augmentation(size=32), "optim": Optimiser(epochs=1, batch=512)},
        {"runtime": Runtime(threads=1, precision="bf16")},
        {"contrast": Contrast(dim=16, hidden=32, queue=100, queue_dtype="fp16")},
        {"contrast": Contrast(dim=16, hidden=32, queue=50)},
        {"runtime": Runtime(threads=1, channels_last=False)},
        {"runtime": Runtime(threads=1, impl="reference")},
    ],
    ids=lambda c: "-".join(f"{k}" for k in c),
)
def test_settings_train_and_differ_or_agree_as_they_should(config: DistillConfig, change: dict[str, object]) -> None:
    changed = replace(config, out=config.out.with_name("changed"), **change)  # type: ignore[arg-type]
    assert run_stage(Stage("changed", "distill", changed))["figures"]["steps"] >= 1
    losses = [line["loss"] for line in read_metrics(changed.out / "metrics.jsonl", "train")]
    assert all(0 < loss < 30 for loss in losses)
    if change.keys() == {"runtime"} and changed.runtime.precision == "fp32":
        run_stage(Stage("base", "distill", config))
        base = [line["loss"] for line in read_metrics(config.out / "metrics.jsonl", "train")]
        torch.testing.assert_close(torch.tensor(losses), torch.tensor(base), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compile(config: DistillConfig) -> None:
    run_stage(Stage("base", "distill", config))
    compiled = replace(config, out=config.out.with_name("compiled"), runtime=Runtime(threads=1, compile=True))
    run_stage(Stage("compiled", "distill", compiled))
    a, b = (
        torch.tensor([x["loss"] for x in read_metrics(c.out / "metrics.jsonl", "train")]) for c in (config, compiled)
    )
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_training_brings_student_and_teacher_together(config: DistillConfig) -> None:
    """Cross-entropy of one batch against one fixed queue, before and after four epochs."""
    method, _, ((t1, t2), (t3, t4)), _ = first_step(config)

    def loss() -> float:
        with torch.no_grad():
            pairs = [(method.encoder(q), method.teacher(k)) for q, k in ((t1, t2), (t3, t4))]
        return sum(cross_entropy(q, k, method.queue.keys_KC, 0.2).item() for q, k in pairs) / 2

    before = loss()
    run_stage(Stage("run", "distill", replace(config, optim=Optimiser(epochs=4, batch=64, lr=0.1))))
    trained, _ = load_encoder(config.out)
    method.encoder.load_state_dict(trained.state_dict())
    assert loss() < before - 0.5
