"""What a device decides is not in a key: stages of earlier releases stay recognised; what was asked for is compared."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bingo.config import DistillConfig, KeysConfig
from bingo.config_parts import Contrast, Runtime
from bingo.identity import Identity, identify, in_words
from bingo.key_settings import asked_of, other_arithmetic, settings_in_key

pytestmark = pytest.mark.quick
HERE = Path("nowhere")
CONFIG = DistillConfig(data=HERE, out=HERE, bags=HERE, teacher=HERE)
FP32 = replace(CONFIG, runtime=Runtime(precision="fp32"), contrast=Contrast(queue_dtype="fp32"))
KEYS = KeysConfig(HERE, HERE, HERE)


def identity(kind: str, config: Any) -> Identity:
    """As if its inputs were made before it runs."""
    return identify(kind, config, made={HERE})


def test_auto_counts_as_what_the_default_was() -> None:
    """And a key has neither the engine nor the student's compiler, which there was no word for."""
    assert identity("distill", CONFIG).key == identity("distill", FP32).key
    settings = identity("distill", CONFIG).settings
    assert settings["runtime"] == {"precision": "fp32"}
    assert settings["contrast"]["queue_dtype"] == "fp32"
    assert settings_in_key("keys", KEYS)["runtime"]["precision"] == "fp32"
    assert identity("keys", KEYS).settings["runtime"] == {"precision": "fp32"}


@pytest.mark.parametrize("engine", ["plain", "folded", "compiled"])
def test_an_engine_that_is_asked_for_is_in_the_key(engine: Any) -> None:
    asked = replace(KEYS, runtime=Runtime(engine=engine))
    assert identity("keys", asked).settings["runtime"] == {"precision": "fp32", "engine": engine}
    assert identity("keys", asked).key != identity("keys", KEYS).key
    words = in_words({"settings": identity("keys", asked).settings, "version": "0.1.0"}, identity("keys", KEYS))
    assert f"runtime.engine={engine}, not auto" in words


def test_what_auto_was_on_a_gpu_is_no_answer_to_who_asks_for_fp32() -> None:
    auto = identity("distill", CONFIG)
    record: dict[str, Any] = {**auto.to_json(), "outputs": {}}
    on_gpu = {**record, "figures": {"precision": "bf16", "queue_dtype": "bf16", "engine": "compiled"}}
    on_cpu = {**record, "figures": {"precision": None, "queue_dtype": None}}
    asked = identity("distill", FP32)
    assert [auto.is_of(made) for made in (record, on_gpu, on_cpu)] == [True] * 3
    assert [asked.is_of(made) for made in (record, on_gpu, on_cpu)] == [True, False, True]
    said = ["runtime.precision=bf16, not fp32", "contrast.queue_dtype=bf16, not fp32"]
    assert in_words(on_gpu, asked) == other_arithmetic(asked_of(FP32), on_gpu) == said
    assert asked_of(CONFIG) == {}
