"""The documents: every command, flag, link and path in them is real, and their sentences are short."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ranks import ROOT

MOST_WORDS = 35
README_LINES = 150
TREES = "bingo|kernels|launch|bench|tests|docs"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "kernels" / "README.md",
    ROOT / "tests" / "softgpu" / "README.md",
    *(ROOT / "docs").glob("*.md"),
]

by_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: f"{p.parent.name}/{p.name}")


def paragraphs(text: str) -> Iterator[str]:
    """Running text on one line each: no code blocks, tables, headings and pictures; a list item is a paragraph."""
    text = re.sub(r"```.*?```|<!--.*?-->|!\[[^\]]*\]\([^)]*\)", "\n\n", text, flags=re.S)
    text = re.sub(r"(?<=\n\n)(?:    .*\n)+", "\n", re.sub(r"^[|#].*$", "", text, flags=re.M))
    for part in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", text):
        yield re.sub(r"^\s*(?:[-*]|\d+\.) ", "", " ".join(part.split()))


def sentences(text: str) -> Iterator[str]:
    """Sentences of the running text; a piece of code is one word of them."""
    for paragraph in paragraphs(text):
        plain = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "code", paragraph))
        yield from re.split(r"(?<=[.!?])[\")\]]*\s+", plain)


def words(sentence: str) -> int:
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


@by_document
def test_sentences_are_short(document: Path) -> None:
    long = [s for s in sentences(document.read_text()) if words(s) > MOST_WORDS]
    assert not long, f"split these sentences of more than {MOST_WORDS} words: {long}"


def test_long_sentences_are_found() -> None:
    text = "# A title\n\n1. One two\n    three. Four `a b c` five [six\n   seven](x.md).\n- Eight\n"
    text += "\n    a = b\n\n| a. |\n"
    assert [words(s) for s in sentences(text) if s] == [3, 5, 1]


def test_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


@by_document
def test_paths_in_documents_exist(document: Path) -> None:
    """Every `folder/file` in backticks is there; CAPITALS stand for a name, * for any."""
    blocks = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", document.read_text(), flags=re.S))
    for path in (p for block in blocks for p in re.findall(rf"^(?:{TREES})/[\w./*-]+$", block)):
        assert re.search(r"[A-Z]{2}", path.replace("README", "")) or list(ROOT.glob(path)), f"there is no {path}"


@by_document
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
    for link in re.findall(r"\]\(([^)#:]+)\)", re.sub(r"```.*?```", "", document.read_text(), flags=re.S)):
        assert (document.parent / link).exists(), f"{document.name} links to {link}"


def test_flags_of_the_documents_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """Every flag that a document gives to a verb is in that verb's help."""
    from bingo.cli import main

    helps: dict[str, str] = {}
    found = set()
    for document in DOCUMENTS:
        blocks = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", document.read_text(), re.S)).replace("\\\n", " ")
        for words, rest in re.findall(r"\bbingo (bench [a-z]+|[a-z-]+)([^#\n`]*)", blocks):
            if words not in helps:
                with contextlib.suppress(SystemExit):
                    main([*words.split(), "--help"])
                helps[words] = capsys.readouterr().out
            for flag in re.findall(r"(?<!\S)--?[a-z][a-z.-]*", rest.partition(" -- ")[0]):
                assert re.search(rf"(?<![\w-]){flag}\b", helps[words]), f"{document.name}: no {flag} of {words}"
                found.add((words, flag))
    assert len(found) > 60


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


def test_example_of_the_executor_runs(tmp_path: Path) -> None:
    """As a file: Triton reads the source of its functions again."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "without-a-gpu.md").read_text(), re.S)
    (tmp_path / "file.py").write_text(block)
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "file.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:3] for line in lines[:3]] == [[arch, "add_up", "5"] for arch in ("80", "90", "100")]
    assert "file.py:18" in lines[3], "the fault names the line"
