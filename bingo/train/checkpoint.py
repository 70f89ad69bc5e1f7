"""Checkpoints: written whole or not at all, the newest valid one wins, the two newest are kept."""

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch

from bingo.errors import UserError
from bingo.files import write_torch

log = logging.getLogger(__name__)
FORMAT = "bingo-checkpoint-1"
KEEP = 2


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:010d}.pt"


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write the state after `step` steps, then drop all but the newest `KEEP`."""
    write_torch(checkpoint_path(folder, step), {**state, "format": FORMAT, "step": step})
    for old in sorted(folder.glob("step-*.pt"))[:-KEEP]:
        old.unlink()


def load_newest(folder: Path, key: str, device: torch.device) -> dict[str, Any] | None:
    """The newest checkpoint that is whole; damaged ones are skipped with a sentence.

    `key` identifies the run's settings. Raises `UserError` when the newest whole checkpoint belongs to other settings.
    """
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        state = _read(path, device)
        if state is None:
            log.warning("checkpoint %s is truncated or damaged; falling back to the one before it", path)
            continue
        if state.get("key") != key:
            raise UserError(f"{path} was written by a run with other settings; choose another --out or delete {folder}")
        return state
    return None


def _read(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The checkpoint's state, or None when its archive is incomplete, fails its CRC or is not ours."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception:  # torch raises many types on damaged archives, and each means the same thing here
        return None
    return state if isinstance(state, dict) and state.get("format") == FORMAT else None
