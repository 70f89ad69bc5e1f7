"""Paths as they are typed in flags, config files and site files."""

import os
import shlex
from pathlib import Path

from bingo.errors import UserError, brief

LIBRARIES = ("timm:", "torchvision:")
MOST_BYTES = 4095
MOST_NAME_BYTES = 255
"""Linux takes no longer paths, and its file systems no longer names."""


def as_path(text: object) -> Path:
    """The path that a text names, `~` and `~user` expanded; `UserError` for what no file system takes as one."""
    if not isinstance(text, str):
        raise UserError(f"{brief(text)} is not a path: it must be text")
    home = os.path.expanduser(text)
    try:
        names = os.fsencode(home)
    except UnicodeEncodeError:
        raise UserError(f"{brief(text)} is not a path: it holds half a character") from None
    if why := (
        "it is empty" if not home
        else "it holds a zero byte" if b"\0" in names
        else "there is no such home folder (a name that begins with ~ is written ./~name)" if home[0] == "~"
        else "it is too long" if len(names) > MOST_BYTES or max(map(len, names.split(b"/"))) > MOST_NAME_BYTES
        else ""
    ):  # fmt: skip
        raise UserError(f"{brief(text)} is not a path: {why}")
    return Path(home)


def as_text(path: Path) -> str:
    """What `as_path` reads back as the same path."""
    return f"./{path}" if str(path).startswith("~") else str(path)


def quoted(path: Path) -> str:
    """The same as one word of a command to copy: for a shell, and no flag."""
    text = as_text(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def library_name(path: Path) -> str:
    """`timm:NAME` or `torchvision:NAME` if this is such a name and no file; "" for every other path.

    The last part of the path counts, so it stays a name wherever paths are made absolute.
    """
    return path.name if path.name.startswith(LIBRARIES) and not os.path.lexists(path) else ""
