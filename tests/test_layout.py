"""The layout's promises: three links, what kernels need, no work at import, a sentence for every file."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import file_list
from tests.support.modules import LINKS, SOURCES, imports, module
from tests.support.ranks import ROOT

pytestmark = pytest.mark.quick
EXECUTOR = sorted((ROOT / "tests" / "softgpu").glob("*.py"))
by_path = pytest.mark.parametrize("path", [*SOURCES, *EXECUTOR], ids=lambda p: str(p.relative_to(ROOT)))


def test_every_module_is_seen() -> None:
    """What the tests below read is what git has, at any depth, and each has a dotted name of its own."""
    folders = [f"{folder}/**.py" for folder in ("bingo", *LINKS)]
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert [str(p.relative_to(ROOT)) for p in SOURCES] == sorted(listed, key=Path)
    assert len({module(p) for p in SOURCES}) == len(SOURCES) > 130


@pytest.mark.parametrize("name", LINKS)
def test_links(name: str) -> None:
    link = ROOT / "bingo" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name
    mode = subprocess.run(
        ["git", "ls-files", "-s", f"bingo/{name}"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert mode.startswith("120000"), "the link itself must be committed"


def test_kernels_need_torch_and_triton_only() -> None:
    allowed = {"torch", "triton", *sys.stdlib_module_names, "numpy", "bingo"}
    used = {n.split(".")[0] for p in SOURCES if p.is_relative_to(ROOT / "kernels") for n in imports(p.read_text())}
    assert used <= allowed


def test_the_command_imports_late() -> None:
    """tests/test_layers.py says who may import whom; launch and bench wait until a verb asks for them."""
    names = imports((ROOT / "bingo" / "cli.py").read_text(), top_level=True)
    assert not {n for n in names if n.startswith(("bingo.launch", "bingo.bench"))}


@by_path
def test_files_stay_small_and_documented(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)), "every module starts with a docstring"


def test_faiss_is_imported_in_one_function_only() -> None:
    users = [p for p in SOURCES if "faiss" in {n.split(".")[0] for n in imports(p.read_text())}]
    assert [module(p) for p in users] == ["bingo.bags.neighbours"]
    at_once = {n.split(".")[0] for n in imports(users[0].read_text(), top_level=True)}
    assert "faiss" not in at_once
    assert "torch" in at_once, "torch comes first"


def test_launch_and_cli_import_without_torch() -> None:
    modules = "bingo.launch, bingo.cli, bingo.recipes, bingo.bags.file"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_file_list_names_every_source_file() -> None:
    """`make files`: each file below its folder, with a sentence."""
    found, folder = {}, ""
    for name, sentence in file_list.rows():
        folder = name if name.endswith("/") else folder
        found[folder + ("__init__.py" if name.endswith("/") else name)] = sentence
    assert set(found) - {"tests/softgpu/__init__.py"} == {str(p.relative_to(ROOT)) for p in (*SOURCES, *EXECUTOR)}
    assert all(found.values())
