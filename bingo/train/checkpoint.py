"""Checkpoints: written whole or not at all, the newest whole one wins, the two newest are kept, damaged ones set aside.

Only damage is damage. A file that cannot be read now may be whole: then nothing is renamed, deleted or skipped.
"""

import errno
import io
import logging
import os
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bingo.distributed import World
from bingo.errors import TransientError, UserError, file_error, no_memory
from bingo.files import SAVED, hash_bytes, read_object, sync_folder, write_json, write_torch
from bingo.train.background import Background, snapshot

log = logging.getLogger(__name__)
FORMAT = "bingo-checkpoint-1"
FAMILY = "bingo-checkpoint-"
KEEP = 2
# torch about a file that it maps, which it opens by itself: the last number is the system's.
UNMAPPED = re.compile(r"unable to (?:open|stat|mmap)\b.*\((\d+)\)", re.DOTALL)
NAME = re.compile(r"step-(\d+)\.pt")


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:010d}.pt"


def go_on(out: Path, key: str, world: World) -> tuple[dict[str, Any] | None, World]:
    """The state to go on from in a run folder, and the processes as the ranks that it was begun with."""
    state = load_newest(out / "checkpoints", key, torch.device("cpu"), world=world)
    found = state["step"] if state else None
    world.by_main(lambda: check_saved(out, found, key, world.watch.saved(key, out)))
    return state, world.counting_as(state["ranks"]) if state and "ranks" in state else world


def save_beside(
    background: Background, out: Path, done: int, state: Callable[[], dict[str, Any]], world: World
) -> None:
    """By rank 0: copy the state after `done` steps, and write the copy while the training goes on.

    The other ranks wait for nothing here, and rank 0 for the checkpoint before this one, if it is still being written.
    """
    if world.main:
        asked = time.perf_counter()
        background.wait()  # first: one copy in memory is enough
        saved = snapshot(state(), world.device)
        background.start(save_told, out, done, saved, world, time.perf_counter() - asked)


def leave_saved(background: Background, world: World, done: int) -> None:
    """End the process after `done` steps, once the checkpoint is there: who ends first may take the others with it."""
    background.wait()
    world.barrier()
    world.leave(done, f"at step {done}")


def save_told(out: Path, done: int, saved: Callable[[], dict[str, Any]], world: World, held: float) -> None:
    """Write a checkpoint, and tell of it. saved: gives it, on the CPU, once it has come from the device; held: the
    seconds for which the training has stood still; it goes on now."""
    began = time.perf_counter()
    state = saved()
    save_checkpoint(out / "checkpoints", done, state)
    record_saved(out, state["key"], done)
    times = {"seconds": round(held, 3), "writing": round(time.perf_counter() - began, 3)}
    world.watch.event("checkpoint", step=done, **times, key=state["key"], out=str(out.absolute()))


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write the state after `step` steps, then drop all earlier ones but the newest whole `KEEP` - 1."""
    surplus = _surplus(folder, step)
    write_torch(checkpoint_path(folder, step), {**state, "format": FORMAT, "step": step})
    for path in surplus:
        try:
            path.unlink()
        except OSError as error:
            log.warning("the old checkpoint %s cannot be deleted: %s", path, error.strerror)


def _surplus(folder: Path, step: int) -> list[Path]:
    """Whole checkpoints that are not needed once there is one of `step` steps; damaged ones are set aside."""
    whole = []
    for number, path in _checkpoints(folder):
        if number < step:
            try:
                sound = _read(path, number) is not None
            except OSError as error:  # nobody knows what it holds, so the next one asks again
                log.warning("checkpoint %s cannot be read now (%s): no older one is deleted", path, error.strerror)
                break
            if sound:
                whole.append(path)
            else:
                log.warning("checkpoint %s is truncated or damaged", path)
                _set_aside(path)
    return whole[KEEP - 1 :]


def load_newest(folder: Path, key: str, device: torch.device, *, world: World | None = None) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, its tensors on `device`; damaged ones are set aside with a sentence.

    `key` identifies the run's settings. With a `world` rank 0 chooses and reads, and all ranks get the same bytes.
    Raises `UserError` when the newest whole checkpoint belongs to other settings or another release, `TransientError`
    when a file cannot be read now: it may be whole.
    """
    if world is None:
        data = _newest(folder, key)
        return None if data is None else _decode(data, device)
    data = world.by_main(lambda: _newest(folder, key))
    if data is None:
        return None
    return world.together(
        lambda: _decode(data, device), lambda state: {"the checkpoint": (state["step"], hash_bytes(data))}
    )


