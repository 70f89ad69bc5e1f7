"""Warns of a student that collapses or diverges though its loss stays finite."""

import logging

log = logging.getLogger(__name__)
EQUAL, EPOCHS = 0.001, 3
"""Spread of queries below which they are equal, and for how many epochs in a row: healthy students start near 0.01."""
NEAR, FAR = 0.98, 1.5
"""Share of the loss of guessing above which nothing is learned, and times of it above which the loss has run away."""
REMEDY = "lower --optim.lr or raise --contrast.temperature, and look at what is trained on"


class Health:
    """Looks at each epoch's mean loss and its last spread, which are on the host anyway; says each thing once.

    guess: the loss of a student that only guesses. A collapsed one is on average no better, whatever the keys are.
    """

    def __init__(self, guess: float) -> None:
        self.guess = guess
        self._start: float | None = None
        self._equal = 0
        self._said: set[str] = set()

    def look(self, epoch: int, loss: float, spread: float) -> None:
        """An epoch (from 0) has ended with this mean loss; spread: see `contrast_measures`."""
        self._start = loss if self._start is None else self._start
        self._equal = self._equal + 1 if spread < EQUAL and loss > NEAR * self.guess else 0
        if loss > FAR * max(self.guess, self._start):
            self._say("diverges", epoch, f"its loss is {loss:.3g}, and {self.guess:.3g} is that of guessing")
        elif self._equal >= EPOCHS:
            self._say(
                "has collapsed", epoch,
                f"its queries have been nearly equal for {EPOCHS} epochs (mean cosine {1 - spread:.5f}), and its loss, "
                f"{loss:.3g}, is that of guessing, {self.guess:.3g}",
            )  # fmt: skip

    def _say(self, what: str, epoch: int, seen: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.warning("the student %s, seen after epoch %d: %s; %s", what, epoch + 1, seen, REMEDY)
