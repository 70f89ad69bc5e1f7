"""metrics.jsonl: a line per training step and evaluation, each step once whatever happens to the job."""

import contextlib
import errno
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bingo.distributed import World
from bingo.errors import PASSING, UserError, file_error, remedy
from bingo.files import atomic_write, hash_file, new_hash
from bingo.train.lines import in_words, parse, ranges, read_lines
from bingo.train.sides import CURES, FULL_PRECISION, Sides
from bingo.train.telemetry import of_every_rank
from bingo.views.decode_failures import Failures

log = logging.getLogger(__name__)
ALL_THERE = "every step has a line, but not all are what was written"
CONTRAST_CURE = "lower --optim.lr or raise --contrast.temperature"
MEASURES = ("top1", "top5", "spread", "weight_norm")
"""What a measured step's line has besides the loss, see `contrast_measures` and `weight_norm`."""
FIGURES = ("knn", "rankme", "uniformity", "dead_dimensions", "teacher_agreement")
"""What an evaluation leaves in the figures of the record, see `bingo.train.monitor`."""
Reader = Callable[[Sequence[Mapping[str, Any]]], None]


class Metrics:
    """Appends on rank 0. Losses stay on the device until a flush, so logging costs one synchronisation per flush.

    begun: the checkpoint's state, of a run that goes on. `newest` has the last loss, measures and `FIGURES` that are
    known; `bad_images` the numbers of the images found undecodable; `lost` how many steps before `begun` have no line
    any more. cure: what to do about a loss that is not finite; sides: says whose fault it is. `readers` are given all
    lines that are written from now on.
    """

    def __init__(
        self,
        path: Path,
        world: World,
        begun: Mapping[str, Any] | None = None,
        cure: str = CONTRAST_CURE,
        sides: Sides | None = None,
    ) -> None:
        self.path, self.world, self.cure, self.sides = path, world, cure, sides
        self.readers: list[Reader] = []
        self.newest: dict[str, float] = {}
        self.bad_images: set[int] = set()
        self.lost = 0
        self._losses: list[torch.Tensor] = []
        self._sums: list[torch.Tensor] = []  # of `sides`
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
            self._take(kept)
            intact = len(kept) == offset and self._hash.hexdigest() == begun.get("metrics_hash")
            if intact or not offset:
                file.truncate(offset)
        figures = begun.get("metrics_figures")
        self.lost = (figures or {}).get("lost_lines", 0)
        if offset and not intact:
            lines = self._mend(kept, begun["step"], told="metrics_hash" in begun)
            if figures is None:  # a checkpoint of an earlier release
                scores = [line["knn"] for line in lines if line["kind"] == "eval"]
                bad = [line["index"] for line in lines if line["kind"] == "bad"]
                figures = {"knn": scores[-1] if scores else None, "bad_images": bad}
        if figures is not None:
            self._know(figures)

    def _take(self, text: bytes) -> None:
        """The file holds this and nothing else."""
        self._hash, self._size = new_hash(), len(text)
        self._hash.update(text)

    def _mend(self, damaged: bytes, step: int, *, told: bool) -> list[dict[str, Any]]:
        """Keep the sound lines of what `step` steps have written, each once, and say which steps have none any more.

        told: also where none is missing. The file is whole or as it was, whenever this process is killed.
        """
        lines: dict[tuple[Any, ...], tuple[bytes, dict[str, Any]]] = {}
        texts = damaged.split(b"\n")[:-1]
        for text in texts:
            line = parse(text)
            if (
                line
                and line["kind"] in ("train", "eval", "accuracy", "bad")
                and 0 <= line["step"] <= step - (line["kind"] == "train")
            ):
                lines.setdefault((line["kind"], line["step"], line.get("index")), (text, line))
        have = {place[1] for place in lines if place[0] == "train"}
        gaps = ranges(number for number in range(step) if number not in have)
        self.lost = sum(last + 1 - first for first, last in gaps)
        marks = [{"kind": "gap", "step": step, "first": first, "last": last} for first, last in gaps]
        text = b"".join(text + b"\n" for text in [*(text for text, _ in lines.values()), *map(_text, marks)])
        with atomic_write(self.path) as file:
            file.write(text)
        self._take(text)
        if told or gaps or len(lines) < len(texts):
            log.warning(
                "%s has lost or damaged lines of steps before %d, where the checkpoint goes on (%s): the training goes "
                "on without them; its weights and figures do not depend on them",
                self.path, step, f"lost: steps {in_words(gaps)}" if gaps else ALL_THERE,
            )  # fmt: skip
        return [line for _, line in lines.values()]

    def _know(self, figures: Mapping[str, Any]) -> None:
        self.newest |= {name: figures[name] for name in FIGURES if figures.get(name) is not None}
        self.bad_images.update(figures["bad_images"])

    def figures(self) -> dict[str, float]:
        """Those of `FIGURES` that are known."""
        return {name: self.newest[name] for name in FIGURES if name in self.newest}

    def state(self) -> dict[str, Any]:
        """Flush; what a checkpoint holds of this file: its size and hash, and the figures that come from its lines."""
        self.flush()
        figures: dict[str, Any] = {"knn": None, **self.figures(), "bad_images": sorted(self.bad_images)}
        if self.lost:
            figures["lost_lines"] = self.lost
        return {"metrics_offset": self._size, "metrics_hash": self._hash.hexdigest(), "metrics_figures": figures}

    def step(self, loss: torch.Tensor, line: dict[str, Any], measures: torch.Tensor | None = None) -> None:
        """Record one step; `line` carries `step`, `epoch`, `lr`, may carry `Speed.figures`, of which `loader_wait` is
        written as the largest of all ranks; measures: `MEASURES` (4)."""
        if measures is not None:
            self._measures[len(self._lines)] = measures
        self._losses.append(loss.detach().float())
        if self.sides is not None:
            self._sums.append(self.sides.now())
        self._lines.append({"kind": "train", **line})

    def flush(self) -> None:
        """Average the losses over the ranks and write them.

        Raises `UserError` naming the first step whose loss, or after which a weight, is not finite, on every rank.
        """
        if self._lines:
            losses, measures = torch.stack(self._losses), list(self._measures.values())
            waiting = [line for line in self._lines if "loader_wait" in line]
            waits = of_every_rank([line["loader_wait"] for line in waiting], self.world, losses.device)
            sums = [torch.stack(self._sums)] if self._sums else []
            self.world.average([losses, *sums, *measures, waits])
            for line, each in zip(waiting, waits.tolist(), strict=True):
                line["loader_wait"] = round(max(each), 4)  # the slowest rank's: it is waited for
            for place, values in zip(self._measures, (values.tolist() for values in measures), strict=True):
                self._lines[place] |= dict(zip(MEASURES, values, strict=True))
            for place, (loss, line) in enumerate(zip(losses.tolist(), self._lines, strict=True)):
                if not math.isfinite(loss):
                    raise UserError(self._not_finite(loss, line["step"], [part[place].tolist() for part in sums]))
                if not math.isfinite(line.get("weight_norm", 0)):
                    raise UserError(
                        f"the student's weights are not finite after step {line['step']}, whose loss is {loss:.4g}; "
                        f"{self.cure} and start again in a new --out"
                    )
                line["loss"] = loss
                self.newest |= {name: line[name] for name in ("loss", *MEASURES, "loader_wait") if name in line}
            self.write(*self._lines)
            self._losses, self._sums, self._lines, self._measures = [], [], [], {}

    def _not_finite(self, loss: float, step: int, sums: Sequence[Sequence[float]]) -> str:
        """sums: those of `sides` after the step, if there are any."""
        blamed, cause = self.sides.blamed(sums[0]) if self.sides is not None else [], self.cure
        if not blamed and step == 0 and cause == CONTRAST_CURE:
            cause = (
                "nothing was learned yet, so the teacher, its keys or the images may hold such numbers: look at them, "
                f"or {cause}"
            )
        elif blamed:
            usual = FULL_PRECISION if step == 0 else cause  # nothing was learned before the first step
            cause = next((CURES[side] for side in blamed if side in CURES), usual)
        whose = f"{' and '.join(blamed)} are not finite: " if blamed else ""
        return f"{whose}the loss is {loss} at step {step}; {cause} and start again in a new --out"

    def evaluation(self, step: int, epoch: int, knn: float, left_out: float, **more: float) -> None:
        """Record the accuracy after `step` steps. more: what else was seen, see `bingo.train.monitor`."""
        self.flush()
        line = {"knn": knn, "left_out": left_out, **more}
        self.newest |= {name: line[name] for name in FIGURES if name in line}
        self.write({"kind": "eval", "step": step, "epoch": epoch, **line})

    def accuracy(self, step: int, epoch: int, top1: float, top5: float) -> None:
        """Record what a classifier reached after `step` steps."""
        self.flush()
        self.newest["top1"] = top1
        self.write({"kind": "accuracy", "step": step, "epoch": epoch, "top1": top1, "top5": top5})

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
            text = b"".join(_text(line) + b"\n" for line in lines)
            with self._writing(), open(self.path, "ab") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            self._hash.update(text)
            self._size += len(text)
            for reader in self.readers:
                reader(lines)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            first = (
                remedy(error)
                if error.errno in (*PASSING, errno.EROFS, errno.ENOENT)
                else "delete it or make it writable"
            )
            raise file_error(
                error, f"cannot write {self.path}: {error.strerror}; {first} and type the same command to go on"
            ) from error


def _text(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line).encode()
