"""A run keeps its arithmetic for life: what `auto` was when it began holds wherever it goes on."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bingo.config import DistillConfig
from bingo.config_parts import Contrast, Engine, Runtime
from bingo.errors import UserError
from bingo.models import load_encoder
from bingo.stages import Stage, run_stage
from bingo.train.arithmetic import EARLIER, arithmetic, settled
from bingo.train.checkpoint import checkpoint_path
from bingo.watch import Leaving, Watch

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
LONG = 1_000_000
COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")


class Impatient(Watch):
    """Asks to leave after so many steps."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def beat(self, step: int) -> None:
        if step == self.after:
            self.asked = "SIGUSR2"


def stage(config: DistillConfig, out: Path, **runtime: Any) -> Stage:
    return Stage("run", "distill", replace(config, out=out, runtime=replace(config.runtime, **runtime)))


def test_a_run_is_settled_by_its_device(config: DistillConfig) -> None:
    on_gpu = dict(zip(EARLIER, ("bf16", "compiled", True, "bf16"), strict=True))
    assert arithmetic(settled(config, CPU, LONG)) == EARLIER
    assert arithmetic(settled(config, GPU, LONG)) == on_gpu
    assert arithmetic(settled(config, GPU, 10)) == {**on_gpu, "runtime.compile": False}, "too short to pay for it"
    told = replace(
        config,
        runtime=Runtime(precision="fp32", engine="folded"),
        contrast=replace(config.contrast, queue_dtype="fp16"),
    )
    assert list(arithmetic(settled(told, GPU, 10)).values()) == ["fp32", "folded", False, "fp16"]


def test_without_a_frozen_teacher_there_is_no_engine(config: DistillConfig) -> None:
    cached = replace(config, teacher=None, keys=config.teacher)
    for other in (cached, replace(config, teacher_bn="batch")):
        assert settled(other, GPU, LONG).runtime.engine == "plain"
    with pytest.raises(UserError, match=r"engine=folded has the teacher's batch norm inside.*leave out --runtime"):
        replace(config, teacher_bn="batch", runtime=Runtime(engine="folded"))


def test_what_was_begun_goes_on_as_it_was_begun(config: DistillConfig) -> None:
    gpu = arithmetic(settled(config, GPU, LONG))
    assert arithmetic(settled(config, CPU, LONG, {"arithmetic": gpu})) == gpu, "on a CPU too"
    assert arithmetic(settled(config, GPU, LONG, {})) == EARLIER, "of a release that had no auto"
    half = replace(config, runtime=Runtime(precision="bf16", compile=True))
    assert list(arithmetic(settled(half, GPU, LONG, {})).values()) == ["bf16", "plain", True, "fp32"], "as it was told"
    fallen = {**gpu, "runtime.engine": "folded"}  # the compiler failed when it was begun
    compiled = replace(config, runtime=Runtime(engine="compiled"))
    assert settled(compiled, GPU, LONG, {"arithmetic": fallen}).runtime.engine == "folded"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"runtime": Runtime(precision="fp32")}, "runtime.precision=bf16, not fp32: leave out --runtime.precision"),
        ({"contrast": Contrast(queue_dtype="fp32")}, "queue_dtype=bf16, not fp32: leave out --contrast.queue-dtype"),
    ],
)
def test_another_arithmetic_than_it_was_begun_with_is_refused(
    config: DistillConfig, change: dict[str, Any], said: str
) -> None:
    begun = {"arithmetic": arithmetic(settled(config, GPU, LONG))}
    with pytest.raises(UserError, match=said):
        settled(replace(config, **change), GPU, LONG, begun)


@pytest.mark.parametrize("engine", ["folded", pytest.param("compiled", marks=COMPILER)])
def test_a_run_with_an_engine_resumes_to_the_last_bit(config: DistillConfig, tmp_path: Path, engine: Engine) -> None:
    """Left in the middle of its epoch; its checkpoints and its record say how it rounds."""
    whole, left = (stage(config, tmp_path / name, engine=engine) for name in ("whole", "left"))
    figures = run_stage(whole)["figures"]
    assert (figures["engine"], figures["precision"]) == (engine, None)
    with pytest.raises(Leaving):
        run_stage(left, watch=Impatient(7))
    saved = torch.load(checkpoint_path(left.out / "checkpoints", 7), weights_only=True)
    assert saved["arithmetic"] == {**EARLIER, "runtime.engine": engine}
    assert run_stage(left)["figures"]["resumed_from"] == 7
    expected, found = (load_encoder(run.out)[0].state_dict() for run in (whole, left))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
