"""The Hopper kernel: its host side, and its partials in every order that a GPU may do its work in."""

import itertools
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.kernels import hopper_queue_softmax as hopper
from bingo.kernels import queue_softmax
from bingo.kernels.device import device_capability
from bingo.kernels.dispatch import partials
from bingo.kernels.reference import queue_softmax_reference
from bingo.kernels.request import Request
from bingo.kernels.triton_combine import combine
from tests.support.naive import DEVICE
from tests.support.on_gpu import POLICIES, REAL, on_gpu
from tests.support.ranks import ROOT
from tests.support.softmax import oracle

T = 0.2
OTHER_GPU = REAL and device_capability(torch.device("cuda", 0)) != hopper.CAPABILITY
needs_hopper = pytest.mark.skipif(OTHER_GPU, reason="the GPU's compute capability is not 9.0")
on_hopper = pytest.mark.parametrize("gpu", [90], indirect=True)


def inputs(rows: int, keys: int, channels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows + keys)
    q_RC = F.normalize(torch.randn(rows, channels, generator=generator), dim=1)
    queue_KC = F.normalize(torch.randn(keys, channels, generator=generator), dim=1).to(dtype)
    return q_RC.to(DEVICE), queue_KC.to(DEVICE)


def empty_outputs(splits: int, q_RC: Tensor) -> tuple[Tensor, Tensor]:
    lse_SR = torch.full((splits, len(q_RC)), torch.nan, device=q_RC.device)
    return lse_SR, torch.full((splits, *q_RC.shape), torch.nan, device=q_RC.device)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": torch.zeros(3, 64, dtype=torch.float64)}, "q is torch.float64"),
        ({"scale": 16.0, "dtype": torch.float16}, "takes up to 14.0.*pass impl='triton' or a larger temperature"),
        ({"scale": 111.0}, "takes up to 100.0"),
        ({"scale": 0.0}, "takes up to 100.0"),
        ({"keys": 250}, "250 keys in splits of 128"),
        ({"keys_per_split": 64}, "256 keys in splits of 64"),
        ({"keys_per_split": 256}, r"lse_SR is \(2, 3\) torch.float32; it must be \(1, 3\) float32"),
        ({"mean": torch.zeros(2, 3, 32)}, r"mean_SRC is \(2, 3, 32\)"),
        ({"q": torch.zeros(64, 3).T}, "must be contiguous"),
    ],
)
def test_partials_are_refused_in_one_sentence(changes: dict, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hopper, "require_hopper", lambda *_: None)
    case = {"scale": 1.0, "dtype": torch.bfloat16, "keys": 256, "keys_per_split": 128} | changes
    q_RC, queue_KC = case.get("q", torch.zeros(3, 64)), torch.zeros(case["keys"], 64, dtype=case["dtype"])
    temperature = math.log2(math.e) / case["scale"] if case["scale"] else math.inf
    request = Request(q_RC, queue_KC, temperature, "hopper", grad="mean" in case)
    lse_SR, mean_SRC = torch.zeros(2, 3), case.get("mean", torch.zeros(0))
    with pytest.raises(ValueError, match=message):
        hopper.hopper_partials(request, case["keys_per_split"], lse_SR, mean_SRC)


def test_no_obstacle_on_a_hopper_gpu() -> None:
    assert hopper.hopper_obstacle((9, 0)) is None
    assert hopper.hopper_obstacle((9, 0), torch.bfloat16, 64) is None
    assert hopper.hopper_obstacle((9, 0), None, 32) == "there are 32 channels"


