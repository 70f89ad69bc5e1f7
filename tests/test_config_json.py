"""Settings as JSON and back; wrong keys and values are one sentence."""

import json
from pathlib import Path

import pytest

from bingo.config import DistillConfig, EvalConfig, PretrainConfig
from bingo.config_json import from_json, to_json
from bingo.config_parts import TrainingLoader
from bingo.errors import UserError

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"studnt": "resnet18"}, r"unknown key 'studnt'; did you mean 'student'"),
        ({"objective": "papier"}, r"objective: 'papier' is not allowed; did you mean 'paper'"),
        ({"contrast": {"temperature": 0.0}}, r"contrast.temperature=0.0 is not allowed: it must be > 0"),
        ({"contrast": {"temperature": -1}}, r"contrast.temperature=-1.0 is not allowed"),
        ({"optim": {"batch": "many"}}, r"batch: 'many' is not a int"),
        (
            {"loader": {"hw_decoder_load": 1.5}},
            r"loader.hw-decoder-load=1.5 is not allowed: .* between 0 and 1",
        ),
        ({"loader": {"prefetch": 0}}, r"loader.prefetch=0 is not allowed: it must be >= 1; set --loader.prefetch"),
        ({"loader": {"max_bad": -1}}, r"loader.max-bad=-1.0 is not allowed: it must be between 0 and 1"),
        ({"loader": {"size_hint": True}}, r"unknown key 'size_hint'; did you mean 'size_hints'"),
        ({"augment": {"scale": [0.5, 0.2]}}, r"augment.scale=\(0.5, 0.2\) is not allowed"),
    ],
)
def test_wrong_settings(values: dict[str, object], message: str) -> None:
    paths = {"data": "d", "out": "o", "teacher": "t", "bags": "b"}
    with pytest.raises(UserError, match=message):
        from_json(DistillConfig, {**paths, **values})


def test_round_trip_of_configs() -> None:
    for config in (
        DistillConfig(data=Path("d"), out=Path("o"), teacher=Path("t"), bags=Path("b"), objective="paper"),
        PretrainConfig(data=Path("d"), out=Path("o"), loader=TrainingLoader(0.5, False, prefetch=4, max_bad=0.25)),
        EvalConfig(run=Path("r"), train=Path("t"), val=Path("v"), out=Path("o"), kinds=("knn",)),
    ):
        assert from_json(type(config), json.loads(json.dumps(to_json(config)))) == config
