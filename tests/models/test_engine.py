"""A frozen network as an engine gives what the network gives; what cannot become one stays as it is, and says so."""

import copy
import logging
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bingo.config_parts import Contrast, Engine, Runtime
from bingo.models import Encoder, autocast, compiled_or_not, frozen_engine, seeded_encoder
from bingo.models.arithmetic import COMPILE_STEPS, engine_of, precision_of, queue_dtype_of, student_is_compiled
from bingo.models.heads import Head

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
NORMS = nn.modules.batchnorm._BatchNorm


def lived(encoder: Encoder) -> Encoder:
    """With batch norms that do something: statistics, scales and offsets of a network that was trained."""
    generator = torch.Generator().manual_seed(3)
    for module in encoder.modules():
        if isinstance(module, NORMS):
            for value, low, high in (
                (module.running_mean, -0.2, 0.2), (module.running_var, 0.5, 1.5),
                (module.weight, 0.5, 1.5), (module.bias, -0.2, 0.2),
            ):  # fmt: skip
                assert value is not None
                value.data.uniform_(low, high, generator=generator)
    return encoder.eval()


def network(name: str) -> Encoder:
    return lived(seeded_encoder(name, dim=16, hidden=32, seed=1))


def engine_and_keys(
    encoder: Encoder, kind: Engine, rows: int, size: int, asked: int
) -> tuple[Encoder, torch.Tensor, torch.Tensor]:
    """The engine for `rows` images, and the keys of `asked` images by it and by the network itself."""
    images = torch.randn(asked, 3, size, size, generator=torch.Generator().manual_seed(1))
    images = images.contiguous(memory_format=torch.channels_last)
    expected = encoder(images)
    engine = frozen_engine(encoder, Runtime(engine=kind), CPU, rows=rows, size=size)
    return engine, engine(images), expected.detach()


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("name", "size", "kind"),
    [
        ("tiny", 16, "folded"),
        ("resnet18", 32, "folded"),
        ("mobilenet_v3_small", 32, "folded"),
        pytest.param("tiny", 16, "compiled", marks=COMPILER),
        pytest.param("resnet18", 32, "compiled", marks=[COMPILER, pytest.mark.slow]),
        pytest.param("mobilenet_v3_small", 32, "compiled", marks=[COMPILER, pytest.mark.slow]),
        pytest.param("resnet50", 32, "folded", marks=pytest.mark.slow),
        pytest.param("resnet50", 32, "compiled", marks=[COMPILER, pytest.mark.slow]),
    ],
)
def test_the_keys_are_the_networks(name: str, size: int, kind: Engine) -> None:
    """For the number of images that it was made for, and for more and fewer, which are cut and padded."""
    encoder = network(name)
    before = copy.deepcopy(encoder.state_dict())
    engine, found, expected = engine_and_keys(encoder, kind, rows=2, size=size, asked=5)
    assert engine.engine == kind
    assert not any(isinstance(module, NORMS) for module in engine.modules())
    assert 0 < (found - expected).abs().max() < 1e-5, "close to it, and computed otherwise"
    assert engine.name == name and engine.dim == 16 and not found.requires_grad  # noqa: PT018
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, before[key]), "the network itself is left as it was"


