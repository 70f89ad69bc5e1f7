"""metrics.jsonl: each step once, whole lines only, and a loss that is not finite."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bingo.config import DistillConfig
from bingo.config_parts import Optimiser, Runtime
from bingo.distributed import World
from bingo.errors import TransientError, UserError
from bingo.files import hash_file
from bingo.stages import Stage, run_stage
from bingo.train.lines import in_words, newest_line, ranges, read_lines, read_metrics
from bingo.train.metrics import ALL_THERE, Metrics

ALONE = World(0, 1, torch.device("cpu"), 1)


def test_a_loss_that_is_not_finite_stops_the_run_naming_the_step(config: DistillConfig) -> None:
    wild = replace(config, optim=Optimiser(epochs=2, batch=64, lr=1e6), runtime=Runtime(threads=1, log_every=1))
    said = r"^the student's queries are not finite: the loss is (nan|inf|-inf) at step \d+; lower --optim.lr"
    with pytest.raises(UserError, match=said):
        run_stage(Stage("wild", "distill", wild))
    assert not (config.out / "model.pt").exists()


def test_a_first_loss_that_is_not_finite_may_be_the_inputs(tmp_path: Path) -> None:
    """Nothing was learned yet: the learning rate alone cannot be to blame."""
    metrics = Metrics(tmp_path / "metrics.jsonl", ALONE)
    metrics.step(torch.tensor(float("nan")), {"step": 0, "epoch": 0})
    with pytest.raises(UserError, match=r"the loss is nan at step 0; .*the teacher, its keys or the images may hold"):
        metrics.flush()


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_losses_are_written_when_flushed(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", ALONE)
    metrics.step(torch.tensor(2.0, requires_grad=True), {"step": 0, "epoch": 0})
    metrics.step(torch.tensor(3.0), {"step": 1, "epoch": 0}, torch.tensor([0.25, 0.5, 0.75, 9.0]))
    assert metrics.path.read_text() == ""
    state = metrics.state()
    assert state["metrics_offset"] == metrics.path.stat().st_size
    assert state["metrics_hash"] == hash_file(metrics.path)
    assert lines(metrics.path) == [
        {"kind": "train", "step": 0, "epoch": 0, "loss": 2.0},
        {
            "kind": "train",
            "step": 1,
            "epoch": 0,
            "top1": 0.25,
            "top5": 0.5,
            "spread": 0.75,
            "weight_norm": 9.0,
            "loss": 3.0,
        },
    ]
    assert metrics.newest == {"top1": 0.25, "top5": 0.5, "spread": 0.75, "weight_norm": 9.0, "loss": 3.0}
    assert metrics.state() == state, "each line once"


def begun(path: Path) -> dict[str, Any]:
    """The state of a run of two steps and an evaluation, with the lines that a checkpoint knows of."""
    metrics = Metrics(path, ALONE)
    for step in range(2):
        metrics.step(torch.tensor(2.0 - step), {"step": step, "epoch": 0})
    metrics.evaluation(2, 1, 0.5, 0)
    return {"step": 2, **metrics.state()}


def test_what_is_behind_the_checkpoint_goes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    state, kept = begun(path), path.read_bytes()
    path.write_bytes(kept + b'{"kind": "train", "step": 2}\n{"kind": "tr')
    metrics = Metrics(path, ALONE, state)
    assert path.read_bytes() == kept
    assert metrics.newest == {"knn": 0.5}
    metrics.evaluation(4, 2, 0.75, 0)
    assert metrics.state()["metrics_hash"] == hash_file(path)
    assert not caplog.records


def told(path: Path, step: int, what: str) -> str:
    return (
        f"{path} has lost or damaged lines of steps before {step}, where the checkpoint goes on ({what}): the training "
        "goes on without them; its weights and figures do not depend on them"
    )


@pytest.mark.parametrize(
    ("left", "what"),
    [(0, "lost: steps 0 to 1"), (1, "lost: steps 0 to 1"), (60, "lost: steps 1"), (130, ALL_THERE), (-1, ALL_THERE)],
)
def test_a_file_shorter_than_the_checkpoint_knows_is_told_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, left: int, what: str
) -> None:
    path = tmp_path / "metrics.jsonl"
    state, whole = begun(path), path.read_bytes()
    path.write_bytes(whole[:left])
    metrics = Metrics(path, ALONE, state)
    assert [r.getMessage() for r in caplog.records] == [told(path, 2, what)]
    kept = [line for line in path.read_bytes().splitlines(keepends=True) if b"gap" not in line]
    assert whole.startswith(b"".join(kept))
    lost = metrics.state()["metrics_figures"].pop("lost_lines", 0)
    assert lost == metrics.lost == {0: 2, 1: 2, 60: 1}.get(left, 0)
    assert metrics.newest == {"knn": 0.5}
    metrics.close()
    assert read_lines(path)[-1]["kind"] == "sum"
    assert len(caplog.records) == 1


def run_of(path: Path, steps: int) -> dict[str, Any]:
    """The state of a run of so many steps."""
    metrics = Metrics(path, ALONE)
    for step in range(steps):
        metrics.step(torch.tensor(2.0), {"step": step, "epoch": 0})
    return {"step": steps, **metrics.state()}


@pytest.mark.parametrize("how", ["zeros within", "zeros at the end", "cut", "removed", "all zeros", "foreign", "twice"])
def test_steps_without_a_line_are_named_in_log_and_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    path = tmp_path / "metrics.jsonl"
    state = run_of(path, 20)
    whole = path.read_bytes().splitlines(keepends=True)
    zeros = b"".join(bytes(len(line)) for line in whole[5:12])
    contents = {
        "zeros within": b"".join(whole[:5]) + zeros + b"".join(whole[12:]),
        "zeros at the end": b"".join(whole[:12]) + bytes(sum(map(len, whole[12:]))),
        "cut": b"".join(whole[:12])[:-4],
        "all zeros": bytes(sum(map(len, whole))),
        "foreign": b'{"a": 1}\n' * 30,
        "twice": b"".join(whole[:3] + whole[:3]),
    }
    path.unlink() if how == "removed" else path.write_bytes(contents[how])
    lost = {"zeros within": (5, 12), "zeros at the end": (12, 19), "cut": (11, 19), "twice": (3, 19)}.get(how, (0, 19))
    metrics = Metrics(path, ALONE, state)
    assert [r.getMessage() for r in caplog.records] == [told(path, 20, f"lost: steps {lost[0]} to {lost[1]}")]
    for again in (False, True):
        found = read_lines(path)
        assert b"\0" not in path.read_bytes()
        assert found[-1] == {"kind": "gap", "step": 20, "first": lost[0], "last": lost[1]}
        seen = [line["step"] for line in found if line["kind"] == "train"]
        assert seen == [step for step in range(20) if not lost[0] <= step <= lost[1]], "each once"
        assert metrics.lost == lost[1] + 1 - lost[0]
        if not again:  # what is kept counts as whole from here on
            metrics = Metrics(path, ALONE, {"step": 20, **metrics.state()})
    assert len(caplog.records) == 1


def test_a_second_damage_is_told_once_for_each_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    state = run_of(path, 10)
    text = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(text[:2] + text[4:]))
    metrics = Metrics(path, ALONE, state)
    metrics.step(torch.tensor(2.0), {"step": 10, "epoch": 1})
    state = {"step": 11, **metrics.state()}
    text = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([text[0], *text[3:]]))
    caplog.clear()
    metrics = Metrics(path, ALONE, state)
    assert [r.getMessage() for r in caplog.records] == [told(path, 11, "lost: steps 1 to 4")]
    assert [line for line in read_lines(path) if line["kind"] == "gap"] == [
        {"kind": "gap", "step": 11, "first": 1, "last": 4}
    ]
    assert metrics.lost == 4
    assert [line["step"] for line in read_metrics(path, "train")] == [0, 5, 6, 7, 8, 9, 10]


def test_gaps_in_words() -> None:
    assert in_words(ranges([3, 12, 13, 14])) == "3, 12 to 14"
    assert in_words(ranges(range(0, 20, 2))) == "0, 2, 4, 6, 8 and 5 more places"
    assert ranges([]) == []


def test_every_flipped_bit_is_told_and_changes_no_figure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Before a resume and before the end, in digits, quotes, newlines and letters."""
    path = tmp_path / "metrics.jsonl"
    state, whole = begun(path), path.read_bytes()
    for bit in range(0, 8 * len(whole), 11):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        caplog.clear()
        metrics = Metrics(path, ALONE, state)
        assert "has lost or damaged lines" in caplog.text, bit
        assert metrics.newest == {"knn": 0.5}
        metrics.close()
        path.write_bytes(whole)
        metrics = Metrics(path, ALONE, state)
        path.write_bytes(damaged)
        caplog.clear()
        metrics.close()
        assert "are damaged and left out" in caplog.text or "is not what its run wrote" in caplog.text, bit


