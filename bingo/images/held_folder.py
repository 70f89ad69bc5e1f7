"""A folder that one process fills."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bingo.errors import TransientError, file_error
from bingo.files import sweep_temporaries, try_lock


@contextlib.contextmanager
def held_folder(out: Path, writer: str) -> Iterator[None]:
    """Make `out` if need be and hold it for one `writer`; what is new and still empty afterwards is removed again.

    What killed writers left half-written is swept first. Raises `TransientError` while another process holds the
    folder and for a full disk, `UserError` when it cannot be made.
    """
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise file_error(error, f"cannot write the folder {out}: {error.strerror}; choose another folder") from error
    try:
        if not try_lock(descriptor):
            raise TransientError(f"another {writer} is writing {out} now; wait for it or choose another folder")
        sweep_temporaries(out)
        try:
            yield
        finally:
            if new:
                with contextlib.suppress(OSError):  # not empty: there is a result, or something to go on from
                    out.rmdir()
    finally:
        os.close(descriptor)
