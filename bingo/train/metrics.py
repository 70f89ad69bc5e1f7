"""metrics.jsonl: a line per training step and evaluation, each step once whatever happens to the job."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bingo.distributed import World
from bingo.errors import UserError, file_error
from bingo.views.decode_failures import Failures


class Metrics:
    """Appends on rank 0. Losses stay on the device until a flush, so logging costs one synchronisation per flush."""

    def __init__(self, path: Path, world: World, offset: int) -> None:
        self.path, self.world = path, world
        self._losses: list[torch.Tensor] = []
        self._accuracies: dict[int, torch.Tensor] = {}  # by the place of their line
        self._lines: list[dict[str, Any]] = []
        if world.main:
            with self._writing():
                path.touch()
                os.truncate(path, offset)  # what was written after the checkpoint will be written again

    def step(self, loss: torch.Tensor, line: dict[str, Any], accuracy: torch.Tensor | None = None) -> None:
        """Record one step; `line` carries `step`, `epoch`, `lr`; accuracy (2): the contrast's top-1 and top-5."""
        if accuracy is not None:
            self._accuracies[len(self._lines)] = accuracy
        self._losses.append(loss.detach().float())
        self._lines.append({"kind": "train", **line})

    def flush(self) -> int:
        """Average the losses over the ranks, write them and return the file's size in bytes.

        Raises `UserError` naming the first step whose loss is not finite, on every rank.
        """
        if self._lines:
            losses, tops = torch.stack(self._losses), list(self._accuracies.values())
            self.world.average([losses, *tops])
            for place, (first, fifth) in zip(self._accuracies, (top.tolist() for top in tops), strict=True):
                self._lines[place] |= {"top1": first, "top5": fifth}
            for loss, line in zip(losses.tolist(), self._lines, strict=True):
                if loss != loss or loss in (float("inf"), float("-inf")):
                    raise UserError(
                        f"the loss is {loss} at step {line['step']}; lower --optim.lr or raise "
                        "--contrast.temperature and start again in a new --out"
                    )
            self.write(*({**line, "loss": loss} for loss, line in zip(losses.tolist(), self._lines, strict=True)))
            self._losses, self._lines, self._accuracies = [], [], {}
        return self.path.stat().st_size if self.world.main else 0

    def bad(self, step: int, failures: Failures) -> None:
        """Record images found undecodable up to this step, by any rank; `UserError` on all once they are too many."""
        found = self.world.gather_lists(failures.news())
        paths = failures.dataset.paths
        self.write(
            *({"kind": "bad", "step": step, "index": i, "path": paths[i], "reason": reason} for i, reason in found)
        )
        failures.hear(found)

    def write(self, *lines: dict[str, Any]) -> None:
        """Append lines durably (rank 0).

        `TransientError` when the disk is full: what stands half-written behind the last checkpoint goes on a resume.
        """
        if self.world.main and lines:
            with self._writing(), open(self.path, "a") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise file_error(
                error, f"cannot write {self.path}: {error.strerror}; free space and type the same command to go on"
            ) from error


def read_metrics(path: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of one kind (`train`, `eval` or `bad`); a line half-written by a killed process is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if line.get("kind") == kind:
            lines.append(line)
    return lines
