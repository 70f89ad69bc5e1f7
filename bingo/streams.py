"""The three standard streams: there, able to print every name, and never the reason of a traceback."""

import contextlib
import io
import os
import sys

MODES = {"stdin": "r", "stdout": "w", "stderr": "w"}


def prepare() -> list[str]:
    """Call it first: /dev/null for streams that are missing, so that no file gets their descriptor; their names.

    Afterwards letters that a stream's encoding lacks are printed as escapes.
    """
    missing = []
    for descriptor, (name, mode) in enumerate(MODES.items()):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor is this one
            os.set_inheritable(descriptor, True)
            missing.append(name)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return missing


def use_utf8() -> None:
    """Start this command again in Python's UTF-8 mode where the locale has another encoding.

    Names of files are bytes, and names in archives and in our own files are UTF-8: elsewhere some could not be opened.
    """
    if sys.flags.utf8_mode or sys.getfilesystemencoding() == "utf-8":
        return
    os.environ["PYTHONUTF8"] = "1"  # for children
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def tell(text: str) -> None:
    """A line on standard error, if it can be written."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def silence(probe: str = "") -> str:
    """/dev/null for streams that cannot be written, so that Python can end; why standard output cannot be, or "".

    probe: written to standard output to find out; without one only what is still in its buffer tells.
    """
    why = ""
    for stream, text in ((sys.stdout, probe), (sys.stderr, "")):
        try:
            stream.write(text)
            stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            why = why or (error.strerror or str(error) if stream is sys.stdout else "")
    return why
