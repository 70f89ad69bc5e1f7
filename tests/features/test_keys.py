"""Cached keys: what the cache holds, that it does not depend on ranks or kills, and training from it."""

import json
import logging
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bingo.config import DistillConfig
from bingo.config_parts import Loader, Runtime
from bingo.errors import UserError
from bingo.features import keys as cached_keys
from bingo.features.keys import TORCH, CachedKeys, images_per_block, load_keys
from bingo.files import hash_file
from bingo.images.open import open_dataset
from bingo.kernels.augment import augment
from bingo.models import load_encoder, save_encoder, seeded_encoder
from bingo.stages import Stage, run_stage, stage_key
from bingo.train.distill import Distillation, key_source, run, view_counts
from bingo.views.decode_failures import Failures
from bingo.views.loader import CropStream, training_batches
from bingo.views.plan import Plan
from tests.support.blocks import marked
from tests.support.cached_keys import ALONE, CPU, SMALL, VIEWS, keys_config
from tests.support.naive import cross_entropy
from tests.support.ranks import COUNT_CALLS, finish, start_ranks, wait_for


def test_the_cache_holds_the_teachers_keys_of_the_planned_views(digits: Path, teacher: Path, cache: Path) -> None:
    """Each key against one image, one crop and one forward pass of its own."""
    dataset, encoder = open_dataset(digits / "train"), load_encoder(teacher)[0].eval()
    opened = load_keys(cache, dataset, SMALL, ALONE)
    assert opened.rows_NMC.shape == (len(dataset), VIEWS, 16)
    assert opened.rows_NMC.dtype == np.uint16
    plan = Plan(dataset.sizes, 1, SMALL, 0)
    images, params = [0, 99, 100, len(dataset) - 1], []

    def request(number: int) -> Any:
        image = images[number]
        views = [plan.key_view(image, image + 1, view) for view in range(VIEWS)]
        params.append([view.params for view in views])
        return [(np.array([image]), [(view.start, view.end) for view in views])]

    stream = CropStream(
        dataset, request, 4, [[16] * VIEWS], Failures(dataset), batch=1, device=CPU, threads=1, settings=Loader()
    )
    for image, crops in zip(images, stream, strict=True):
        own = params[images.index(image)]
        views = [
            augment(crop, p, mean=SMALL.mean, std=SMALL.std, blur_kernel=SMALL.blur_kernel)
            for crop, p in zip(crops, own, strict=True)
        ]
        with torch.no_grad():
            expected = encoder(torch.cat(views))
        found = opened.read(np.full(VIEWS, image), np.arange(VIEWS))
        torch.testing.assert_close(found, expected, rtol=0, atol=2**-8)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(VIEWS))
        assert (expected[0] - expected[1]).abs().max() > 2**-8, "the views differ by more than the tolerance"


