"""TensorBoard and W&B show what is in metrics.jsonl, each step once; whatever happens to them, the training goes on."""

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bingo.aside import own_files
from bingo.config import DistillConfig
from bingo.config_parts import Monitor
from bingo.distributed import World
from bingo.errors import UserError
from bingo.identity import identify, output_hashes
from bingo.key_settings import settings_in_key
from bingo.stages import Stage, run_stage
from bingo.train import sinks
from bingo.train.metrics import Metrics
from bingo.train.sinks import Sinks, check_sinks, quantities

ALONE = World(0, 1, torch.device("cpu"), 1)
Points = dict[str, list[tuple[int, float]]]


def of_tensorboard(out: Path) -> Points:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(point.step, point.value) for point in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def of_wandb(out: Path) -> Points:
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = (out / "wandb").glob("offline-run-*/run-*.wandb")
    data, points, place = path.read_bytes(), Points(), 7
    assert len(data) < 1 << 15, "one block of LevelDB's log: records of a checksum, a length, a kind and the content"
    while place < len(data):
        end = place + 7 + int.from_bytes(data[place + 4 : place + 6], "little")
        record, place = Record.FromString(data[place + 7 : end]), end
        if record.WhichOneof("record_type") == "history":
            row = {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            for name, value in row.items():
                if name[0] != "_":
                    points.setdefault(name, []).append((row["_step"], value))
    return points


READERS: Mapping[str, Callable[[Path], Points]] = {"tensorboard": of_tensorboard, "wandb": of_wandb}


def with_sinks(config: DistillConfig, *names: Any) -> DistillConfig:
    config.out.mkdir(parents=True, exist_ok=True)
    return replace(config, monitor=Monitor(sinks=names))


def train(config: DistillConfig, steps: range, begun: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the loop does of each logged step: every second one. The state after the first two thirds is returned."""
    metrics, state = Metrics(config.out / "metrics.jsonl", ALONE, begun), dict[str, Any]()
    with Sinks(config, main=True) as shown:
        metrics.readers.append(shown.take)
        for step in steps:
            logged = torch.tensor([0.25, 0.5, 0.75, 9.0]) if step % 2 else None
            metrics.step(torch.tensor(5.0 - step), {"step": step, "epoch": 0, "time": 1e9 + step}, logged)
            if step == steps.start + 2 * len(steps) // 3:
                metrics.evaluation(step + 1, 1, 0.5, 0, rankme=7.5)
                state = {"step": step + 1, **metrics.state()}
        metrics.flush()
    return state


@pytest.mark.parametrize("name", READERS)
def test_after_a_resume_no_step_is_there_twice(config: DistillConfig, name: str) -> None:
    """A run that was killed behind its checkpoint, whose sink knows more than that."""
    pytest.importorskip(name, reason=f"{name} is not installed: pip install {name}")
    shown = with_sinks(config, name)
    state = train(shown, range(9), None)
    train(shown, range(state["step"], 12), state)
    found = READERS[name](config.out)
    assert found["train/loss"] == [(step + 1, 5.0 - step) for step in (1, 3, 5, 7, 9, 11)]
    assert found["train/spread"] == [(step, 0.75) for step in (2, 4, 6, 8, 10, 12)]
    assert found["eval/rankme"] == [(7, 7.5), (11, 7.5)]
    assert "train/step" not in found


def test_a_line_as_quantities() -> None:
    line = {"kind": "train", "step": 3, "epoch": 0, "time": 1.5, "lr": 0.1, "loss": 2.0}
    assert dict(quantities({**line, "top1": 0.5})) == {"train/lr": 0.1, "train/loss": 2.0, "train/top1": 0.5}
    assert dict(quantities(line)) == {}, "only logged steps"
    assert dict(quantities({"kind": "eval", "step": 4, "epoch": 1, "knn": 0.5, "left_out": 0})) == {
        "eval/knn": 0.5, "eval/left_out": 0
    }  # fmt: skip
    assert dict(quantities({"kind": "bad", "step": 4, "index": 7, "path": "x"})) == {}


def test_a_missing_package_is_one_sentence(config: DistillConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = r"monitor.sinks=wandb needs wandb, which is not installed: pip install 'bingo-distill\[wandb\]', or leave"
    with pytest.raises(UserError, match=said):
        run_stage(Stage("run", "distill", with_sinks(config, "wandb")))
    check_sinks(())


class Failing:
    """Takes some quantities, then no more."""

    def __init__(self, config: DistillConfig) -> None:
        self.left = 3

    def put(self, found: Mapping[str, float], steps: int, seconds: float | None) -> None:
        self.left -= 1
        if not self.left:
            raise RuntimeError("its service has ended\nand more")

    def close(self) -> None:
        raise AssertionError("it is gone")


def test_a_sink_that_fails_stops_nothing(
    config: DistillConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sinks.OPEN, "wandb", Failing)
    train(with_sinks(config, "wandb"), range(12), None)
    said = "nothing more goes to wandb (its service has ended); metrics.jsonl has everything"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_a_rank_that_writes_no_metrics_opens_none(config: DistillConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sinks.OPEN, "wandb", lambda config: pytest.fail("opened"))
    with Sinks(with_sinks(config, "wandb"), main=False) as shown:
        shown.take([{"kind": "eval", "step": 1, "epoch": 1, "knn": 0.5}])


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(UserError, match=r"monitor.sinks=.* is not allowed: it must be tensorboard or wandb, each once"):
        Monitor(sinks=("wandb", "wandb"))


def test_sinks_are_no_part_of_a_key_and_their_files_no_outputs(config: DistillConfig) -> None:
    shown = with_sinks(config, "tensorboard", "wandb")
    assert identify("distill", shown).key == identify("distill", config).key
    assert settings_in_key("distill", config)["monitor"].keys() == {"val", "every"}
    for name in ("tensorboard/events.out.tfevents.1", "wandb/offline-run-1/run-1.wandb"):
        (config.out / name).parent.mkdir(parents=True)
        (config.out / name).touch()
        assert name in list(own_files(config.out, "distill")), "moved aside with the rest"
    assert output_hashes(config.out) == {}
