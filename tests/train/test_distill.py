"""Training: the loss of a real step, the queue, what is and is not communicated, and every setting that changes it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bingo.bags.file import load_bags
from bingo.config import DistillConfig, PretrainConfig
from bingo.config_parts import Augmentation, Contrast, Optimiser, Runtime
from bingo.distributed import World
from bingo.errors import UserError
from bingo.images.open import open_dataset
from bingo.kernels.ring import write_keys
from bingo.models import load_encoder, state_hash
from bingo.stages import Stage, run_stage
from bingo.train.distill import Bingo, view_counts
from bingo.train.loop import check_run
from bingo.train.metrics import read_metrics
from bingo.train.pretrain import MoCo
from bingo.train.queue import KeyQueue
from bingo.views.loader import training_batches
from bingo.views.plan import Plan
from tests.support.naive import cross_entropy
from tests.support.ranks import COUNT_CALLS, ROOT, finish, start_ranks, wait_for

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU, 1)


@pytest.fixture
def config(digits: Path, teacher: Path, bags: Path, tmp_path: Path) -> DistillConfig:
    return DistillConfig(
        data=digits / "train",
        out=tmp_path / "run",
        teacher=teacher,
        bags=bags,
        student="tiny",
        warm_epochs=0,
        contrast=Contrast(dim=16, hidden=32, queue=100),
        augment=Augmentation(size=16),
        optim=Optimiser(epochs=1, batch=64),
        runtime=Runtime(threads=1),
    )


def first_step(config: DistillConfig) -> tuple[Bingo, Plan, list[list[torch.Tensor]], torch.Tensor]:
    """The method with the queue as it was before, its plan, the views of step 0 and the loss it computes for them."""
    dataset = open_dataset(config.data)
    teacher, teacher_hash = load_encoder(config.teacher)
    members = load_bags(config.bags / "bags.npz", dataset_hash=dataset.hash, teacher_hash=teacher_hash).members
    views = view_counts(config)
    plan = Plan(dataset.sizes, config.optim.batch, config.augment, config.seed, views=views, bags=members)
    method = Bingo(config, teacher, plan, ALONE)
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

    def ce(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return cross_entropy(a, b, queue, config.contrast.temperature)

    both = 0.5 * (ce(q, k) + ce(q, kp)) + 0.5 * (ce(qp, k) + ce(qp, kp))
    expected = (both + share * ce(m, k) + (1 - share) * ce(m, kp)) / 3
    assert abs(loss.item() - expected.item()) < 1e-5


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


def test_measured_steps_know_how_often_the_own_key_is_nearest(config: DistillConfig) -> None:
    run_stage(Stage("run", "distill", replace(config, runtime=Runtime(threads=1, log_every=5))))
    lines = read_metrics(config.out / "metrics.jsonl", "train")
    measured = [line["step"] for line in lines if "top1" in line]
    assert measured == [step for step in range(len(lines)) if (step + 1) % 5 == 0 or step + 1 == len(lines)]
    assert all(0 <= line["top1"] <= line["top5"] <= 1 for line in lines if "top1" in line)


def test_a_queue_that_holds_most_of_the_dataset_is_warned_about(
    config: DistillConfig, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = open_dataset(config.data)
    for negatives, warned in (("all", 1), ("strangers", 0)):
        caplog.clear()
        large = replace(config.contrast, queue=len(dataset) - 1, negatives=negatives)
        check_run(replace(config, contrast=large), dataset, ALONE)
        assert sum("relatives of each among its negatives" in r.getMessage() for r in caplog.records) == warned


def test_the_teacher_is_frozen(config: DistillConfig) -> None:
    before = load_encoder(config.teacher)[1]
    method, _, _, loss = first_step(config)
    loss.backward()
    assert state_hash(method.teacher.state_dict()) == before
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(p.grad is not None for p in method.encoder.parameters())


@pytest.mark.slow
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


def test_a_loss_that_is_not_finite_stops_the_run_naming_the_step(config: DistillConfig) -> None:
    wild = replace(config, optim=Optimiser(epochs=2, batch=64, lr=1e30), runtime=Runtime(threads=1, log_every=1))
    with pytest.raises(UserError, match=r"the loss is (nan|inf|-inf) at step \d+; lower --optim.lr"):
        run_stage(Stage("wild", "distill", wild))
    assert not (config.out / "model.pt").exists()


def test_moco_keys_follow_by_momentum(config: DistillConfig) -> None:
    settings = PretrainConfig(
        data=config.data,
        out=config.out,
        model="tiny",
        key_momentum=0.9,
        contrast=config.contrast,
        augment=config.augment,
    )
    dataset = open_dataset(settings.data)
    plan = Plan(dataset.sizes, settings.optim.batch, settings.augment, settings.seed, views=(2,))
    method = MoCo(settings, plan, ALONE)
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(1.0)
        old = [p.clone() for p in method.key_encoder.parameters()]
        method.after_step()
    for before, query, key in zip(old, method.encoder.parameters(), method.key_encoder.parameters(), strict=True):
        torch.testing.assert_close(key, 0.9 * before + 0.1 * query)
    assert not method.key_encoder.training


@pytest.mark.parametrize("batch", [1, 7, 10, 25])
def test_the_ring_keeps_the_last_keys(batch: int) -> None:
    queue = KeyQueue(10, 4, dtype="fp32", device=CPU, seed=0)
    torch.testing.assert_close(queue.keys_KC.norm(dim=1), torch.ones(10))
    history = torch.arange(3 * batch * 4, dtype=torch.float32).view(-1, 4)
    for part in history.split(batch):
        write_keys(queue.keys_KC, queue.ids_K, queue.entry(part, part[:, 0].long()))
    held = {tuple(row.tolist()) for row in queue.keys_KC}
    pointer = queue.state()["pointer"]
    assert {tuple(row.tolist()) for row in history[-10:]} <= held
    assert pointer == 3 * batch % 10
    if len(history) >= 10:
        newest = queue.keys_KC[(pointer - 1) % 10]
        torch.testing.assert_close(newest, history[-1])
        assert torch.equal(queue.ids_K, queue.keys_KC[:, 0].long())


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_queue_comes_back_from_its_state_exactly(dtype: str) -> None:
    queue, other = (KeyQueue(10, 4, dtype=dtype, device=CPU, seed=seed) for seed in (0, 1))
    write_keys(queue.keys_KC, queue.ids_K, queue.entry(torch.rand(13, 4), torch.arange(13)))
    other.load(queue.state())
    for name in ("keys_KC", "ids_K", "cursor"):
        assert torch.equal(getattr(queue, name), getattr(other, name))


@pytest.mark.slow
def test_one_gather_per_step_and_no_broadcast(distill_words: Callable[[Path], list[str]], tmp_path: Path) -> None:
    """Counted at torch.distributed: DDP's own gradient reduction runs below it."""
    results = finish(start_ranks(distill_words(tmp_path / "run"), 2, program=["-c", COUNT_CALLS]))
    assert [code for code, _ in results] == [0, 0], results
    counted = [json.loads(out.split("CALLS ")[1]) for _, out in results]
    steps = json.loads((tmp_path / "run" / "stage.json").read_text())["figures"]["steps"]
    for calls in counted:
        assert calls.get("all_gather_single", 0) + calls.get("all_gather_into_tensor", 0) == steps
        assert "broadcast" not in calls
        assert "all_gather" not in calls
        assert calls["all_reduce"] <= steps  # one per flush of the metrics
        assert calls["all_reduce aside"] <= steps + 1  # shall we leave? answered a step later


@pytest.fixture
def distill_words(digits: Path, teacher: Path, bags: Path) -> Callable[[Path], list[str]]:
    def words(out: Path) -> list[str]:
        paths = {"data": digits / "train", "teacher": teacher, "bags": bags, "out": out}
        sizes = {"augment.size": 16, "contrast.dim": 16, "contrast.hidden": 32, "contrast.queue": 100}
        pace = {"optim.batch": 64, "optim.epochs": 2, "student": "tiny", "runtime.threads": 1}
        return ["distill", *(str(w) for k, v in {**paths, **sizes, **pace}.items() for w in (f"--{k}", v))]

    return words


@pytest.mark.slow
def test_a_second_writer_is_refused(distill_words: Callable[[Path], list[str]], tmp_path: Path) -> None:
    words = [*distill_words(tmp_path / "run"), "--optim.epochs", "2000"]
    (first,) = start_ranks(words, 1)
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists())
    second = subprocess.run(
        [sys.executable, "-m", "bingo", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    first.kill()
    finish([first])
    assert second.returncode == 2
    assert "another process is writing" in second.stderr
