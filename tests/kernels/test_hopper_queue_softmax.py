"""The Hopper kernel's host side anywhere, and its partials on a GPU of compute capability 9.0."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from bingo.kernels import hopper_queue_softmax as hopper
from bingo.kernels.dispatch import partials
from bingo.kernels.reference import queue_softmax_reference
from bingo.kernels.splits import Request
from bingo.kernels.triton_combine import combine
from bingo.kernels.triton_queue_softmax import is_interpreted

SCALE = math.log2(math.e) / 0.2
ON_HOPPER = torch.cuda.is_available() and hopper.device_capability(torch.device("cuda", 0)) == hopper.CAPABILITY


def inputs(rows: int, keys: int, channels: int, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows + keys)
    q_RC = F.normalize(torch.randn(rows, channels, generator=generator), dim=1)
    queue_KC = F.normalize(torch.randn(keys, channels, generator=generator), dim=1).to(dtype)
    return q_RC.to(device), queue_KC.to(device)


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
    lse_SR, mean_SRC = torch.zeros(2, 3), case.get("mean")
    with pytest.raises(ValueError, match=message):
        hopper.hopper_partials(q_RC, queue_KC, case["scale"], case["keys_per_split"], lse_SR, mean_SRC, normalize=False)


def test_no_obstacle_on_a_hopper_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    assert hopper.hopper_obstacle((9, 0)) is None
    assert hopper.hopper_obstacle((9, 0), torch.bfloat16, 64) is None
    assert hopper.hopper_obstacle((9, 0), None, 32) == "there are 32 channels"


def stand_in(
    q_RC: Tensor, queue_KC: Tensor, scale: float, per_split: int, lse_SR: Tensor, mean_SRC: Any, *, normalize: bool
) -> None:
    """What the Hopper kernel is to write, from the reference: only whole tiles reach it."""
    assert len(queue_KC) % hopper.KEYS_PER_TILE == 0
    assert per_split % hopper.KEYS_PER_TILE == 0
    unit_RC = F.normalize(q_RC.float(), dim=1) if normalize else q_RC.float()
    for split, part_KC in enumerate(queue_KC.float().split(per_split)):
        z_RK = scale * unit_RC @ part_KC.T
        sums_R = torch.exp2(z_RK).sum(1)  # overflows where the kernel does
        lse_SR[split] = torch.log2(sums_R)
        if mean_SRC is not None:
            mean_SRC[split] = torch.exp2(z_RK) @ part_KC / sums_R[:, None]


@pytest.mark.skipif(not is_interpreted(), reason="the portable kernel beside it runs in the interpreter here")
@pytest.mark.parametrize("keys", [1, 127, 128, 300, 1100])
@pytest.mark.parametrize("length", [1.0, 40.0])
@pytest.mark.parametrize("grad", [True, False])
def test_the_portable_kernel_adds_the_ragged_end_and_repairs(
    keys: int, length: float, grad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hopper, "hopper_partials", stand_in)
    q_RC, queue_KC = inputs(5, keys, 64, torch.float16, "cpu")
    q_RC[2] *= length
    request = Request(q_RC, queue_KC, SCALE, normalize=False, trusted=length == 1, grad=grad)
    lse_R, mean_RC = combine(*partials(request, "hopper"), 64, grad=grad)
    expected = queue_softmax_reference(q_RC.double(), queue_KC.double(), 0.2, None, None)
    torch.testing.assert_close(lse_R.double(), expected[0], rtol=1e-3, atol=2e-3)
    if grad:
        torch.testing.assert_close(mean_RC.double(), expected[1], rtol=1e-2, atol=2e-3)


def test_excluded_ids_are_refused() -> None:
    q_RC, queue_KC = inputs(5, 128, 64, torch.float16, "cpu")
    ids = torch.zeros(128, dtype=torch.int64)
    request = Request(q_RC, queue_KC, SCALE, False, True, True, exclude_GE=ids[:1, None], ids_K=ids)
    with pytest.raises(ValueError, match="cannot leave keys out, but exclude is given; pass impl='triton'"):
        partials(request, "hopper")


@pytest.mark.gpu
@pytest.mark.skipif(not ON_HOPPER, reason="needs a CUDA GPU of compute capability 9.0")
@pytest.mark.parametrize("dtype", hopper.QUEUE_DTYPES)
@pytest.mark.parametrize("channels", hopper.CHANNELS)
@pytest.mark.parametrize("tiles_per_split", [1, 2, 3, 4, 5, 9])
def test_partials_equal_the_reference(dtype: torch.dtype, channels: int, tiles_per_split: int) -> None:
    keys_per_split = tiles_per_split * hopper.KEYS_PER_TILE
    for rows, keys in itertools.product((1, 64, 65, 200), (keys_per_split, 2 * keys_per_split + 128)):
        q_RC, queue_KC = inputs(rows, keys, channels, dtype, "cuda")
        lse_SR, mean_SRC = empty_outputs(math.ceil(keys / keys_per_split), q_RC)
        hopper.hopper_partials(7 * q_RC, queue_KC, SCALE, keys_per_split, lse_SR, mean_SRC, normalize=True)
        rounded_RC = (q_RC * SCALE).to(dtype).double()
        for split, part_KC in enumerate(queue_KC.double().split(keys_per_split)):
            lse_R, mean_RC = queue_softmax_reference(rounded_RC, part_KC, math.log2(math.e), None, None)
            torch.testing.assert_close(lse_SR[split].double(), lse_R * math.log2(math.e), atol=1e-3, rtol=0)
            torch.testing.assert_close(mean_SRC[split].double(), mean_RC, atol=2e-3, rtol=1e-2)
        only_SR, _ = empty_outputs(len(lse_SR), q_RC)
        hopper.hopper_partials(7 * q_RC, queue_KC, SCALE, keys_per_split, only_SR, None, normalize=True)
        torch.testing.assert_close(only_SR, lse_SR)


@pytest.mark.gpu
@pytest.mark.skipif(not ON_HOPPER, reason="needs a CUDA GPU of compute capability 9.0")
def test_partials_are_bitwise_repeatable() -> None:
    q_RC, queue_KC = inputs(300, 65536, 128, torch.bfloat16, "cuda")
    first, again = empty_outputs(64, q_RC), empty_outputs(64, q_RC)
    hopper.hopper_partials(q_RC, queue_KC, SCALE, 1024, *first, normalize=False)
    for _ in range(200):
        hopper.hopper_partials(q_RC, queue_KC, SCALE, 1024, *again, normalize=False)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
