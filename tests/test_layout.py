"""The layout's promises: three links, what kernels need, no work at import, one README row per file."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import file_list
from tests.support.modules import LINKS, SOURCES, imports, module
from tests.support.ranks import ROOT

by_path = pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))


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
    assert set(found) == {str(p.relative_to(ROOT)) for p in SOURCES}
    assert all(found.values())


DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "kernels" / "README.md",
    *(ROOT / "docs").glob("*.md"),
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_commands_of_documents_exist(document: Path) -> None:
    """Every `bingo VERB`, `make TARGET`, `python -m MODULE` and link to a file in the documents is real."""
    from bingo.cli import VERBS

    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    blocks = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", document.read_text(), re.S))
    for verb in re.findall(r"\bbingo ([a-z][a-z-]+)\b", blocks):
        assert verb in VERBS, f"{document.name} names `bingo {verb}`"
    for target in re.findall(r"\bmake ([a-z]+)\b", blocks):
        assert target in targets, f"{document.name} names `make {target}`"
    for name in re.findall(r"\bpython -m (tests[\w.]+)", blocks):
        assert (ROOT / f"{name.replace('.', '/')}.py").exists(), f"{document.name} names {name}"
    for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
        assert (document.parent / link).exists(), f"{document.name} links to {link}"


def test_flags_of_the_cluster_document_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """Every flag that docs/cluster.md gives to a verb of its own is in that verb's help."""
    from bingo.cli import VERBS, main

    blocks = "\n".join(re.findall(r"```(.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.S))
    helps: dict[str, str] = {}
    found = 0
    for verb, rest in re.findall(r"\bbingo ([a-z-]+)([^#\n]*)", blocks):
        if VERBS[verb].group not in ("cluster", "look"):
            continue
        if verb not in helps:
            with pytest.raises(SystemExit):
                main([verb, "--help"])
            helps[verb] = capsys.readouterr().out
        for flag in re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest.partition(" -- ")[0]):
            assert re.search(rf"(?<![\w-]){flag}\b", helps[verb]), f"`bingo {verb}` has no {flag}"
            found += 1
    assert found > 15


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "sites").glob("*.toml")), ids=lambda p: p.name)
def test_site_files_of_the_documents_are_read(path: Path) -> None:
    from bingo.launch.cluster.site import read_site

    cluster = read_site(path)
    assert cluster.jobs.partition == "gpu"
    assert (cluster.cpu.partition, cluster.cpu.gpus_per_node) == ("cpu", 0)
    assert (cluster.jobs.container is not None) == (path.stem == "pyxis")


def test_kernels_readme_runs() -> None:
    """Its Python, as written, in a fresh interpreter."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "kernels" / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        subprocess.run([sys.executable, "-c", block], check=True, cwd=ROOT)
