"""Keys whose batch norm sees blocks of the shuffled global batch, in distillation and in pre-training."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bingo.bags.file import load_bags
from bingo.config import DistillConfig, PretrainConfig
from bingo.config_parts import Augmentation, Optimiser, Runtime
from bingo.distributed import World
from bingo.errors import UserError
from bingo.images.open import open_dataset
from bingo.models import Encoder, load_encoder, state_hash
from bingo.train.block_norm import keys_in_blocks, use_batch_statistics
from bingo.train.distill import Distillation
from bingo.train.pretrain import MoCo
from bingo.views.loader import training_batches
from bingo.views.plan import Plan
from tests.support.naive import cross_entropy

ALONE = World(0, 1, torch.device("cpu"), 1)
SMALL = Runtime(threads=1)


@torch.no_grad()
def naive(network: Encoder, views: torch.Tensor, order: np.ndarray) -> torch.Tensor:
    """Train mode on 32 images after the other in the planned order, 37 where 5 are left over."""
    keys = torch.empty(len(views), network.dim)
    for block in np.array_split(order, len(order) // 32):
        keys[block] = network.train()(views[block])
    return keys


@pytest.fixture
def small(config: DistillConfig) -> DistillConfig:
    return replace(config, teacher_bn="batch", optim=replace(config.optim, batch=74))


@pytest.mark.parametrize("objective", ["paper", "release"])
def test_teacher_keys_of_a_step(small: DistillConfig, objective: str) -> None:
    config = replace(small, objective=objective, cutmix=False)
    dataset = open_dataset(config.data)
    teacher, content = load_encoder(config.teacher)
    members = load_bags(config.bags / "bags.npz", dataset_hash=dataset.hash, teacher_hash=content).members
    views = (2, 1) if objective == "paper" else (2, 2)
    plan = Plan(dataset.sizes, 74, config.augment, config.seed, views=views, bags=members)
    method = Distillation(config, teacher, plan, ALONE)
    before = method.queue.keys_KC.clone()
    (batch,) = training_batches(dataset, plan, ALONE, start=1, stop=2)
    anchor, positive = (
        [method.augment(c, batch.params(g, v)) for v, c in enumerate(crops)] for g, crops in enumerate(batch.crops)
    )
    loss, _ = next(method.losses([batch]))
    fresh, _ = load_encoder(config.teacher)
    k = naive(fresh, anchor[1], plan.shuffled(0, 1, 0))
    evaluated = load_encoder(config.teacher)[0].eval()(anchor[1])
    assert (k * evaluated).sum(1).min() < 0.99, "another mode, other keys"
    torch.testing.assert_close(method.queue.keys_KC[:74], k, atol=1e-6, rtol=0)
    with torch.no_grad():
        q, qp = (method.encoder.train()(group[0]) for group in (anchor, positive))
    if objective == "paper":
        expected = cross_entropy(q, k, before, 0.2) + cross_entropy(qp, k, before, 0.2)
    else:
        kp = naive(fresh, positive[1], plan.shuffled(0, 1, 1))
        pairs = [cross_entropy(a, b, before, 0.2) for a in (q, qp) for b in (k, kp)]
        expected = 0.5 * torch.stack(pairs).sum() / 2
    assert abs(loss.item() - expected.item()) < 1e-5


def test_moco_keys_of_a_step(config: DistillConfig) -> None:
    settings = PretrainConfig(
        data=config.data, out=config.out, model="tiny", contrast=config.contrast, augment=config.augment,
        key_bn="shuffle", key_momentum=0.5,
    )  # fmt: skip
    dataset = open_dataset(settings.data)
    plan = Plan(dataset.sizes, 64, settings.augment, settings.seed, views=(2,))
    method = MoCo(settings, plan, ALONE)
    before, start = method.queue.keys_KC.clone(), state_hash(method.encoder.state_dict())
    (batch,) = training_batches(dataset, plan, ALONE, start=0, stop=1)
    view_q, view_k = (method.augment(crop, batch.params(0, v)) for v, crop in enumerate(batch.crops[0]))
    loss, _ = next(method.losses([batch]))
    twin = MoCo(replace(settings, key_bn="eman"), plan, ALONE).encoder
    assert state_hash(twin.state_dict()) == start, "both begin with the weights of the seed"
    k = naive(twin, view_k, plan.shuffled(0, 0, 0))
    torch.testing.assert_close(method.queue.keys_KC[:64], k, atol=1e-6, rtol=0)
    with torch.no_grad():
        query = twin.train()(view_q)
    assert abs(loss.item() - cross_entropy(query, k, before, 0.2).item()) < 1e-5
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.add_(1.0)
    old = [parameter.clone() for parameter in method.key_encoder.parameters()]
    method.after_step()
    for was, query, key in zip(old, method.encoder.parameters(), method.key_encoder.parameters(), strict=True):
        torch.testing.assert_close(key, 0.5 * was + 0.5 * query)
    assert not list(method.key_encoder.buffers())


class Threads:
    """Ranks as threads, of which `gather_rows` is all that keys need."""

    device = torch.device("cpu")

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, parts: dict[int, torch.Tensor]) -> None:
        self.rank, self.size, self.barrier, self.parts = rank, size, barrier, parts

    def gather_rows(self, rows: torch.Tensor) -> Callable[[], torch.Tensor]:
        self.parts[self.rank] = rows.contiguous()  # as a gather sends them
        self.barrier.wait(60)
        out = torch.cat([self.parts[rank] for rank in range(self.size)])
        self.barrier.wait(60)
        return lambda: out


@pytest.mark.parametrize(("batch", "size"), [(96, 2), (108, 3), (64, 4), (8, 2)])
def test_keys_do_not_depend_on_the_number_of_ranks(batch: int, size: int) -> None:
    """Blocks that do not divide, fewer of them than ranks, and a batch below one block: the bits of one process."""
    network = Encoder("tiny", dim=16, hidden=16).eval().requires_grad_(False)
    use_batch_statistics(network, "--teacher-bn batch")
    views = torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    views = views.contiguous(memory_format=torch.channels_last)
    order = np.random.default_rng(0).permutation(batch)
    whole = keys_in_blocks(network, views, order, SMALL, ALONE)
    barrier, parts, found = threading.Barrier(size), {}, {}

    def work(rank: int) -> None:
        share = views.chunk(size)[rank]
        found[rank] = keys_in_blocks(network, share, order, SMALL, Threads(rank, size, barrier, parts))

    workers = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(found) == list(range(size))
    assert all(torch.equal(found[rank], whole) for rank in range(size))
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(batch))
    assert not torch.equal(keys_in_blocks(network, views, np.arange(batch), SMALL, ALONE), whole) or batch < 64


def test_orders_are_planned() -> None:
    plan = Plan(np.full((300, 2), 20), 74, Augmentation(size=16))
    orders = [plan.shuffled(epoch, step, group) for epoch in (0, 1) for step in (0, 3) for group in (0, 1)]
    assert all(sorted(order.tolist()) == list(range(74)) for order in orders)
    assert len({order.tobytes() for order in orders}) == len(orders)
    np.testing.assert_array_equal(plan.shuffled(1, 3, 1), orders[-1])


def test_a_network_without_batch_norm() -> None:
    encoder = Encoder("tiny", dim=16, hidden=16)
    for name, module in list(encoder.backbone.named_children()):
        if isinstance(module, nn.BatchNorm2d):
            setattr(encoder.backbone, name, nn.Identity())
    with pytest.raises(UserError, match="--teacher-bn batch is for networks with batch norm, and tiny has none"):
        use_batch_statistics(encoder, "--teacher-bn batch")


def test_cached_keys_are_of_no_batch() -> None:
    paths = {name: Path(name) for name in ("data", "out", "bags", "keys")}
    with pytest.raises(UserError, match=r"teacher-bn=batch .* no cache holds: set --teacher instead of --keys"):
        DistillConfig(**paths, teacher_bn="batch")


def test_statistics_of_one_image() -> None:
    paths, one = {name: Path(name) for name in ("data", "out")}, Optimiser(batch=1)
    for setting, make in (
        (
            "teacher-bn=batch",
            lambda: DistillConfig(**paths, bags=Path(), teacher=Path(), optim=one, teacher_bn="batch"),
        ),
        ("key-bn=shuffle", lambda: PretrainConfig(**paths, optim=one, key_bn="shuffle")),
    ):
        with pytest.raises(
            UserError, match=f"{setting} takes statistics of the batch, which is one image: set --optim"
        ):
            make()
