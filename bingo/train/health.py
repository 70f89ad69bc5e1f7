"""Warns of a student that collapses or diverges though its loss stays finite, with the step at which it is seen."""

import logging
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

log = logging.getLogger(__name__)
EQUAL = 0.001
"""Spread of queries below which they are equal: that of healthy students does not fall below 0.01."""
LOOKS, EPOCHS, STEPS = 3, 2, 1000
"""How often in a row the queries must be equal, over how many epochs, or steps where those are fewer."""
NEAR, FAR = 0.98, 1.5
"""Share of the loss of guessing above which nothing is learned, and times of it above which the loss has run away."""
WINDOW = 16
"""Steps whose mean loss is judged."""
NOISES = 10
"""Standard deviations of the first losses that a loss without a guess must rise besides: one near 0 has no times."""
GROWN = 10
"""Times that weights may grow. Those of healthy runs stay within twice; a rate a thousand times too high makes 100 of
it within an epoch, and batch norm hides it: the network divides by the length of its weights, and hardly learns."""
REMEDIES = {
    "diverges": "lower --optim.lr or raise --contrast.temperature, and look at what is trained on",
    "has collapsed": "give a narrow network a narrower head (--contrast.hidden), lower --optim.lr or raise "
    "--contrast.temperature, and look at what is trained on",
}


class Health:
    """Reads the lines of a training's steps as they are written; says each thing once.

    guess: the loss of a student that only guesses; a collapsed one is on average no better, whatever the keys are. None
    where an objective has no such number: then a loss is judged by its own first steps, and a collapse by the queries
    alone. per_epoch: steps of an epoch; length: of the weights before the first step, see `weight_norm`; filled: steps
    after which the queue holds no random direction any more, which are easy to tell from a key.
    """

    def __init__(self, guess: float | None, per_epoch: int, length: float, filled: int = 0) -> None:
        self.guess, self.length = guess, length
        self.first = filled + WINDOW - 1 if guess is None else 0
        self.patience = min(EPOCHS * per_epoch, STEPS)
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._start: float | None = None
        self._noise = 0.0
        self._equal: tuple[int, int] | None = None
        """The first of the measured steps in a row at which queries were equal, and their number."""
        self._said: set[str] = set()

    def look(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """New lines of metrics.jsonl, in order. Measured steps have `spread` and `weight_norm`."""
        for line in lines:
            if line["kind"] == "train":
                self._losses.append(line["loss"])
                self._look(line["step"], statistics.fmean(self._losses), line.get("spread"), line.get("weight_norm"))

    def _look(self, step: int, loss: float, spread: float | None, length: float | None) -> None:
        """loss: the mean of the last steps."""
        if len(self._losses) == WINDOW and step >= self.first:
            if self._start is None:
                self._start, self._noise = loss, statistics.pstdev(self._losses)
            most = max(self._start, self.guess or 0)
            rises = self.guess is not None or loss > self._start + NOISES * self._noise
            if 0 < FAR * most < loss and rises:
                judged = f"{self._start:.3g} at the start" if most == self._start else f"{most:.3g} by guessing"
                self._say("diverges", step, f"its loss is {loss:.3g} over {WINDOW} steps, and was {judged}")
        if length is not None and length > GROWN * self.length:
            self._say("diverges", step, f"its weights are {length / self.length:.3g} times as long as at the start")
        if spread is not None:
            equal = spread < EQUAL and (self.guess is None or loss > NEAR * self.guess)
            first, looks = self._equal or (step, 0)
            self._equal = (first, looks + 1) if equal else None
            if equal and looks + 1 >= LOOKS and step - first >= self.patience:
                guess = (
                    "" if self.guess is None else f", and its loss, {loss:.3g}, is that of guessing, {self.guess:.3g}"
                )
                since = f"its queries have been nearly equal since step {first} (mean cosine {1 - spread:.5f})"
                self._say("has collapsed", step, since + guess)

    def _say(self, what: str, step: int, seen: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.warning("the student %s, seen at step %d: %s; %s", what, step, seen, REMEDIES[what])
