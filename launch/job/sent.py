"""What was known when a job was sent: the content of its inputs. A start compares with it and stops in words.

In `sent.json` of the job's folder: {inputs: {OUT: {NAME: {path, hash, by}}}, any_version}. Inputs that the submission
itself makes are not in it. any_version: the job goes on with work that another version of bingo began.
"""

import contextlib
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any

from bingo.errors import TransientError, UserError
from bingo.files import read_object, write_json
from bingo.identity import identify, inputs_read_once
from bingo.stages import Stage
from bingo.streams import tell

FILE = "sent.json"
NOTHING: dict[str, Any] = {"inputs": {}, "any_version": False}
AGAIN = "send the job again with `bingo repair`"


@inputs_read_once()
def write_sent(folder: Path, stages: Iterable[Stage], made: Set[Path], *, any_version: bool = False) -> None:
    """Write down what is known now of these stages' inputs; made: folders that this submission writes before.

    What an earlier hand-over of the job said of other stages stays.
    """
    before = NOTHING
    with contextlib.suppress(UserError):  # damaged: this is what mends it
        before = read_sent(folder)
    inputs = {str(stage.out): identify(stage.kind, stage.config, made).inputs_json() for stage in stages}
    value = {"inputs": {**before["inputs"], **inputs}, "any_version": any_version or before["any_version"]}
    write_json(folder / FILE, value)


def read_sent(folder: Path) -> dict[str, Any]:
    """What was written; nothing known for a job of an earlier release. `UserError` for a damaged file."""
    path = folder / FILE
    if not path.exists():
        return NOTHING
    value = read_object(path, {"inputs": dict, "any_version": bool}, remedy=AGAIN)
    for inputs in value["inputs"].values():
        known = inputs.values() if isinstance(inputs, dict) else [None]
        if not all(isinstance(one, dict) and isinstance(one.get("hash"), str) for one in known):
            raise UserError(f"{path} is damaged: its inputs are none; {AGAIN}")
    return value


def known_to_start(folder: Path) -> dict[str, Any]:
    """The same for a start of the job: a damaged file is told of in the log, and nothing is compared with it."""
    try:
        return read_sent(folder)
    except TransientError:
        raise
    except UserError as error:
        tell(f"{error}; this start cannot say whether an input has changed since the job was sent")
        return NOTHING


def sent_of(sent: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """The part of it that concerns one stage, as `run_stage` takes it."""
    return {**sent, "inputs": sent["inputs"].get(str(stage.out), {})}
