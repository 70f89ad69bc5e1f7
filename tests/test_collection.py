"""How the tests run: the quick ones without torch, a heavy one only with its mark, what is shared in tests/support."""

import ast
import contextlib
import json
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
import os, subprocess, sys, time
import pytest
from tests.support import cpu_limit

cpu_limit.LIMIT_S, cpu_limit.WORK_S, cpu_limit.seen[:] = 0.5, float(os.environ["WORK_S"]), [1.0]
CODE = "import time\\nbegan = time.process_time()\\nwhile time.process_time() < began + 1: pass"

def test_light(): time.sleep(0.6)
def test_heavy(): exec(CODE, {})
def test_heavy_child(): subprocess.run([sys.executable, "-c", CODE], check=True)
@pytest.mark.slow
def test_marked(): subprocess.run([sys.executable, "-c", CODE], check=True)
"""

SAMPLED = """
import pytest

@pytest.mark.sampled(2)
@pytest.mark.parametrize("case", range(9))
def test_alone(case): pass

@pytest.mark.sampled(1, by="kind")
@pytest.mark.parametrize("kind", "abc")
@pytest.mark.parametrize("twice", [0, 1])
def test_first(kind, twice): pass

@pytest.mark.sampled(1, by="kind")
@pytest.mark.parametrize("kind", "abc")
def test_second(kind): pass

@pytest.mark.sampled(1, group="either")
def test_this(): pass
@pytest.mark.sampled(1, group="either")
def test_that(): pass

def test_plain(): pass
"""

NO_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ImportError("torch is imported")

sys.meta_path.insert(0, NoTorch())
"""


def run_pytest(*words: object, cwd: Path, path: str = str(ROOT), **variables: str) -> str:
    """What a pytest of its own prints; path: PYTHONPATH; variables: more of its environment."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": path, **variables}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize(("work_s", "failed"), [(1e9, {"test_heavy", "test_heavy_child"}), (1e-9, set())])
def test_a_heavy_test_without_the_mark_fails(tmp_path: Path, work_s: float, failed: set[str]) -> None:
    """CPU time counts, a child's too, and sleep does not. Where the fixed work takes long, a test may take longer."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    (tmp_path / "test_it.py").write_text(HEAVY)
    said = run_pytest("-p", "tests.support.cpu_limit", cwd=tmp_path, WORK_S=str(work_s))
    assert set(re.findall(r"^FAILED test_it.py::(\w+)", said, re.M)) == failed, said
    assert said.count(" CPU s, 0 allowed here: mark it slow or make it faster") >= len(failed), said
    assert f"{4 - len(failed)} passed" in said


COLLECT = """
import json, os, sys
import pytest
for seed, words in json.loads(sys.argv[1]):
    os.environ["BINGO_CASES"] = seed
    print("next")
    pytest.main(["-q", "-p", "no:cacheprovider", "-p", "tests.support.sampled", "--collect-only", *words])
"""


def collected(folder: Path, runs: list[tuple[str, list[str]]]) -> list[set[str]]:
    """Which tests each of the runs has, in one process: what chooses the cases, and words for pytest."""
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  sampled\n  slow\n")
    words = [sys.executable, "-c", COLLECT, json.dumps(runs)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return [set(re.findall(r"^(test_\w+\.py::\S+)", part, re.M)) for part in done.stdout.split("next\n")[1:]]


def test_a_sample_is_another_one_for_each_seed_and_nothing_is_left_out_for_good(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SAMPLED)
    seeds = [*map(str, range(12)), "3"]
    runs = [
        *((seed, []) for seed in seeds),
        ("0", ["--whole"]),
        ("0", ["-k", "alone"]),
        ("0", ["test_it.py::test_alone"]),
    ]
    *drawn, whole, by_word, by_name = collected(tmp_path, runs)
    assert len(whole) == 9 + 6 + 3 + 2 + 1
    for found in drawn:
        names = [name.partition("::")[2] for name in found]
        kinds = {name.rstrip("]")[-1] for name in names if re.match("test_(first|second)", name)}
        assert (len(kinds), len({"test_this", "test_that"} & {*names}), "test_plain" in names) == (1, 1, True)
        assert (len([name for name in names if "alone" in name]), len(names)) == (2, 2 + 2 + 1 + 1 + 1)
    assert drawn[3] == drawn[-1] != drawn[4]
    assert set.union(*drawn) == whole
    assert by_word == by_name == {name for name in whole if "alone" in name}


def test_slow_files_take_turns(tmp_path: Path) -> None:
    for at in range(5):
        text = "import pytest\ndef test_light(): pass\n@pytest.mark.slow\ndef test_slow(): pass\n"
        (tmp_path / f"test_{at}.py").write_text(text)
    turns = [(str(seed), ["--turns", "2"]) for seed in range(6)]
    *drawn, plain, whole = collected(tmp_path, [*turns, ("0", []), ("0", ["--turns", "2", "--whole"])])
    assert len(plain) == len(whole) == 10
    found = {"".join(sorted(name[5] for name in one if name.endswith("slow"))) for one in drawn}
    assert found == {"024", "13"}
    assert all(len([name for name in one if name.endswith("light")]) == 5 for one in drawn)


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
