"""Where a running attempt is: its stage, step and epoch, from its beats, its events and the metrics of the stage."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bingo.launch.attempts import Attempt
from bingo.stages import Stage

TAIL_BYTES = 4_096


def where(attempt: Attempt, stages: Sequence[Stage], now: float) -> tuple[str, str | None, int | None]:
    """A few words, the stage that runs (None before the first) and the steps or blocks it has done (None: not told)."""
    events = attempt.main
    began = next((event for event in reversed(events) if event["event"] == "stage"), None)
    if began is None:
        return "its ranks start and find each other", None, None
    name = began["name"]
    at = next((i for i, stage in enumerate(stages) if stage.name == name), 0)
    words = [name if len(stages) == 1 else f"{name} (stage {at + 1} of {len(stages)})"]
    beat = attempt.beats.get(0)
    step = beat.step if beat and beat.stage == name and beat.time >= began["time"] else None
    if step is None:
        resumed = [e for e in events if e["event"] == "resumed" and e["time"] >= began["time"]]
        step = resumed[-1]["step"] if resumed else None
    if step is not None:
        words.append(f"step {step}")
    words += _epoch(stages[at]) if step is not None and at < len(stages) else []
    if any(event["event"] == "left" for event in events):
        words.append("was asked to leave and has left")
    return ", ".join(words), name, step


def _epoch(stage: Stage) -> list[str]:
    """From the newest line of a training's metrics: they are written every few steps."""
    epochs = getattr(getattr(stage.config, "optim", None), "epochs", None)
    line = last_line(stage.out / "metrics.jsonl")
    if epochs is None or line is None or "epoch" not in line:
        return []
    return [f"epoch {line['epoch'] + 1} of {epochs}", *([f"loss {line['loss']:.3g}"] if "loss" in line else [])]


def last_line(path: Path) -> dict[str, Any] | None:
    """The newest whole `train` line of a metrics file, without reading all of it."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return None
    for text in reversed(lines):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and line.get("kind") == "train":
            return line
    return None
