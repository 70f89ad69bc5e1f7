"""Moves the work of a stage out of its folder, on request: nothing is deleted, and files of others are not touched."""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bingo.errors import UserError, file_error
from bingo.files import BY_PRODUCTS, RECORD, REPLACED, SINKS, TEMPORARY, folder_lock, sync_folder, write_json
from bingo.inputs import WROTE, kind_of

HIDDEN = re.compile(r"\.(pack(\.journal|-c?\d{3,}\.bin)|[\w.]+\.(partial|marks)|digits/.*)")
CHECKPOINT = re.compile(r"checkpoints/(damaged-)?step-\d+.*\.pt")


def half_done(out: Path) -> bool:
    """Whether a folder holds work that says itself what it is of: checkpoints, blocks, packed files."""
    return has_checkpoints(out) or any(HIDDEN.fullmatch(path.name) for path in out.iterdir())


def has_checkpoints(out: Path) -> bool:
    return any((out / "checkpoints").glob("step-*"))


@dataclass(frozen=True)
class Moved:
    """What was moved: names relative to both folders, in the order in which they were moved."""

    out: Path
    aside: Path
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.out}: what was there is in {self.aside}"

    def back(self) -> None:
        """Move everything back to where it was. `UserError` if the folder was begun anew meanwhile."""
        with folder_lock(self.out), _told(self.out):
            if (self.out / RECORD).exists():
                raise UserError(f"{self.out} was begun anew; what was there stays in {self.aside}")
            (self.out / REPLACED).unlink(missing_ok=True)
            _move(self.aside, self.out, self.names)
            _prune(self.aside, self.names)
            self.aside.rmdir()


def move_aside(out: Path, kind: str) -> Moved | None:
    """Move what the suite wrote in a stage's folder to `OUT.replaced-TIME` beside it; None if there is nothing.

    The folder itself, and files that no stage writes, stay. Either all is moved or nothing. kind: of the stage, where
    the folder does not say. Raises `TransientError` while another process writes the folder, `UserError` if it cannot
    be moved.
    """
    out = out.resolve()
    if not out.is_dir():
        return None
    with folder_lock(out):
        return move_held_aside(out, kind)


def move_held_aside(out: Path, kind: str) -> Moved | None:
    """The same for a folder that the caller holds."""
    out = out.resolve()
    names = tuple(own_files(out, kind_of(out) or kind))
    if not names:
        return None
    with contextlib.ExitStack() as held, _told(out):
        for inside in {(out / name).parent for name in names if name.endswith(f"/{RECORD}")}:
            held.enter_context(folder_lock(inside))
        aside = _new_folder(out)
        try:
            _move(out, aside, names)
        except BaseException:
            aside.rmdir()
            raise
        _prune(out, names)
        if any(path.name[0] != "." for path in out.iterdir()):
            write_json(out / REPLACED, {"time": time.time(), "moved_to": str(aside)})
    return Moved(out, aside, names)


def own_files(folder: Path, kind: str) -> Iterator[str]:
    """Relative names of what a stage of this kind writes in its folder, and of stages' folders in it; the record last.

    Links to files count as files. Links to folders stay, but for one in the place of the checkpoints.
    """
    wrote = WROTE[kind]
    for top, folders, files in os.walk(folder):
        here = Path(top)
        for name in sorted(folders):
            inside = here / name
            if inside.is_symlink():
                yield from ["checkpoints"] * (inside == folder / "checkpoints")
            elif (inside / RECORD).exists():  # a stage of its own
                folders.remove(name)
                below = inside.relative_to(folder)
                yield from ((below / own).as_posix() for own in own_files(inside, kind_of(inside) or kind))
        for name in sorted(files):
            own = (here / name).relative_to(folder).as_posix()
            if own != RECORD and _is_own(own, wrote):
                yield own
    if (folder / RECORD).exists():
        yield RECORD


def _is_own(name: str, wrote: re.Pattern[str]) -> bool:
    if name in BY_PRODUCTS or any(pattern.fullmatch(name) for pattern in (wrote, HIDDEN, CHECKPOINT)):
        return True
    if name.split("/")[0] in SINKS:
        return True
    parent, _, last = name.rpartition("/")
    return parent in ("", "checkpoints") and TEMPORARY.fullmatch(last) is not None


def _new_folder(out: Path) -> Path:
    """A folder beside this one with the time in its name, and a number if that is taken."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for taken in range(10_000):
        aside = out.with_name(f"{out.name}.replaced-{stamp}" + (f"-{taken}" if taken else ""))
        with contextlib.suppress(FileExistsError):
            aside.mkdir()
            return aside
    raise UserError(f"{out.parent} holds too many folders that were replaced in this second; try again")


def _move(source: Path, target: Path, names: tuple[str, ...]) -> None:
    """Rename files one by one; if one cannot be, or at an interrupt, those before it are moved back, and it raises."""
    done = []
    try:
        for name in names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            done.append(name)
            os.rename(source / name, target / name)
        sync_folder(target)
        sync_folder(source)
    except BaseException:
        for name in reversed(done):
            if os.path.lexists(target / name):
                os.rename(target / name, source / name)
        _prune(target, names)
        raise


def _prune(folder: Path, names: tuple[str, ...]) -> None:
    """Remove the folders that the moved files have left empty."""
    parents = {parent for name in names for parent in Path(name).parents} - {Path()}
    for parent in sorted(parents, key=lambda path: -len(path.parts)):
        with contextlib.suppress(OSError):  # the user's files are in it
            (folder / parent).rmdir()


@contextlib.contextmanager
def _told(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise file_error(
            error, f"cannot move aside what is in {out}: {error.strerror}; it is as it was: choose another --out"
        ) from error
