"""metrics.jsonl shown by others while it grows: TensorBoard, and Weights & Biases offline. The file stays the truth.

Each start writes what the file already has once more and goes on from there, in place of what earlier starts wrote: no
step is there twice, whatever happened to the job. Only logged steps (`runtime.log_every`) and evaluations are sent.
Nothing here uses a network. A sink that fails is told of and ends; the training goes on.
"""

import importlib.util
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from bingo.config import TrainingConfig
from bingo.config_json import to_json
from bingo.errors import UserError
from bingo.files import METRICS, first_line
from bingo.train.lines import read_lines

log = logging.getLogger(__name__)
PLACE = ("kind", "step", "epoch", "time")
"""What of a line says where it belongs; the rest are quantities."""


class Sink(Protocol):
    """Where quantities go; `steps`: how many were done, never fewer than before."""

    def put(self, found: Mapping[str, float], steps: int, seconds: float | None) -> None:
        """seconds: since 1970, where the line says it."""

    def close(self) -> None:
        """All of it is on disk."""


def check_sinks(names: Sequence[str]) -> None:
    """`UserError` where a package is missing."""
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise UserError(
            f"monitor.sinks={','.join(names)} needs {missing[0]}, which is not installed: "
            f"pip install 'bingo-distill[{missing[0]}]', or leave it out of --monitor.sinks"
        )


class Sinks(AbstractContextManager["Sinks"]):
    """Those of a run, in its folder; on ranks that write no metrics there are none. A context: its end closes them."""

    def __init__(self, config: TrainingConfig, *, main: bool) -> None:
        self._open: dict[str, Sink] = {}
        for name in config.monitor.sinks if main else ():
            try:
                self._open[name] = OPEN[name](config)
            except Exception as error:  # of packages of others, in any type
                self._lost(name, error)
        if self._open:
            self.take(read_lines(config.out / METRICS))

    def take(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Show new lines of metrics.jsonl."""
        for name, sink in list(self._open.items()):
            try:
                for line in lines:
                    if found := dict(quantities(line)):
                        sink.put(found, line["step"] + (line["kind"] == "train"), line.get("time"))
            except Exception as error:
                self._lost(name, error)

    def _lost(self, name: str, error: Exception) -> None:
        self._open.pop(name, None)
        log.warning("nothing more goes to %s (%s); %s has everything", name, first_line(error), METRICS)

    def __exit__(self, *about: object) -> None:
        for name, sink in list(self._open.items()):
            try:
                sink.close()
            except Exception as error:
                self._lost(name, error)


def quantities(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """`eval/knn` and the like: what a logged step's or an evaluation's line has, nothing of other lines."""
    logged = line["kind"] == "eval" or (line["kind"] == "train" and not {"top1", "images_per_second"}.isdisjoint(line))
    for name, value in line.items():
        if logged and name not in PLACE and type(value) in (int, float):
            yield f"{line['kind']}/{name}", value


class TensorBoard:
    """Event files in `tensorboard/`."""

    def __init__(self, config: TrainingConfig) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = config.out / "tensorboard"
        for path in folder.glob("events.out.tfevents.*"):
            path.unlink()
        self.writer = SummaryWriter(str(folder))

    def put(self, found: Mapping[str, float], steps: int, seconds: float | None) -> None:
        for name, value in found.items():
            self.writer.add_scalar(name, value, steps, walltime=seconds)

    def close(self) -> None:
        self.writer.close()


class WandB:
    """One offline run in `wandb/`, to be sent by `wandb sync` from where there is a network."""

    def __init__(self, config: TrainingConfig) -> None:
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # read when it is imported: it would report to its makers
        import wandb

        for path in (config.out / "wandb").glob("offline-run-*"):
            shutil.rmtree(path)
        quiet = wandb.Settings(console="off", silent=True, disable_git=True, save_code=False, x_disable_stats=True)
        out = config.out.absolute()
        self.run = wandb.init(
            project="bingo-distill", name=out.name, dir=str(out), mode="offline", config=to_json(config), settings=quiet
        )

    def put(self, found: Mapping[str, float], steps: int, seconds: float | None) -> None:
        self.run.log(dict(found), step=steps)

    def close(self) -> None:
        self.run.finish()


OPEN: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": WandB}
