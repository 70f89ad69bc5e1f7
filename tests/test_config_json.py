"""Settings as JSON and back; wrong keys and values are one sentence."""

import contextlib
import itertools
import json
from pathlib import Path

import pytest

from bingo.config import BagsConfig, DistillConfig, PretrainConfig
from bingo.config_evaluation import EvalConfig
from bingo.config_flags import MISSING, defaults
from bingo.config_json import from_json, from_record, to_json, to_record
from bingo.config_parts import Monitor, TrainingLoader
from bingo.errors import UserError
from bingo.stages import KINDS
from tests.support.settings import HOSTILE, changed, least, one_sentence, places

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"studnt": "resnet18"}, r"unknown key 'studnt'; did you mean 'student'"),
        ({"objective": "papier"}, r"objective: 'papier' is not allowed; did you mean 'paper'"),
        (
            {"contrast": {"temperature": 0.0}},
            r"contrast.temperature=0.0 is not allowed: it must be between 0.001 and 1000",
        ),
        ({"contrast": {"temperature": -1}}, r"contrast.temperature=-1.0 is not allowed"),
        ({"optim": {"batch": "many"}}, r"batch: 'many' is not allowed: it must be a whole number"),
        (
            {"loader": {"hw_decoder_load": 1.5}},
            r"loader.hw-decoder-load=1.5 is not allowed: .* between 0 and 1",
        ),
        (
            {"loader": {"prefetch": 0}},
            r"loader.prefetch=0 is not allowed: it must be between 1 and 64",
        ),
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


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_values_in_every_place_are_one_sentence_or_fine(kind: str) -> None:
    """What is taken is finite and written back as it was read; what is not is refused in one line."""
    usual = least(kind)
    assert isinstance(from_json(KINDS[kind].config, usual), KINDS[kind].config)
    for place, (name, value) in itertools.product(places(usual), HOSTILE.items()):
        with contextlib.suppress(UserError), one_sentence((place, name)):
            config = from_json(KINDS[kind].config, changed(usual, place, value), "file.json")
            text = json.dumps(to_json(config), allow_nan=False)
            assert from_json(KINDS[kind].config, json.loads(text)) == config, (place, name)
            assert "-0.0" not in text


@pytest.mark.parametrize(
    ("kind", "place", "names"),
    [
        ("distill", "augment.scale", "list of one, 3, null, two texts, two numbers, four numbers, one as text"),
        ("distill", "augment", "null, list, 3, unknown keys, nested"),
        ("distill", "optim", "list"),
        ("distill", "out", "null, list, empty, zero byte, half a character, no home, long, 3"),
        ("distill", "seed", "2^63, 2^70, minus, half, true, one as text, 4000 digits"),
        ("distill", "augment.size", "10^6, zero, null"),
        ("distill", "runtime.threads", "10^6, minus"),
        ("distill", "optim.lr", "infinite, nan, 1e300, 4000 digits, zero, true"),
        ("distill", "optim.epochs", "10^12, zero"),
        ("distill", "student", "zero byte, long, 3"),
        ("pack", "shard_gib", "infinite, nan, zero, true"),
        ("pack", "workers", "10^6"),
        ("keys", "views", "true, zero, 10^6"),
        ("bags", "k", "10^30, zero"),
        ("bags", "seed", "minus"),
        ("eval", "k", "10^30"),
        ("eval", "kinds", "list, twice, two texts, null, list of one"),
        ("eval", "linear_lr", "nan, zero, infinite"),
        ("eval", "linear_min_lr", "nan, zero, half, infinite"),
        ("eval", "linear_epochs", "zero, half, 10^12"),
        ("eval", "linear_batch", "zero, null"),
        ("eval", "protocol", "null, empty, 3"),
        ("eval", "crop_scale", "two numbers, list of one, null"),
        ("eval", "flip_p", "nan, minus, 3"),
        ("eval", "finetune", "null, list, unknown keys"),
        ("eval", "finetune.fraction", "zero, minus, nan, 3"),
        ("eval", "finetune.head_lr", "zero, nan, infinite"),
        ("eval", "finetune.names", "zero byte, empty, 3"),
        ("eval", "augment.std", "nan, four numbers, zero"),
        ("export", "classes", "zero, minus, 10^6"),
    ],
)
def test_values_out_of_bounds_are_refused(kind: str, place: str, names: str) -> None:
    for name in names.split(", "):
        with pytest.raises(UserError):
            from_json(KINDS[kind].config, changed(least(kind), place, HOSTILE[name]))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missing_is_named(kind: str) -> None:
    for name, default in defaults(KINDS[kind].config).items():
        values = least(kind)
        if values.pop(name, None) is not None and default is MISSING:
            with pytest.raises(UserError, match=f"file.json: '{name}' is missing"):
                from_json(KINDS[kind].config, values, "file.json")


def test_a_home_folder_and_a_name_that_looks_like_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = from_json(PretrainConfig, {"data": "~/d/train", "out": "./~x", "monitor": {"val": "~"}})
    assert (config.data, config.out, config.monitor.val) == (Path("/home/me/d/train"), Path("~x"), Path("/home/me"))
    assert to_json(config)["out"] == "./~x"


def test_a_record_is_read_back_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = PretrainConfig(data=Path("d"), out=Path("/o"), monitor=Monitor(val=Path("v")))
    record = json.loads(json.dumps(to_record("pretrain", config)))
    assert (record["kind"], record["cwd"], record["data"]) == ("pretrain", str(tmp_path), "d")
    monkeypatch.chdir("/")
    found = from_record(PretrainConfig, record, "config.json")
    assert (found.data, found.out, found.monitor.val) == (tmp_path / "d", Path("/o"), tmp_path / "v")
    del record["cwd"]  # as earlier releases wrote it
    assert from_record(PretrainConfig, record, "config.json") == config


def test_bags_keep_their_own_kind() -> None:
    config = BagsConfig(data=Path("/d"), out=Path("/o"), kind="random")
    assert from_record(BagsConfig, to_record("bags", config), "config.json") == config


def test_a_record_of_a_run_in_a_deleted_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "cwd" not in to_record("pretrain", PretrainConfig(data=Path("/d"), out=Path("/o")))