def test_size_and_time_are_said_before(
    digits: Path, teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config = replace(keys_config(digits, teacher, tmp_path / "keys"), batch=128)
    run_stage(Stage("keys", "keys", config))
    images = len(open_dataset(digits / "train"))
    assert f"keys of {images} images x {VIEWS} views x 16 channels in bf16: " in caplog.text
    blocks = -(-images // 128)
    assert re.search(rf"keys: about \d+ s for the other {blocks - 5} of {blocks} blocks", caplog.text)


def test_views_are_functions_of_image_and_view_alone(digits: Path) -> None:
    dataset = open_dataset(digits / "train")
    plan = Plan(dataset.sizes, 1, SMALL, 3)
    whole, part = plan.key_view(0, 50, 2), plan.key_view(20, 30, 2)
    np.testing.assert_array_equal(whole.start[20:30], part.start)
    np.testing.assert_array_equal(whole.params.brightness[20:30], part.params.brightness)
    assert not np.array_equal(part.params.brightness, plan.key_view(20, 30, 1).params.brightness)
    assert not np.array_equal(part.params.brightness, replace(plan, seed=4).key_view(20, 30, 2).params.brightness)
    training = plan.step(0).views[0]
    assert not any(np.array_equal(whole.params.brightness[:1], view.params.brightness) for view in training)


def test_a_cached_view_stands_for_a_position_whatever_the_batch(digits: Path) -> None:
    sizes = open_dataset(digits / "train").sizes
    large, small = Plan(sizes, 64, SMALL, 1), Plan(sizes, 16, SMALL, 1)
    drawn = large.cached_views(2, 1, 5)
    np.testing.assert_array_equal(drawn, np.concatenate([small.cached_views(2, step, 5) for step in range(4, 8)]))
    assert set(np.unique(drawn)) == set(range(5))
    assert not np.array_equal(drawn[:, 0], drawn[:, 1])
    assert not np.array_equal(drawn, large.cached_views(3, 1, 5))


def test_cached_negatives_are_distinct_images_anew_every_epoch(digits: Path) -> None:
    plan = Plan(open_dataset(digits / "train").sizes, 64, SMALL, 1)
    images, views = plan.cached_negatives(0, 500, 7)
    assert len(np.unique(images)) == 500
    assert set(np.unique(views)) == set(range(7))
    assert not np.array_equal(images, plan.cached_negatives(1, 500, 7)[0])
    np.testing.assert_array_equal(images, plan.cached_negatives(0, 500, 7)[0])


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_keys_come_back_to_the_files_precision(dtype: str) -> None:
    keys = torch.nn.functional.normalize(torch.randn(5, 2, 16), dim=2)
    opened = CachedKeys(cached_keys.as_stored(keys, dtype), dtype, "", CPU, 0)
    rows = opened.read(np.array([4, 0, 4]), np.array([1, 0, 0]))
    expected = torch.nn.functional.normalize(keys[[4, 0, 4], [1, 0, 0]].to(TORCH[dtype]).float(), dim=1)
    assert torch.equal(rows, expected)


def test_other_block_sizes_and_many_views_give_the_same_keys(
    digits: Path, teacher: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With little memory for crops fewer images are decoded together; what they are decoded to is the same."""
    config = keys_config(digits, teacher, tmp_path / "keys")
    monkeypatch.setattr(cached_keys, "CROP_BYTES", 37 * VIEWS * 3 * 16**2)
    assert images_per_block(config) == 37
    run_stage(Stage("keys", "keys", config))
    stored = [torch.from_numpy(np.load(folder / "keys.npy")).view(torch.bfloat16) for folder in (cache, config.out)]
    torch.testing.assert_close(stored[0].float(), stored[1].float(), rtol=0, atol=2**-8)


def words(verb: str, **flags: object) -> list[object]:
    named = {name.replace("__", ".").replace("_", "-"): value for name, value in flags.items()}
    return [verb, *(word for name, value in named.items() for word in (f"--{name}", value))]


def keys_words(digits: Path, teacher: Path, out: Path) -> list[object]:
    flags = {"views": VIEWS, "augment__size": 16, "batch": 100, "runtime__threads": 1}
    return words("keys", data=digits / "train", teacher=teacher, out=out, **flags)


@pytest.mark.slow
def test_two_ranks_killed_and_one_rank_make_the_same_file(
    digits: Path, teacher: Path, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "keys"
    slow = [*keys_words(digits, teacher, out)]
    ranks = start_ranks(slow, 2, program=["-c", SLOW_WRITES])
    marks = out / ".keys.npy.marks"
    wait_for(lambda: marked(marks) > 1, *ranks)
    for process in ranks:
        os.kill(process.pid, signal.SIGKILL)
    finish(ranks)
    assert not (out / "keys.json").exists()
    (result,) = finish(start_ranks(slow, 1))
    assert result[0] == 0, result
    assert hash_file(out / "keys.npy") == hash_file(cache / "keys.npy")
    assert (out / "keys.json").read_text() == (cache / "keys.json").read_text()
    assert sorted(p.name for p in out.glob(".*")) == [".lock"]


SLOW_WRITES = """
import os, sys, time
from bingo.features import blocks
inner = os.pwrite
def slow(*args):
    time.sleep(0.1)
    return inner(*args)
os.pwrite = slow
from bingo.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_disk_without_room_is_one_sentence_before_any_work(
    digits: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"1078 images x 3 views need 0.0 GB, .* has room for 0.0 GB more; choose"):
        run_stage(Stage("keys", "keys", keys_config(digits, teacher, tmp_path / "keys")))
    assert not (tmp_path / "keys").exists()


def first_steps(config: DistillConfig, count: int) -> tuple[Distillation, Plan, list[Any]]:
    dataset = open_dataset(config.data)
    source, _ = key_source(config, dataset, ALONE)
    members = np.load(config.bags / "bags.npz")["bags"]
    plan = Plan(dataset.sizes, config.optim.batch, config.augment, config.seed, views=view_counts(config), bags=members)
    batches = training_batches(dataset, plan, ALONE, start=0, stop=count)
    return Distillation(config, source, plan, ALONE), plan, list(batches)


@pytest.mark.parametrize("negatives", ["queue", "cache"])
@pytest.mark.parametrize("objective", ["paper", "release"])
def test_the_loss_is_the_formula_on_cached_keys(config: DistillConfig, objective: str, negatives: str) -> None:
    """Two steps: in the second, the queue holds the first one's keys, or the epoch's own."""
    config = replace(config, objective=objective, cutmix=False, cached_negatives=negatives)
    method, plan, batches = first_steps(config, 2)
    assert [len(crops) for batch in batches for crops in batch.crops] == [1, 1, 1, 1], "two decoded views per step"
    cache, start = method.cache, method.queue.keys_KC.clone()
    assert cache is not None
    for step, batch in enumerate(batches):
        loss, _ = next(method.losses([batch]))
        (anchors, positives), drawn = batch.plan.groups, plan.cached_views(0, step, VIEWS)
        keys = [cache.read(anchors, drawn[:, 0]), cache.read(positives, drawn[:, 1])]
        if negatives == "cache":
            start = cache.read(*plan.cached_negatives(0, 100, VIEWS))
        queries = [method.encoder(method.augment(batch.crops[group][0], batch.params(group, 0))) for group in range(2)]
        ce = [[cross_entropy(q, k, start, 0.2) for k in keys] for q in queries]
        expected = ce[0][0] + ce[1][0] if objective == "paper" else sum(c for pair in ce for c in pair) / 4
        assert abs(loss.item() - float(expected.detach())) < 1e-5
        if negatives == "queue":
            places = [(64 * step + i) % 100 for i in range(64)]
            start[places] = keys[0]
            assert torch.equal(method.queue.keys_KC, start)
            assert method.queue.ids_K[places].tolist() == anchors.tolist()


def test_strangers_leave_relatives_out_of_cached_negatives(config: DistillConfig) -> None:
    contrast = replace(config.contrast, negatives="strangers", queue=700)
    config = replace(config, contrast=contrast, objective="paper", cached_negatives="cache")
    method, plan, (batch,) = first_steps(config, 1)
    loss, _ = next(method.losses([batch]))
    assert method.cache is not None
    ids, views = plan.cached_negatives(0, 700, VIEWS)
    negatives, related = method.cache.read(ids, views), plan.relatives(batch.plan.groups[0])
    key = method.cache.read(batch.plan.groups[0], plan.cached_views(0, 0, VIEWS)[:, 0])
    queries = [method.encoder(method.augment(batch.crops[group][0], batch.params(group, 0))) for group in range(2)]
    expected, left_out = 0.0, 0
    for row, line in enumerate(related):
        kept = ~np.isin(ids, line)
        left_out += int((~kept).sum())
        expected += sum(
            cross_entropy(q[row : row + 1], key[row : row + 1], negatives[kept], 0.2).item() for q in queries
        )
    assert left_out > 64
    assert abs(loss.item() - expected / 64) < 1e-5


def test_a_stand_in_for_a_bad_image_has_its_own_key_and_the_queue_the_planned_one(config: DistillConfig) -> None:
    """Only the rank that met the bad image knows of it, and the queue must be the same on every rank."""
    config = replace(config, objective="paper")
    method, plan, _ = first_steps(config, 1)
    assert method.cache is not None
    planned, drawn = plan.anchors(0, 0), plan.cached_views(0, 0, VIEWS)[:, 0]
    bad, other = int(planned[5]), int(plan.anchors(0, 1)[0])
    step = plan.step(0, instead={bad: other})
    ((key,),), new = method._cached_keys(method.cache, [step])
    assert torch.equal(key[5:6], method.cache.read(np.array([other]), drawn[5:6]))
    assert new is not None
    assert torch.equal(new, method.cache.read(planned, drawn))
    assert not torch.equal(new[5], key[5])


def test_no_teacher_is_read(config: DistillConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise AssertionError("the teacher was loaded")

    monkeypatch.setattr("bingo.features.alike.load_encoder", refuse)
    for negatives in ("queue", "cache"):
        changed = replace(config, out=config.out.with_name(negatives), cached_negatives=negatives)
        assert run_stage(Stage(negatives, "distill", changed))["figures"]["steps"] == 32


def test_the_runs_key_follows_the_cache(config: DistillConfig, digits: Path, teacher: Path, tmp_path: Path) -> None:
    other = keys_config(digits, teacher, tmp_path / "keys", seed=1)
    run_stage(Stage("keys", "keys", other))
    assert stage_key(Stage("d", "distill", config)) != stage_key(Stage("d", "distill", replace(config, keys=other.out)))


@pytest.mark.parametrize("negatives", ["queue", "cache"])
def test_resume_in_the_middle_of_an_epoch_is_exact(
    config: DistillConfig, monkeypatch: pytest.MonkeyPatch, negatives: str
) -> None:
    pace = Runtime(threads=1, checkpoint_every=5, log_every=1)
    whole, broken = (
        replace(config, out=config.out.with_name(name), cached_negatives=negatives, runtime=pace)
        for name in ("whole", "broken")
    )
    run_stage(Stage("whole", "distill", whole))
    inner = Distillation.losses

    def stop(self: Distillation, shares: Any, **measure: bool) -> Any:
        if shares[0].plan.epoch == 1 and shares[0].plan.step == 11:
            raise InterruptedError
        return inner(self, shares, **measure)

    with monkeypatch.context() as patch:
        patch.setattr(Distillation, "losses", stop)
        with pytest.raises(InterruptedError):
            run_stage(Stage("broken", "distill", broken))
    assert run_stage(Stage("broken", "distill", broken))["figures"]["resumed_from"] == 25  # 16 + 9: mid-epoch
    first, second = (newest(settings.out) for settings in (whole, broken))
    for name, value in first["modules"]["encoder"].items():
        assert torch.equal(value, second["modules"]["encoder"][name]), name
    for name in ("keys", "ids"):
        assert torch.equal(first["queue"][name], second["queue"][name])


def newest(out: Path) -> dict[str, Any]:
    return torch.load(sorted((out / "checkpoints").glob("step-*.pt"))[-1], weights_only=True)


@pytest.mark.slow
def test_two_ranks_and_one_have_the_same_queue_without_a_collective(config: DistillConfig, tmp_path: Path) -> None:
    paths = {"data": config.data, "keys": config.keys, "bags": config.bags, "out": tmp_path / "two"}
    sizes = {"augment__size": 16, "contrast__dim": 16, "contrast__hidden": 32, "contrast__queue": 100}
    pace = {"optim__batch": 64, "optim__epochs": 2, "runtime__threads": 1, "warm_epochs": 0, "student": "tiny"}
    results = finish(start_ranks(words("distill", **paths, **sizes, **pace), 2, program=["-c", COUNT_CALLS]))
    assert [code for code, _ in results] == [0, 0], results
    for _, text in results:
        calls = json.loads(text.split("CALLS ")[1])
        assert not calls.keys() & {"all_gather_single", "all_gather_into_tensor", "all_gather", "broadcast"}
        assert calls["all_reduce"] <= 5, "once the keys are read, and at the flushes of the metrics, one per epoch"
    run_stage(Stage("alone", "distill", config))
    one, two = newest(config.out), newest(tmp_path / "two")
    for name in ("keys", "ids"):  # equal, not only close: no rank has computed a key
        assert torch.equal(one["queue"][name], two["queue"][name])


def test_keys_in_place_of_the_teacher_that_a_config_names(
    config: DistillConfig, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bingo.config_json import to_json
    from bingo.flags import stage_of

    live = tmp_path / "config.json"
    live.write_text(json.dumps({"kind": "distill", **to_json(replace(config, keys=None, teacher=teacher))}))
    assert stage_of("distill", ["--config", str(live), "--keys", "k"]).config.teacher is None
    assert stage_of("distill", ["--config", str(live)]).config.teacher == teacher
    paths = ["--data", "d", "--bags", "b", "--out", "o"]
    taken = stage_of("distill", ["--recipe", "resnet18-r50", "--keys=k", *paths]).config
    assert (taken.teacher, taken.keys) == (None, Path("k"))


def test_bf16_autocast_and_keys_of_another_width(digits: Path, tmp_path: Path, config: DistillConfig) -> None:
    path = tmp_path / "model.pt"
    save_encoder(path, seeded_encoder("tiny-8", dim=8, hidden=32, seed=6))
    made = keys_config(digits, path, tmp_path / "keys")
    half = replace(made, out=tmp_path / "half", runtime=Runtime(threads=1, precision="bf16"))
    dataset, rows = open_dataset(config.data), []
    for settings in (made, half):
        run_stage(Stage("keys", "keys", settings))
        opened = load_keys(settings.out, dataset, SMALL, ALONE)
        rows.append(opened.read(np.arange(50), np.zeros(50, np.int64)))
    assert not torch.equal(*rows)
    torch.testing.assert_close(*rows, rtol=0, atol=0.05)
    with pytest.raises(UserError, match=r"has 8-d keys; set --contrast.dim 8"):
        run(replace(config, keys=made.out), "key", ALONE)