def test_a_checkpoint_of_an_earlier_release(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It knows the size alone: figures come from the sound lines."""
    path = tmp_path / "metrics.jsonl"
    size = begun(path)["metrics_offset"]
    text = path.read_bytes()
    bad = b'{"kind": "bad", "step": 2, "index": 7, "path": "x", "reason": "y"}\n'
    path.write_bytes(text + bad + text[:-3] + b"\xff}\n")
    metrics = Metrics(path, ALONE, {"step": 2, "metrics_offset": 2 * size + len(bad)})
    assert metrics.state()["metrics_figures"] == {"knn": 0.5, "bad_images": [7]}
    assert [r.getMessage() for r in caplog.records] == [told(path, 2, ALL_THERE)]
    caplog.clear()
    run_of(path, 3)
    Metrics(path, ALONE, {"step": 3, "metrics_offset": path.stat().st_size})
    assert not caplog.records, "a whole file"


@pytest.mark.parametrize(
    "text",
    [b"[]", b"null", b"{", b"\xff", b'{"kind": []}', b'{"kind": "train", "step": 1, "epoch": 0}', b"[" * 100_000,
     b'{"kind": "train", "step": "1", "epoch": 0, "loss": 1.0}', b'{"kind": "what", "step": 1}', b"1" * 5_000,
     b'{"kind": "eval", "step": 1, "epoch": 1, "knn": NaN}', b'{"kind": "bad", "step": 1, "index": true}'],
)  # fmt: skip
def test_a_line_that_is_none_of_ours_is_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: bytes
) -> None:
    path = tmp_path / "metrics.jsonl"
    sound = b'{"kind": "train", "step": 0, "epoch": 0, "loss": 1.0}\n'
    path.write_bytes(sound + text + b"\n" + sound)
    assert len(read_lines(path)) == 2
    assert "1 of 3 lines are damaged and left out, the first is line 2" in caplog.text
    found = newest_line(path)
    assert found is not None
    assert found["loss"] == 1.0


def test_a_line_cut_short_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path, "train") == []
    assert newest_line(path) is None
    begun(path)
    with path.open("a") as file:
        file.write('{"kind": "train", "st')
    assert [line["step"] for line in read_metrics(path, "train")] == [0, 1]
    assert not caplog.records, "a killed run leaves such a line"


def test_a_full_disk_may_mend_itself(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", ALONE)
    metrics.path = Path("/dev/full")
    with pytest.raises(TransientError, match="cannot write /dev/full: No space left on device; free space"):
        metrics.write({"kind": "eval"})


def test_a_folder_in_its_place_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write \S+: Is a directory; delete it or make it writable and type"):
        Metrics(tmp_path, ALONE)
    with pytest.raises(UserError, match=r"cannot read \S+: Is a directory"):
        read_lines(tmp_path)
