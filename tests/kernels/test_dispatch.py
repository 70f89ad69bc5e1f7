"""The ops over the queue: which implementation is chosen, and what each of them cannot take."""

import logging
import subprocess
import sys

import pytest
import torch

from bingo.kernels import dispatch, queue_logsumexp, queue_ranks, queue_softmax, resolve_impl
from tests.support.naive import DEVICE, unit_rows
from tests.support.ranks import ROOT

T = 0.2


def test_auto_says_once_what_it_chose(caplog: pytest.LogCaptureFixture) -> None:
    q, queue = unit_rows(2, 16, 0).cpu(), unit_rows(3, 16, 1).cpu()
    dispatch.choose_impl.cache_clear()
    with caplog.at_level(logging.INFO, logger="bingo.kernels.dispatch"):
        queue_softmax(q, queue, T)
        queue_softmax(q, queue, T)
        queue_softmax(q, queue, T, impl="reference")
    assert [record.getMessage() for record in caplog.records] == ["queue_softmax: impl='auto' runs 'chunked' on cpu"]


def test_resolve_impl() -> None:
    assert resolve_impl("auto", "cpu") == "chunked"
    assert resolve_impl("auto", torch.device("cuda", 0)) == "triton"
    assert resolve_impl("reference", "cuda") == "reference"
    assert resolve_impl("triton", DEVICE) == "triton"
    with pytest.raises(ValueError, match="unknown impl 'fast'; the implementations are auto, reference, chunked"):
        resolve_impl("fast", "cpu")
    with pytest.raises(ValueError, match=r"capability 9\.0.*not on a CUDA device; pass impl='triton'"):
        resolve_impl("hopper", "meta")


def test_importing_the_ops_does_not_import_the_compiler() -> None:
    """Its import costs more than all else; the mark that it looks for is the one that torch itself sets."""
    code = "import sys, bingo.kernels; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    marked = torch.compiler.assume_constant_result(lambda: None)
    assert vars(marked) == vars(resolve_impl) == {"_dynamo_marked_constant": True}


def test_triton_on_the_cpu_alone_says_what_it_needs() -> None:
    code = "import torch, bingo.kernels as k; x = torch.ones(2, 16); k.queue_softmax(x, x, 0.2, impl='triton')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "ValueError: impl 'triton' needs CUDA tensors, these are on 'cpu'" in done.stderr
    assert "TRITON_INTERPRET=1" in done.stderr


good = unit_rows(4, 16, 0, torch.float32)


def test_bad_scores_and_gradients_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match=r"scores must be \(4, M\) on .*, not \(3, 1\)"):
        queue_ranks(good, good, good[:3, :1])
    with pytest.raises(ValueError, match="q requires a gradient, which queue_logsumexp has not"):
        queue_logsumexp(good.clone().requires_grad_(), good, T)


@pytest.mark.parametrize("channels", [8, 24, 272])
def test_channels_that_triton_cannot_take(channels: int) -> None:
    x = unit_rows(2, channels, 0, torch.float32)
    with pytest.raises(ValueError, match=f"multiple of 16 up to 256, not {channels}; pass impl='chunked'"):
        queue_softmax(x, x, T, impl="triton")
    assert torch.isfinite(queue_softmax(x, x, T, impl="chunked")[0]).all()


def test_dtypes_that_triton_cannot_take() -> None:
    with pytest.raises(ValueError, match=r"not torch\.float64; pass impl='chunked'"):
        queue_softmax(good.double(), good.double(), T, impl="triton")
