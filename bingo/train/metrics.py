"""metrics.jsonl: a line per training step and evaluation, each step once whatever happens to the job."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from bingo.distributed import World
from bingo.errors import PASSING, UserError, file_error
from bingo.files import hash_file, new_hash
from bingo.train.lines import read_lines
from bingo.views.decode_failures import Failures

log = logging.getLogger(__name__)
MEASURES = ("top1", "top5", "spread")
"""What a measured step's line has besides the loss, see `contrast_measures`."""


class Metrics:
    """Appends on rank 0. Losses stay on the device until a flush, so logging costs one synchronisation per flush.

    begun: the checkpoint's state, of a run that goes on. `newest` has the last loss, measures and `knn` that are known;
    `bad_images` the numbers of the images found undecodable; `epochs` the sum and the number of an epoch's losses.
    """

    def __init__(self, path: Path, world: World, begun: Mapping[str, Any] | None = None) -> None:
        self.path, self.world = path, world
        self.newest: dict[str, float] = {}
        self.bad_images: set[int] = set()
        self.epochs: dict[int, tuple[float, int]] = {}
        self._losses: list[torch.Tensor] = []
        self._measures: dict[int, torch.Tensor] = {}  # by the place of their line
        self._lines: list[dict[str, Any]] = []
        self._hash, self._size = new_hash(), 0
        if world.main:
            with self._writing():
                self._begin(begun or {"metrics_offset": 0})

    def _begin(self, begun: Mapping[str, Any]) -> None:
        """Keep what the checkpoint knows of; what was written after it will be written again."""
        offset = begun["metrics_offset"]
        with open(self.path, "a+b") as file:
            file.seek(0)
            kept = file.read(offset)
            self._hash.update(kept)
            if len(kept) < offset or self._hash.hexdigest() != begun.get("metrics_hash", self._hash.hexdigest()):
                kept = kept[: kept.rfind(b"\n") + 1]
                self._hash = new_hash()
                self._hash.update(kept)
                log.warning(
                    "%s has lost or damaged lines of steps before %d, where the checkpoint goes on: the training goes "
                    "on without them; its weights and figures do not depend on them",
                    self.path, begun["step"],
                )  # fmt: skip
            file.truncate(len(kept))
        self._size = len(kept)
        if "metrics_figures" in begun:
            self._know(begun["metrics_figures"]["knn"], begun["metrics_figures"]["bad_images"])
        elif offset:  # a checkpoint of an earlier release
            lines = read_lines(self.path)
            scores = [line["knn"] for line in lines if line["kind"] == "eval"]
            self._know(scores[-1] if scores else None, [line["index"] for line in lines if line["kind"] == "bad"])

    def _know(self, knn: float | None, bad: list[int]) -> None:
        if knn is not None:
            self.newest["knn"] = knn
        self.bad_images.update(bad)

    def state(self) -> dict[str, Any]:
        """Flush; what a checkpoint holds of this file: its size and hash, and the figures that come from its lines."""
        self.flush()
        figures = {"knn": self.newest.get("knn"), "bad_images": sorted(self.bad_images)}
        return {"metrics_offset": self._size, "metrics_hash": self._hash.hexdigest(), "metrics_figures": figures}

    def step(self, loss: torch.Tensor, line: dict[str, Any], measures: torch.Tensor | None = None) -> None:
        """Record one step; `line` carries `step`, `epoch`, `lr`; measures: see `contrast_measures`."""
        if measures is not None:
            self._measures[len(self._lines)] = measures
        self._losses.append(loss.detach().float())
        self._lines.append({"kind": "train", **line})

    def flush(self) -> None:
        """Average the losses over the ranks and write them.

        Raises `UserError` naming the first step whose loss is not finite, on every rank.
        """
        if self._lines:
            losses, measures = torch.stack(self._losses), list(self._measures.values())
            self.world.average([losses, *measures])
            for place, values in zip(self._measures, (values.tolist() for values in measures), strict=True):
                self._lines[place] |= dict(zip(MEASURES, values, strict=True))
            for loss, line in zip(losses.tolist(), self._lines, strict=True):
                if loss != loss or loss in (float("inf"), float("-inf")):
                    raise UserError(_not_finite(loss, line["step"]))
                line["loss"] = loss
                total, count = self.epochs.get(line["epoch"], (0.0, 0))
                self.epochs[line["epoch"]] = total + loss, count + 1
                self.newest |= {name: line[name] for name in ("loss", *MEASURES) if name in line}
            self.write(*self._lines)
            self._losses, self._lines, self._measures = [], [], {}

    def evaluation(self, step: int, epoch: int, knn: float, left_out: int) -> None:
        """Record the accuracy after `step` steps."""
        self.flush()
        self.newest["knn"] = knn
        self.write({"kind": "eval", "step": step, "epoch": epoch, "knn": knn, "left_out": left_out})

    def bad(self, step: int, failures: Failures) -> None:
        """Record images found undecodable up to this step, by any rank; `UserError` on all once they are too many."""
        found = self.world.gather_lists(failures.news())
        paths = failures.dataset.paths
        self.bad_images.update(i for i, _ in found)
        self.write(
            *({"kind": "bad", "step": step, "index": i, "path": paths[i], "reason": reason} for i, reason in found)
        )
        failures.hear(found)

    def close(self) -> None:
        """Write the last line, by which readers see whether the others are what was written; tell of it if not."""
        self.write({"kind": "sum", "hash": self._hash.hexdigest()})
        if self.world.main and hash_file(self.path) != self._hash.hexdigest():
            read_lines(self.path)

    def write(self, *lines: dict[str, Any]) -> None:
        """Append lines durably (rank 0).

        `TransientError` when the disk is full: what stands half-written behind the last checkpoint goes on a resume.
        """
        if self.world.main and lines:
            text = "".join(json.dumps(line) + "\n" for line in lines).encode()
            with self._writing(), open(self.path, "ab") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            self._hash.update(text)
            self._size += len(text)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            remedy = "free space" if error.errno in PASSING else "delete it or make it writable"
            raise file_error(
                error, f"cannot write {self.path}: {error.strerror}; {remedy} and type the same command to go on"
            ) from error


def _not_finite(loss: float, step: int) -> str:
    cause = "lower --optim.lr or raise --contrast.temperature"
    if step == 0:
        cause = (
            "nothing was learned yet, so the teacher, its keys or the images may hold such numbers: look at them, or "
            + cause
        )
    return f"the loss is {loss} at step {step}; {cause} and start again in a new --out"