@needs_hopper
@on_hopper
@pytest.mark.sampled(5)
@pytest.mark.parametrize("keys", [1, 127, 128, 300, 1100])
@pytest.mark.parametrize(("length", "grad"), [(1.0, True), (40.0, True), (40.0, False)])
def test_the_portable_kernel_adds_the_ragged_end_and_repairs(keys: int, length: float, grad: bool) -> None:
    q_RC, queue_KC = inputs(5, keys, 64, torch.float16)
    q_RC[2] *= length
    request = Request(q_RC, queue_KC, T, "hopper", unit_rows=length == 1, grad=grad)
    lse_R, mean_RC = combine(*partials(request), 64, grad=grad)
    expected = queue_softmax_reference(Request(q_RC.double(), queue_KC.double(), T))
    torch.testing.assert_close(lse_R.double(), expected[0], rtol=1e-3, atol=2e-3)
    if grad:
        torch.testing.assert_close(mean_RC.double(), expected[1], rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize(("channels", "width"), [(64, 7), (256, 1)])
def test_more_excluded_ids_than_registers_hold_are_refused(
    channels: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hopper, "require_hopper", lambda *_: None)
    q_RC, queue_KC = inputs(5, 128, channels, torch.float16)
    ids = torch.zeros(128, dtype=torch.int64, device=DEVICE)
    request = Request(q_RC, queue_KC, T, "hopper", ids[None, :width].contiguous(), ids, unit_rows=True)
    with pytest.raises(ValueError, match=f"{width} excluded .* up to 6 with up to 128 channels; pass impl='triton'$"):
        partials(request)


@needs_hopper
@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("policy", "grad", "keys"), [*((policy, True, 640) for policy in POLICIES), (POLICIES[0], False, 450)]
)
def test_excluded_ids_take_no_part(policy: str, grad: bool, keys: int) -> None:
    """Ids that are equal in one half of their bits, negative ones on both sides, a row that loses every key."""
    rows, groups, width = 70, 35, 6
    q_RC, queue_KC = inputs(rows, keys, 128, torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    high, low = (torch.randint(-1, 3, (2, keys + groups * width), generator=generator)).to(DEVICE)
    ids_K, exclude_GE = (high * 2**32 + low).split([keys, groups * width])
    exclude_GE = exclude_GE.reshape(groups, width).clone()
    exclude_GE[1], exclude_GE[2, 1:] = -1, exclude_GE[2, 0]
    alone = torch.full_like(ids_K, 5)
    with on_gpu(90, policy, seed=keys, strict=keys % hopper.KEYS_PER_TILE == 0):
        for ids, exclude in ((ids_K, exclude_GE), (alone, torch.where(exclude_GE == 2, 5, exclude_GE))):
            request = Request(q_RC, queue_KC, T, "hopper", exclude, ids, True, grad=grad)
            lse_R, mean_RC = combine(*partials(request), 128, grad=grad)
            exact = request._replace(q_RC=q_RC.double(), queue_KC=queue_KC.double())
            expected_R, expected_RC = queue_softmax_reference(exact)
            torch.testing.assert_close(lse_R.double(), expected_R, atol=5e-3, rtol=0)
            if grad:
                torch.testing.assert_close(mean_RC.double(), expected_RC, atol=2e-3, rtol=1e-2)
    assert expected_R.isinf().any()
    assert expected_R.isfinite().any()


def partials_cases() -> Iterator[tuple[Any, ...]]:
    """policy, tiles per split, dtype, channels, rows, ragged: all on a GPU; pretended, each policy and tiles once."""
    everything = [*itertools.product(hopper.QUEUE_DTYPES, hopper.CHANNELS, (1, 64, 65, 200), (False, True))]
    for at, (policy, tiles) in enumerate(itertools.product(POLICIES, (1, 2, 3, 4, 5, 9))):
        # 11 and 64 have no common divisor: every dtype, width, number of rows and end comes up.
        for case in everything if REAL else [everything[11 * at % len(everything)]]:
            yield policy, tiles, *case


@needs_hopper
@pytest.mark.slow  # the cases with many tiles and channels
@pytest.mark.sampled(6)
@pytest.mark.parametrize(("policy", "tiles_per_split", "dtype", "channels", "rows", "ragged"), list(partials_cases()))
def test_partials_equal_the_reference(
    policy: str, tiles_per_split: int, dtype: torch.dtype, channels: int, rows: int, ragged: bool
) -> None:
    keys_per_split = tiles_per_split * hopper.KEYS_PER_TILE
    keys = keys_per_split + 128 if ragged else keys_per_split
    with on_gpu(90, policy, seed=rows + tiles_per_split, strict=True):
        check_partials(*inputs(rows, keys, channels, dtype), keys_per_split)


def check_partials(q_RC: Tensor, queue_KC: Tensor, keys_per_split: int) -> None:
    lse_SR, mean_SRC = empty_outputs(math.ceil(len(queue_KC) / keys_per_split), q_RC)
    request = Request(7 * q_RC, queue_KC, T, "hopper", normalize=True)
    hopper.hopper_partials(request, keys_per_split, lse_SR, mean_SRC)
    rounded_RC = (q_RC * request.scale).to(queue_KC.dtype).double()
    for split, part_KC in enumerate(queue_KC.double().split(keys_per_split)):
        lse_R, mean_RC = queue_softmax_reference(Request(rounded_RC, part_KC, math.log2(math.e)))
        torch.testing.assert_close(lse_SR[split].double(), lse_R * math.log2(math.e), atol=1e-3, rtol=0)
        torch.testing.assert_close(mean_SRC[split].double(), mean_RC, atol=2e-3, rtol=1e-2)
    only_SR, nothing = empty_outputs(len(lse_SR), q_RC)
    hopper.hopper_partials(request._replace(grad=False), keys_per_split, only_SR, nothing)
    torch.testing.assert_close(only_SR, lse_SR)


@needs_hopper
def test_partials_are_bitwise_repeatable() -> None:
    """Whatever the order in which warps and copies take their turns."""
    rows, keys, splits, repeats = (300, 65536, 64, 200) if REAL else (130, 512, 2, 4)
    q_RC, queue_KC = inputs(rows, keys, 128, torch.bfloat16)
    first, again = empty_outputs(splits, q_RC), empty_outputs(splits, q_RC)
    request = Request(q_RC, queue_KC, T, "hopper")
    for seed in range(1 + repeats):
        with on_gpu(90, POLICIES[seed % len(POLICIES)], seed=seed, strict=True):
            hopper.hopper_partials(request, keys // splits, *(again if seed else first))
        assert not seed or all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@needs_hopper
@on_hopper
def test_the_op_runs_the_kernel_and_gives_its_gradient() -> None:
    q_RC, queue_KC = inputs(5, 300, 64, torch.bfloat16)
    mine, exact = q_RC.clone().requires_grad_(), q_RC.double().requires_grad_()
    lse_R, _ = queue_softmax(mine, queue_KC, T, impl="hopper", unit_rows=True)
    truth_R, _ = oracle(exact, queue_KC, T)
    torch.testing.assert_close(lse_R.double(), truth_R, rtol=0, atol=3e-3)
    (ours,), (theirs,) = torch.autograd.grad(lse_R.sum(), mine), torch.autograd.grad(truth_R.sum(), exact)
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=2e-2)


@pytest.mark.parametrize(
    ("capability", "dtype", "channels", "obstacle"),
    [
        (None, torch.bfloat16, 128, "the tensors are not on a CUDA device"),
        ((8, 0), torch.bfloat16, 128, "the device's is 8.0"),
        ((10, 0), torch.bfloat16, 128, "the device's is 10.0"),
        ((9, 0), torch.float32, 128, "the queue is float32"),
        ((9, 0), torch.float16, 96, "there are 96 channels"),
    ],
)
def test_hopper_refuses_in_one_sentence(
    capability: tuple[int, int] | None, dtype: torch.dtype, channels: int, obstacle: str
) -> None:
    with pytest.raises(ValueError, match=f"compute capability 9.0.*but {obstacle}; pass impl='triton'$"):
        hopper.require_hopper(capability, dtype, channels)


def test_hopper_needs_gluon_but_its_module_does_not() -> None:
    code = """
import sys
sys.modules["triton.experimental.gluon"] = None  # its import fails
import torch, bingo.kernels
from bingo.kernels.aot import hopper_variants
from bingo.kernels.hopper_queue_softmax import require_hopper
assert not hopper_variants()
require_hopper((9, 0), torch.bfloat16, 128)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "has no usable Gluon; pass impl='triton'" in done.stderr
