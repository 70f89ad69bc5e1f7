"""The code of a submission: a copy of the package, so that no later edit changes a queued job.

From a checkout the copy holds what git tracks and what it does not ignore, with the links between the package's folders
as they are; `code.json` says which commit that is, and `code.diff` what is not in it. Otherwise the installed folder is
copied.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import bingo
from bingo.errors import UserError
from bingo.files import first_line, hash_bytes, hash_file, hash_json, write_json

FOLDERS = ("bingo", "kernels", "launch", "bench")
TRIES = 3  # an editor may save while files are copied


def take(target: Path, package: Path | None = None) -> dict[str, Any]:
    """Copy the running package into the new folder `target`; beside it go `target`.json and `target`.diff.

    package: another `bingo` folder, for tests. Returns {sha, dirty, diff, hash, files, source}: sha None without git,
    diff the hash of the uncommitted diff, hash that of all names and contents. `UserError` if files keep changing.
    """
    package = package or Path(bingo.__file__).parent
    top = package.parent
    for _ in range(TRIES):
        commit = _git(top, "rev-parse", "HEAD") if _is_tracked(package) else None
        names = _installed(package) if commit is None else _in_git(top)
        before = _hashes(top, names)
        diff = b"" if commit is None else _diff(top)
        for name in names:
            _copy(top / name, target / name, keep_links=commit is not None)
        if before == _hashes(target, names) and before == _hashes(top, names):
            break
        shutil.rmtree(target)
    else:
        raise UserError(f"files in {top} change while they are copied; submit again when nothing writes there")
    with open(target.with_name(f"{target.name}.diff"), "wb") as file:
        file.write(diff)
    facts = {
        "sha": commit.decode().strip() if commit else None,
        "dirty": bool(diff),
        "diff": hash_bytes(diff) if diff else None,
        "hash": hash_json(before),
        "files": len(names),
        "source": str(top),
    }
    write_json(target.with_name(f"{target.name}.json"), facts)
    return facts


def _is_tracked(package: Path) -> bool:
    return _git(package.parent, "ls-files", "--error-unmatch", "bingo/__init__.py") is not None


def _git(top: Path, *words: str) -> bytes | None:
    """What git prints; None where there is no git, no repository, or none that it trusts."""
    try:
        done = subprocess.run(["git", *words], cwd=top, capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def _told(top: Path, *words: str, fine: tuple[int, ...] = (0,)) -> bytes:
    """What git prints where it has answered before. `UserError` when it fails: its silence is no answer."""
    done = subprocess.run(["git", *words], cwd=top, capture_output=True, check=False)
    if done.returncode not in fine:
        said = first_line(done.stderr.decode(errors="replace")) or f"exit status {done.returncode}"
        raise UserError(
            f"git {words[0]} fails in {top}, so nobody can say which code would run: {said}; mend that first"
        )
    return done.stdout


def _in_git(top: Path) -> list[str]:
    """Names of the package's files that git tracks or does not ignore; links are named, not followed."""
    listed = _told(top, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *FOLDERS)
    names = sorted({os.fsdecode(name) for name in listed.split(b"\0") if name})
    return [name for name in names if os.path.lexists(top / name)]


def _installed(package: Path) -> list[str]:
    """Names of the files below the package's folder; links are followed."""
    found = []
    for folder, folders, files in os.walk(package, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        found += [os.path.relpath(os.path.join(folder, name), package.parent) for name in files]
    return sorted(found)


def _diff(top: Path) -> bytes:
    """Uncommitted changes of tracked files, then every new file, in git's format."""
    plain = ("diff", "--binary", "--no-ext-diff", "--no-textconv", "--no-color")
    tracked = _told(top, *plain, "HEAD", "--", *FOLDERS)
    others = _told(top, "ls-files", "-z", "--others", "--exclude-standard", "--", *FOLDERS).split(b"\0")
    new = [[*plain, "--no-index", "--", os.devnull, os.fsdecode(name)] for name in others if name]
    # Exit status 1 means that the two differ.
    return tracked + b"".join(_told(top, *words, fine=(0, 1)) for words in new)


def _copy(source: Path, target: Path, keep_links: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target, follow_symlinks=not keep_links)


def _hashes(top: Path, names: list[str]) -> dict[str, str]:
    """Name -> hash of the content, or where a link points; an absent file has none."""
    found = {}
    for name in names:
        path = top / name
        link = path.is_symlink() and not path.is_file()
        found[name] = f"-> {os.readlink(path)}" if link else hash_file(path) if path.exists() else ""
    return found
