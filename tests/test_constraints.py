"""What gets installed: every version with the hashes of its files, everything that is needed, and each licence."""

import importlib.metadata
import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.licences import PAGE, ROOT, licence, pinned

pytestmark = pytest.mark.quick

CONSTRAINTS = (ROOT / "constraints.txt").read_text()
PINS = pinned(CONSTRAINTS)
UNPINNED = ("tensorboard", "wandb")
"""Extras that `make lock` leaves out: they show what is there anyway, and bring thirty packages."""


def plain(name: str) -> str:
    """A package's name as all its spellings share it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def applying(needs: Iterable[str], extras: Iterable[str] = ()) -> Iterator[tuple[str, frozenset[str]]]:
    """(package, its extras) of those needs that hold on this system, with these extras."""
    for need in map(Requirement, needs):
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield plain(need.name), frozenset(need.extras)


def test_every_version_has_hashes() -> None:
    blocks = re.split(r"\n(?=\S)", CONSTRAINTS.partition("\n#")[2].partition("\n")[2].strip())
    assert len(blocks) == len(PINS) > 80
    for block in blocks:
        lines = block.split(" \\\n    ")
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; .+)?", lines[0]), lines[0]
        assert lines[1:], f"{lines[0]} has no hash"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in lines[1:]), block


def test_nothing_that_is_needed_is_missing() -> None:
    """From what the project asks for, step by step to what that asks for; pip would refuse what has no hash."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needs = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    extras = project["project"]["optional-dependencies"]
    needs += itertools.chain(*(extras[name] for name in extras if name not in UNPINNED))
    wanted, seen = list(applying(needs)), set[tuple[str, frozenset[str]]]()
    while wanted:
        package = wanted.pop()
        if package not in seen:
            seen.add(package)
            name, extras = package
            assert name in PINS, f"{name} is not in constraints.txt; type `make lock`"
            wanted += applying(importlib.metadata.requires(name) or (), extras)
    assert len({name for name, _ in seen}) > 80


def test_another_file_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    """pip, with a sound wheel under a version whose hashes are others."""
    wheel = tmp_path / "six-1.17.0-py2.py3-none-any.whl"
    wheel.write_bytes(b"not the file that was pinned")
    (tmp_path / "wanted.txt").write_text(re.search(r"^six==[^#]*?(?=^\S)", CONSTRAINTS, re.M | re.S)[0])  # type: ignore[index]
    command = [sys.executable, "-m", "pip", "--isolated", "install", "--no-index", "--no-deps", "--require-hashes"]
    command += ["--target", tmp_path / "there", "--find-links", tmp_path, "-r", tmp_path / "wanted.txt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr, done.stderr
    assert not (tmp_path / "there").exists()


def test_the_page_of_licences() -> None:
    """Every pinned package is in it, with its version and what it says of its licence."""
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (.+) \|$", PAGE.read_text(), re.M)
    assert {name: version for name, version, _ in rows[1:]} == PINS, "type `make licences`"
    for name, version, said in rows[1:]:
        assert said.strip(), name
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if installed == version:
            assert said == licence(name), "type `make licences`"