def test_a_head_with_batch_norm_is_folded_too() -> None:
    encoder = lived(Encoder("tiny", head=Head("LBRL", (32, 16))))
    engine, found, expected = engine_and_keys(encoder, "folded", rows=2, size=16, asked=3)
    assert not any(isinstance(module, NORMS) for module in engine.modules())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_plain_is_the_network_itself_and_auto_is_plain_on_a_cpu() -> None:
    encoder = network("tiny")
    runtime = Runtime(engine="plain")
    assert frozen_engine(encoder, runtime, CPU, rows=2, size=16) is encoder
    assert frozen_engine(encoder, Runtime(), CPU, rows=2, size=16) is encoder
    assert encoder.engine == "plain"
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_bf16_weights_are_rounded_once_as_autocast_rounds_them() -> None:
    encoder = network("tiny-8")
    runtime = Runtime(engine="folded", precision="bf16")
    engine = frozen_engine(encoder, runtime, CPU, rows=4, size=16)
    images = torch.randn(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    exact = frozen_engine(encoder, Runtime(engine="folded"), CPU, rows=4, size=16)
    with autocast(runtime, CPU):
        found, expected = engine(images), exact(images)
    assert {value.dtype for value in engine.parameters()} == {torch.bfloat16}
    assert torch.equal(found, expected)


class Deep(nn.Module):
    """What a tracer cannot follow: a loop whose length the images decide."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for _ in range(len(images)):
            images = images + 0
        return self.inner(images)


def test_a_network_that_cannot_be_traced_keeps_its_batch_norm_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    encoder = network("tiny")
    encoder.backbone = Deep(encoder.backbone)
    with caplog.at_level(logging.INFO, logger="bingo.models.engine"):
        _, found, expected = engine_and_keys(encoder, "folded", rows=2, size=16, asked=2)
    assert "tiny: batch norm of the backbone stays, it cannot be traced (" in caplog.text
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def broken(*_: Any, **__: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    def fail(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no compiler here\nand more")

    return fail


def test_a_compiler_that_fails_costs_one_sentence(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", broken)
    engine, found, expected = engine_and_keys(network("tiny"), "compiled", rows=2, size=16, asked=3)
    assert engine.engine == "folded"
    assert "tiny: cannot be compiled, and runs folded (no compiler here)" in caplog.text
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    encoder = network("tiny")
    project = compiled_or_not(encoder.project, "tiny")
    images = torch.randn(2, 3, 16, 16)
    assert all(torch.equal(project(images), encoder.project(images)) for _ in range(2))
    assert caplog.text.count("tiny: cannot be compiled, and runs as it is (no compiler here)") == 1


def test_an_engine_that_gives_other_features_is_not_taken(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(module: nn.Module, dynamic: bool) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda images: F.normalize(module(images).flip(1), dim=1)

    monkeypatch.setattr(torch, "compile", wrong)
    encoder = network("tiny")
    assert frozen_engine(encoder, Runtime(engine="compiled"), CPU, rows=2, size=16) is encoder
    assert "tiny runs as it is: its compiled engine gives other features (by " in caplog.text


@COMPILER
def test_other_numbers_of_images_are_no_reason_to_compile_again() -> None:
    torch.compiler.reset()
    engine = frozen_engine(network("tiny"), Runtime(engine="compiled"), CPU, rows=4, size=16)
    with torch.compiler.set_stance("fail_on_recompile"):
        for asked in (4, 1, 9):
            assert engine.features(torch.randn(asked, 3, 16, 16)).shape == (asked, 16)


def test_what_auto_stands_for() -> None:
    free = Runtime()
    assert [precision_of(free, device) for device in (CPU, GPU)] == ["fp32", "bf16"]
    assert [engine_of(free, device) for device in (CPU, GPU)] == ["plain", "compiled"]
    assert [queue_dtype_of(Contrast(), precision) for precision in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert [student_is_compiled(free, GPU, steps) for steps in (COMPILE_STEPS - 1, COMPILE_STEPS)] == [False, True]
    assert not student_is_compiled(free, CPU, COMPILE_STEPS)
    told = Runtime(precision="fp32", engine="folded", compile=True)
    assert (precision_of(told, GPU), engine_of(told, GPU), student_is_compiled(told, CPU, 1)) == (
        "fp32",
        "folded",
        True,
    )
    assert queue_dtype_of(Contrast(queue_dtype="fp16"), "bf16") == "fp16"
    assert not autocast(Runtime(), CPU)._enabled


def test_a_gpu_without_bf16_stays_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5) if index == 7 else (9, 0))
    assert [precision_of(Runtime(), torch.device("cuda", at)) for at in (7, 8)] == ["fp32", "bf16"]
