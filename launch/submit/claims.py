"""One submission at a time for a stage's folder, whatever its root: a claim in the folder names the root that has it.

A claim counts while a job of that root's newest submission writes the folder: it waits, runs or will start again, or is
being sent. Any other claim is passed over.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from bingo.errors import TransientError, UserError
from bingo.files import folder_lock, make_folder
from bingo.launch.layout import SUBMISSIONS
from bingo.launch.submit.submission import Sent, Submission, newest
from bingo.paths import quoted
from bingo.stages import Stage

CLAIM = ".claim"
WAIT_S = 120
"""Another command holds a claim while it asks Slurm."""
Alive = Callable[[Submission], dict[tuple[str, int], Sent]]


@contextlib.contextmanager
def claimed(root: Path, stages: Iterable[Stage], alive: Alive) -> Iterator[None]:
    """Claim the folders of these stages for a submission of `root` (absolute); given back if what is inside refuses.

    Any other end, such as an interrupt, may have left jobs that run: then the claims stay, and their root is asked.
    `UserError` if a submission of another root has one, or cannot be asked about.
    """
    others: dict[Path, dict[Path, str]] = {}
    with contextlib.ExitStack() as undo:
        for stage in stages:
            missing = [path for path in (stage.out, *stage.out.parents) if not path.exists()]
            make_folder(stage.out)
            undo.callback(_remove, missing)
            with folder_lock(stage.out, WAIT_S, CLAIM):
                owner = _owner(stage.out)
                if owner is not None and owner.resolve() != root.resolve():
                    if owner not in others:
                        others[owner] = _folders_of(owner, alive)
                    if words := others[owner].get(stage.out.resolve()) or others[owner].get(owner):
                        raise UserError(f"{stage.out} {words}, or choose another --out")
                (stage.out / CLAIM).write_text(json.dumps({"root": str(root)}) + "\n")
            undo.callback(_give_back, stage.out, root)
        try:
            yield
        except UserError:
            raise
        except BaseException:
            undo.pop_all()
            raise
        undo.pop_all()


def _owner(out: Path) -> Path | None:
    """The root that a claim names; None for an empty or damaged one."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        return Path(json.loads((out / CLAIM).read_bytes())["root"])
    return None


def _folders_of(root: Path, alive: Alive) -> dict[Path, str]:
    """Folder -> what another root's submission does with it; under the root itself what concerns all."""
    try:
        if (root / SUBMISSIONS).is_dir():
            with folder_lock(root / SUBMISSIONS):
                pass
    except TransientError:
        return {root: f"may belong to {root}, whose jobs are being sent or ended now: try again later"}
    except UserError:  # not ours to write: whoever sends there now has written his claim before
        pass
    submission = newest(root)
    if submission is None:
        return {}
    see = f"see `bingo status {quoted(root)}`, end it with `bingo cancel {quoted(root)}`"
    return {
        stage.out.resolve(): f"belongs to the job {line.job} ({line.slurm_id}) of {submission.folder}, which may "
        f"still run: {see}"
        for (job, task), line in alive(submission).items()
        for stage in submission.job(job).tasks[task]
    }


def _give_back(out: Path, root: Path) -> None:
    with contextlib.suppress(OSError, UserError), folder_lock(out, WAIT_S, CLAIM):
        if _owner(out) == root:
            (out / CLAIM).unlink()


def _remove(folders: list[Path]) -> None:
    """Remove new folders, the inner ones first, as far as they are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
