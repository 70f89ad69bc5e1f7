"""A function in a fresh interpreter gets its values, and finds this very package."""

import subprocess
from pathlib import Path

import pytest

import bingo
from bingo.bench.fresh_process import command, environment

pytestmark = pytest.mark.quick


def test_a_function_gets_its_values() -> None:
    done = subprocess.run(command(print, ["a b", 1, None, [2.5]]), capture_output=True, text=True)
    assert done.stdout == "a b 1 None [2.5]\n"


def test_the_child_finds_this_package_before_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bingo").mkdir()
    (tmp_path / "bingo" / "__init__.py").write_text("__version__ = 'another'")
    (tmp_path / "beside.py").write_text("def say(): import bingo; print(bingo.__path__[0])")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    from beside import say  # type: ignore[import-not-found]

    done = subprocess.run(command(say, []), env=environment(), cwd=tmp_path / "bingo", capture_output=True, text=True)
    assert done.stdout == f"{bingo.__path__[0]}\n", done.stderr
