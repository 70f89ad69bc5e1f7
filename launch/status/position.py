"""Where a running attempt is: its stage, step and epoch, from beats, events and metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

from bingo.launch.status.attempts import Attempt
from bingo.stages import Stage
from bingo.train.lines import newest_line, speed_words


def where(attempt: Attempt, stages: Sequence[Stage]) -> tuple[str, str | None, int | None]:
    """A few words, the stage that runs (None before the first) and the steps or blocks it has done (None: not told)."""
    events = attempt.main
    began = next((event for event in reversed(events) if event["event"] == "stage"), None)
    if began is None:
        return "its ranks start and find each other", None, None
    name = began["name"]
    at = next((i for i, stage in enumerate(stages) if stage.name == name), 0)
    words = [name if len(stages) == 1 else f"{name} (stage {at + 1} of {len(stages)})"]
    beat = attempt.beats.get(0)
    resumed = [e["step"] for e in events if e["event"] == "resumed" and e["time"] >= began["time"]]
    step = beat.step if beat and beat.stage == name and beat.time >= began["time"] else max(resumed, default=None)
    line = newest_line(stages[at].out / "metrics.jsonl") if at < len(stages) else None
    # Lines from before this start may be of steps that are done again; a beat may be a second older than the newest.
    if line is not None and line.get("time", 0) >= began["time"]:
        step = max(step or 0, line["step"] + 1)
        told = newest_line(stages[at].out / "metrics.jsonl", having="images_per_second")
        rates = speed_words(told) if told and told.get("time", 0) >= began["time"] else []
        words += [f"step {step}", *_epoch(stages[at], line), *rates]
    elif step is not None:
        words.append(f"step {step}")
    if any(event["event"] == "left" for event in events):
        words.append("was asked to leave and has left")
    return ", ".join(words), name, step


def _epoch(stage: Stage, line: Mapping[str, Any]) -> list[str]:
    epochs = getattr(getattr(stage.config, "optim", stage.config), "epochs", None)
    loss = f"loss {line['loss']:.3g}"
    return [loss] if epochs is None else [f"epoch {line['epoch'] + 1} of {epochs}", loss]
