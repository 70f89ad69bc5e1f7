"""Plants an edit in the source of a kernel and asks the executor's cases whether they notice."""

import contextlib
import importlib
import importlib.util
import itertools
import linecache
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from triton.compiler.errors import CompilationError

from tests.softgpu.cases import Case, run
from tests.softgpu.state import Fault

# The schedules that a case is run with until one of them notices: what comes late, early, or at random.
SCHEDULES = (("random", 0), ("lazy", 1), ("eager", 2), ("random", 3))
Edit = tuple[str, str]


@dataclass(frozen=True)
class Mutation:
    """Edits (text, replacement) of a module of `bingo.kernels`, and the case that is to notice them.

    right: the edited kernel is as good as ours and must be accepted. quick: part of the tests, not only of `make fuzz`.
    compiles: whether the compiler lets it pass, so that it is the executor's turn.
    """

    name: str
    module: str
    case: str
    edits: tuple[Edit, ...]
    right: bool = False
    quick: bool = False
    compiles: bool = True


class Stale(AssertionError):
    """The source has changed: an edit does not say any more what it replaces."""


def edited(mutation: Mutation, text: str) -> str:
    """`Stale` unless each text that is replaced is there exactly once."""
    for old, new in mutation.edits:
        if (count := text.count(old)) != 1:
            raise Stale(f"{mutation.name}: {mutation.module}.py has {old!r} {count} times")
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def planted(mutation: Mutation) -> Iterator[None]:
    """Inside the block everything that the module defines is what the edited source defines."""
    module = importlib.import_module(f"bingo.kernels.{mutation.module}")
    path = Path(module.__file__ or "")
    other = _load(path, edited(mutation, path.read_text()))
    before = dict(vars(module))
    defined = {n: v for n, v in vars(other).items() if not n.startswith("__") and not isinstance(v, ModuleType)}
    try:
        vars(module).update(defined)
        yield
    finally:
        vars(module).clear()
        vars(module).update(before)


_numbers = itertools.count()


def _load(path: Path, text: str) -> ModuleType:
    """A module from text. Triton reads the source of its functions again: `linecache` has it, no file does."""
    name = f"{path.stem}_planted_{next(_numbers)}"
    file = f"<{name}>"
    module = ModuleType(name)
    module.__file__ = file
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    exec(compile(text, file, "exec"), vars(module))
    return module


def noticed(mutation: Mutation, case: Case) -> str:
    """What gives the edit away, or "": a fault or a wrong number under one of the schedules."""
    with planted(mutation):
        if mutation.compiles:
            return judge(case)
        try:
            return judge(case)
        except (CompilationError, RuntimeError) as error:
            return f"the compiler: {error}".splitlines()[0]


def judge(case: Case, prepare: Callable[[Any], None] = lambda gpu: None) -> str:
    """What is wrong with the first schedule that shows it, or ""."""
    for policy, seed in SCHEDULES:
        try:
            off = run(case | {"policy": policy, "seed": seed}, prepare)
        except Fault as fault:
            return f"{policy}: {str(fault).splitlines()[0]}"
        if not off <= 1:
            return f"{policy}: wrong by {off:.3g} times what is allowed"
    return ""
