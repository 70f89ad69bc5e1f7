"""What the kernels ask about a device, and that nothing of a pretended one outlives it."""

from typing import Any

import pytest
import torch

from bingo.kernels import dispatch, knn
from bingo.kernels.device import device_capability, device_limits, is_interpreted, pretend_device, runs_triton
from tests.support.on_gpu import REAL

CPU = torch.device("cpu")


def answers() -> dict[str, Any]:
    """Everything that depends on the device, a refusal as its words."""
    found: dict[str, Any] = {"limits": device_limits(CPU), "capability": device_capability(CPU)}
    found |= {"runs": runs_triton("cpu"), "auto": (dispatch.choose_impl("auto", CPU), knn.choose_nearest("auto", CPU))}
    for impl in ("triton", "hopper"):
        try:
            found[impl] = dispatch.choose_impl(impl, CPU)
        except ValueError as refusal:
            found[impl] = str(refusal)
    return found


def test_a_pretended_device_answers_and_leaves_nothing_behind() -> None:
    before = answers()
    with pretend_device(90, 132):
        hopper = answers()
        with pretend_device(120, 3):
            other = answers()
        assert answers() == hopper
    assert answers() == before
    assert hopper == {
        "limits": (90, 132), "capability": (9, 0), "runs": True, "auto": ("chunked", "reference"),
        "triton": "triton", "hopper": "hopper",
    }  # fmt: skip
    assert (other["limits"], other["capability"]) == ((120, 3), (12, 0))
    assert "the device's is 12.0; pass impl='triton'" in other["hopper"]


def test_it_ends_with_an_error_too() -> None:
    before = answers()
    with pytest.raises(RuntimeError, match="inside"), pretend_device(120, 3):
        raise RuntimeError(f"inside {device_limits(CPU)}")
    assert answers() == before


@pytest.mark.skipif(REAL, reason="of a GPU of one's own nothing is pretended")
@pytest.mark.parametrize("gpu", [80, 90, 100], indirect=True)
def test_the_tests_gpu_is_one_for_driver_and_package(gpu: Any) -> None:
    assert device_limits(CPU) == (gpu.arch, gpu.multiprocessors)
    assert device_capability(CPU) == divmod(gpu.arch, 10)


def test_other_devices_are_not_pretended() -> None:
    meta = torch.device("meta")
    assert not is_interpreted()
    with pretend_device(90, 132):
        assert not runs_triton("meta")
        assert runs_triton("cuda")
        assert device_capability(meta) is None
        with pytest.raises(ValueError, match="impl 'triton' needs CUDA tensors, these are on 'meta'"):
            dispatch.choose_impl("triton", meta)
