"""How the tests run: the quick ones without torch, a heavy one only with its mark, what is shared in tests/support."""

import ast
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ranks import ROOT

pytestmark = pytest.mark.quick
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))

HEAVY = """
import subprocess, sys, time
import pytest
from tests.support import cpu_limit

cpu_limit.LIMIT_S = 0.5
CODE = "import time\\nwhile time.process_time() < 1: pass"

def test_light(): time.sleep(0.6)
def test_heavy(): exec(CODE + " + 1")
def test_heavy_child(): subprocess.run([sys.executable, "-c", CODE], check=True)
@pytest.mark.slow
def test_marked(): subprocess.run([sys.executable, "-c", CODE], check=True)
"""

NO_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ImportError("torch is imported")

sys.meta_path.insert(0, NoTorch())
"""


def run_pytest(*words: object, cwd: Path, path: str = str(ROOT)) -> str:
    """What a pytest of its own prints; path: PYTHONPATH."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False).stdout


def test_a_heavy_test_without_the_mark_fails(tmp_path: Path) -> None:
    """CPU time counts, a child's too, and sleep does not."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    (tmp_path / "test_it.py").write_text(HEAVY)
    said = run_pytest("-p", "tests.support.cpu_limit", cwd=tmp_path)
    assert set(re.findall(r"^FAILED test_it.py::(\w+)", said, re.M)) == {"test_heavy", "test_heavy_child"}, said
    assert "took 1 CPU s: mark it slow or make it faster" in said
    assert "2 failed, 2 passed" in said


def test_quick_files_import_no_torch(tmp_path: Path) -> None:
    """Neither conftest nor a file whose tests are all quick: collected in one process that cannot import torch."""
    (tmp_path / "no_torch.py").write_text(NO_TORCH)
    files = [path for path in TESTS if re.search(r"^pytestmark = pytest\.mark\.quick$", path.read_text(), re.M)]
    assert len(files) > 10
    said = run_pytest("-p", "no_torch", "--collect-only", *files, cwd=ROOT, path=f"{tmp_path}:{ROOT}")
    assert "tests collected" in said
    assert "torch is imported" not in said


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_file_imports_another(path: Path) -> None:
    """Programs in strings count too; what several share is in tests/support. A file has at most 400 lines."""
    text = path.read_text()
    assert not re.search(r"from tests[.\w]* import test_|(from|import) tests[.\w]*\.test_", text)
    assert len(text.splitlines()) <= 400


def programs() -> Iterator[tuple[str, str]]:
    """(where, text) of every string of the tests that is a program of its own: it parses and imports something."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "import " in node.value:
                with contextlib.suppress(SyntaxError):
                    if any(isinstance(n, ast.Import | ast.ImportFrom) for n in ast.walk(ast.parse(node.value))):
                        yield f"{path.stem}_{node.lineno}", node.value


def test_programs_in_strings_know_their_names(tmp_path: Path) -> None:
    """No linter looks into strings: a name that moved ends such a process, and a test may wait for it."""
    found = dict(programs())
    assert len(found) > 15
    for where, text in found.items():
        (tmp_path / f"{where}.py").write_text(text)
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "--output-format", "concise", "."]
    done = subprocess.run(ruff, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
