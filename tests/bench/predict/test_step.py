"""A predicted step: arithmetic by hand on tiny networks, links, buckets, the loader."""

from dataclasses import replace

import pytest
import torch

from bingo.bench.predict import network
from bingo.bench.predict.flow import Kernel
from bingo.bench.predict.gpus import GPUS
from bingo.bench.predict.ladder import CACHED, LADDER, RELEASE
from bingo.bench.predict.step import PARTS, Job, Variant, kernels_of_step, predict, seconds
from bingo.models import Encoder
from bingo.models.costs import forward_flops

H100 = GPUS["H100"]
TINY = Job("tiny-4", "tiny-8", 32, rows=16, queue=512, dim=16, hidden=32)


def test_a_kernel_takes_the_longest_of_three() -> None:
    product = Kernel("mm", "other", flops=int(6e12), dtype=torch.bfloat16, reads={(0, 0): 10})
    copy = Kernel("copy_", "elementwise", reads={(0, 0): int(2.9e9)})
    tiny = Kernel("add", "elementwise")
    convolution = Kernel("convolution", "other", flops=int(3e12))
    found = [seconds([kernel], H100) for kernel in (product, copy, tiny, convolution)]
    assert found == pytest.approx([0.01, 0.001, 3e-6, 0.01], rel=1e-6)


def test_flops_are_those_of_the_networks() -> None:
    """A forward pass for each teacher's view, three for each of the student's, all but the first layer's input."""
    kernels = kernels_of_step(TINY, Variant("ours"))
    teacher, student = (
        forward_flops(Encoder(name, dim=16, hidden=32), 32) * TINY.rows * views
        for name, views in ((TINY.teacher, 2), (TINY.student, 3))
    )
    assert sum(kernel.flops for kernel in kernels["teacher"]) == teacher
    counted = sum(kernel.flops for kernel in kernels["student"])
    assert 2.5 * student < counted < 3 * student, "the first layer has no gradient of its images"


def test_the_ladder_only_goes_up() -> None:
    times = {variant.name: predict(TINY, variant, H100).gpu_s for variant in LADDER}
    rungs = [times[RELEASE], *(times[f"+ {name}"] for name in ("teacher compiled", "student compiled"))]
    assert rungs == sorted(rungs, reverse=True)
    assert times[CACHED] < rungs[-1]
    assert times["teacher by cuDNN's fused calls"] < rungs[-1]


def test_a_graph_takes_the_launches_from_the_host() -> None:
    eager, graph = (predict(TINY, Variant("ours", graph=on), H100) for on in (False, True))
    assert (eager.bound, graph.bound) == ("host", "loader")
    assert eager.seconds == pytest.approx(eager.launches * H100.host_s)
    assert graph.seconds == pytest.approx(sum(graph.parts[part] for part in PARTS))


def test_the_loader_works_ahead() -> None:
    slow = predict(TINY, Variant("ours", graph=True), replace(H100, decoder=0.0), cores=1)
    assert slow.bound == "loader"
    assert slow.images_per_second == pytest.approx(440 / 2), "two images are decoded for one of the batch"
    assert slow.hours(1600, 36) == pytest.approx(36 * 100 * 32 / 440 / 3600)


def test_the_paper_objective_is_smaller() -> None:
    paper = kernels_of_step(replace(TINY, objective="paper"), Variant("ours"))
    release = kernels_of_step(TINY, Variant("ours"))
    ratio = {p: sum(k.flops for k in release[p]) / sum(k.flops for k in paper[p]) for p in ("teacher", "student")}
    assert ratio == pytest.approx({"teacher": 2.0, "student": 1.5})


def test_an_all_reduce_by_hand() -> None:
    machine = replace(H100, nvlink=100.0, network=10.0, node_alpha_s=0.5, network_alpha_s=0.25)
    assert network.all_reduce_s(1000, machine, 1, 1) == 0
    assert network.all_reduce_s(1000, machine, 1, 4) == pytest.approx(0.5 + 1.5 * 10)
    assert network.all_reduce_s(1000, machine, 4, 4) == pytest.approx(0.5 + 2 * 0.25 + 1.5 * 10 + 1.5 * 25)
    assert network.all_reduce_s(1000, machine, 2, 1) == pytest.approx(0.25 + 100)
    assert network.all_gather_s(100, machine, 1, 3) == pytest.approx(0.5 + 2)


def test_buckets_are_those_of_ddp() -> None:
    mib = 1 << 20
    assert network.buckets([30 * mib, 20 * mib, 6 * mib, 2 * mib]) == [(2 * mib, 1), (26 * mib, 3), (30 * mib, 4)]
    assert network.buckets([8, 8]) == [(16, 2)]


def test_only_what_the_backward_pass_does_not_hide_is_waited_for() -> None:
    machine = replace(H100, nvlink=1e6, node_alpha_s=0.0)
    sizes = [2 << 20, 2 << 20]  # two buckets: half way and at the end
    each = network.all_reduce_s(2 << 20, machine, 1, 2)
    assert network.exposed_s(sizes, 1.0, 1, machine, 1, 2) == pytest.approx(2 * each - 0.5)
    assert network.exposed_s(sizes, 100.0, 1, machine, 1, 2) == pytest.approx(each)
    assert network.exposed_s(sizes, 1.0, 2, machine, 1, 2) == pytest.approx(2 * each - 0.25), "ready a view later"


def test_stragglers_grow_with_the_ranks() -> None:
    machine = replace(H100, straggler=0.01)
    steps = [predict(replace(TINY, per_node=count), Variant("ours"), machine) for count in (1, 2, 8)]
    behind = [step.straggler_s for step in steps]
    assert behind[0] == 0 < behind[1] < behind[2]
