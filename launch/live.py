"""What a stage that runs here is doing, as one line for people."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bingo.launch.job.records import read_beats, read_events
from bingo.progress import Due, duration
from bingo.stages import Stage
from bingo.train.lines import newest_line, speed_words

log = logging.getLogger(__name__)
FIRST_S = 60
"""Seconds until a stage is told of in a log."""


@contextlib.contextmanager
def live_line() -> Iterator[Callable[[Stage, Callable[[], str]], None]]:
    """Call what it yields with the running stage and what makes its line: shown on a terminal, else logged when due."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("") as status:
            yield lambda stage, line: status.update(Text(fitted(line(), console.width - 2)))  # behind a spinner
        return
    running: list[tuple[Stage, Due]] = []

    def tell(stage: Stage, line: Callable[[], str]) -> None:
        if not running or running[-1][0] is not stage:
            running[:] = [(stage, Due(first_s=FIRST_S))]
        if running[-1][1]():
            log.info("%s", line())

    yield tell


def fitted(line: str, width: int) -> str:
    """The line, cut where it is wider."""
    return line if len(line) <= width else line[: max(width - 1, 0)] + "…"


def position(stage: Stage, number: int, count: int, folder: Path, now: float) -> str:
    """`stage 7 of 49  teacher  3 min left, epoch 12 of 96, loss 2.88, kNN 0.91, step 1535 of 9000`.

    number: the stage's place among `count`, from 1. folder: where its ranks record. now: unix time.
    """
    events = read_events(folder).get(0, [])
    starts = [at for at, event in enumerate(events) if event["event"] == "stage" and event["name"] == stage.name]
    head = f"stage {number} of {count}  {stage.name}"
    if not starts:
        return f"{head}  starting"
    began = events[starts[-1]]["time"]
    words = _training(stage, events[starts[-1] :])
    if not words:
        beat = read_beats(folder).get(0)
        blocks = beat.step if beat and beat.stage == stage.name and beat.time >= began else 0
        words = [f"{blocks} blocks done"] if blocks else []
        words += [f"for {duration(now - began)}"]
    return f"{head}  {', '.join(words)}"


def _training(stage: Stage, events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of a training: what its newest lines say, and the time left at the pace since it was started."""
    begun = next((event for event in events if event["event"] == "training"), None)
    line, *scores = (newest_line(stage.out / "metrics.jsonl", kind) for kind in ("train", "eval", "accuracy"))
    if begun is None or line is None or line.get("time", 0) < begun["time"]:
        return []
    done, steps, seconds = line["step"] + 1, begun["steps"], line["time"] - begun["time"]
    epochs = getattr(stage.config, "optim", stage.config).epochs
    words = [f"epoch {line['epoch'] + 1} of {epochs}", f"loss {line['loss']:.3g}"]
    names = (("kNN", "knn"), ("top-1", "top1"))
    newest = newest_line(stage.out / "metrics.jsonl", having="images_per_second")
    words += speed_words(newest) if newest and newest.get("time", 0) >= begun["time"] else []
    words += [f"{word} {score[name]:.3g}" for score, (word, name) in zip(scores, names, strict=True) if score]
    if done > begun["step"] and seconds > 0:
        words.insert(0, f"{duration((steps - done) * seconds / (done - begun['step']))} left")
    return [*words, f"step {done} of {steps}"]
