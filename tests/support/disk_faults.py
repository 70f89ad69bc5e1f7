"""Disks that are full, out of inodes or read-only (small tmpfs mounts), and a library that makes writes fail."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class Disk:
    """A mounted tmpfs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def change(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True, timeout=60)


@contextlib.contextmanager
def disk(path: Path, options: str) -> Iterator[Disk]:
    """A tmpfs with mount `options` at `path`, unmounted afterwards; without root the test is skipped."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path]
    if os.geteuid() or subprocess.run(command, capture_output=True, timeout=60).returncode:
        pytest.skip("needs to mount a tmpfs")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", path], check=True, timeout=60)


def failing_writes(build: Path, folder: Path, most: int, *, only_sync: bool = False) -> dict[str, str]:
    """The environment of a process whose writes below `folder` fail with EIO after `most` bytes.

    only_sync: writes succeed then, and fsync fails. Without a C compiler the test is skipped.
    """
    library = _library(build)
    fault = {"LD_PRELOAD": library, "FAULT_FOLDER": str(folder), "FAULT_BYTES": str(most)}
    return os.environ | fault | ({"FAULT_SYNC": "1"} if only_sync else {})


def unreadable(build: Path, folder: Path, flag: Path, rank: int) -> dict[str, str]:
    """Variables of a Slurm job in which one rank can open no file below `folder` (EIO) while `flag` exists."""
    variables = {"FAULT_READS": str(folder), "FAULT_WHILE": str(flag), "FAULT_RANK": str(rank)}
    return {"LD_PRELOAD": _library(build), **variables}


def _library(build: Path) -> str:
    """disk_fault.c as a library; without a C compiler the test is skipped."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = build / "disk_fault.so"
    source = Path(__file__).with_name("disk_fault.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", source, "-o", library, "-ldl"], check=True, timeout=300)
    return str(library)