def check_saved(out: Path, found: int | None, key: str, recorded: int | None) -> None:
    """`TransientError` where the newest checkpoint of the run in `out` is older than one that this run has saved.

    found: step of the newest whole one. recorded: the newest that the launcher knows of. A newer one that was set aside
    as damaged explains it: then this is only told.
    """
    lost = max((step for step in (recorded, _saved(out, key)) if step and step > (found or 0)), default=0)
    if not lost:
        return
    folder = out / "checkpoints"
    goes_on = "begins anew" if found is None else f"goes on from step {found}"
    if any(folder.glob(f"damaged-{checkpoint_path(folder, lost).stem}*.pt")):
        log.warning("the checkpoint of step %d in %s is damaged: the training %s", lost, folder, goes_on)
        return
    holds = "no checkpoint" if found is None else f"no checkpoint newer than step {found}"
    remedy = "send it as a new submission" if recorded == lost else f"delete {out / SAVED}"
    raise TransientError(
        f"{folder} holds {holds}, although this run saved one at step {lost}: is its storage mounted, and the folder "
        f"whole? bring that back; if it is lost, {remedy}, and the training {goes_on}"
    )


def record_saved(out: Path, key: str, step: int) -> None:
    """Write down, outside the folder of the checkpoints, that there is one of this step."""
    write_json(out / SAVED, {"key": key, "step": step})


def _saved(out: Path, key: str) -> int | None:
    """What `record_saved` wrote down of this run; None where a power cut has left no such record."""
    try:
        record = read_object(out / SAVED, {"key": str, "step": int})
    except TransientError:
        raise
    except UserError:
        return None
    return record["step"] if record["key"] == key else None


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(Step, file) of each, newest first."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TransientError(f"cannot read {folder}: {error.strerror}; the checkpoints in it stay") from error
    found = [(int(match[1]), folder / name) for name in names if (match := NAME.fullmatch(name))]
    return sorted(((step, path) for step, path in found if not path.is_dir()), reverse=True)


def _newest(folder: Path, key: str) -> bytes | None:
    """The bytes of the newest whole checkpoint."""
    for step, path in _checkpoints(folder):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise TransientError(
                f"cannot read the checkpoint {path}: {error.strerror}; it stays, and the run can go on from it once it "
                "can be read"
            ) from error
        state = _read(io.BytesIO(data), step)
        if state is None:
            log.warning("checkpoint %s is truncated or damaged; falling back to the one before it", path)
            _set_aside(path)
            continue
        if state["format"] != FORMAT:
            raise UserError(f"{path} has the format {state['format']}, this release reads {FORMAT}; update bingo")
        if state.get("key") != key:
            raise UserError(f"{path} was written by a run with other settings; choose another --out or delete {folder}")
        return data
    return None


def _read(file: io.BytesIO | Path, step: int) -> dict[str, Any] | None:
    """The checkpoint's state on the CPU; None when its archive is incomplete, fails its CRC, or is none of this step.

    What is no damage is raised: `MemoryError`, and `OSError` of a path, whose tensors stay on disk.
    """
    on_disk = isinstance(file, Path)
    try:
        with zipfile.ZipFile(file) as archive:
            if archive.testzip() is not None:
                return None
        if isinstance(file, io.BytesIO):
            file.seek(0)
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=on_disk)
    except MemoryError:
        raise
    except Exception as error:  # torch raises many types on damaged archives, and each means the same thing here
        if on_disk and isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: a place before the file
            raise
        if on_disk and (found := UNMAPPED.search(str(error))):
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
        if isinstance(error, RuntimeError) and no_memory(error):
            raise MemoryError(str(error)) from error
        return None
    ours = isinstance(state, dict) and str(state.get("format")).startswith(FAMILY) and state.get("step") == step
    return state if ours else None


def _decode(data: bytes, device: torch.device) -> dict[str, Any]:
    state = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    assert isinstance(state, dict)
    return state


def _set_aside(path: Path) -> None:
    """Rename a damaged checkpoint, so that it is neither counted nor deleted; each keeps a name of its own."""
    stem, again = f"damaged-{path.stem}", 1
    target = path.with_name(f"{stem}.pt")
    while os.path.lexists(target):
        again += 1
        target = path.with_name(f"{stem}-{again}.pt")
    try:
        os.rename(path, target)
        sync_folder(path.parent)
    except OSError as error:
        raise file_error(error, f"cannot rename the damaged checkpoint {path}: {error.strerror}") from error
    log.warning("it is kept as %s", target)
