"""Every committed result is of the one form and names its commit, and every document's link to one leads to it."""

import re
from pathlib import Path

import pytest

from bingo.bench.record import read_result
from tests.support.ranks import ROOT

RESULTS = sorted((ROOT / "bench" / "results").glob("*"))
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("kernels/*.md")]


def test_results_are_where_they_are_looked_for() -> None:
    assert len(RESULTS) >= 7
    assert {path.suffix for path in RESULTS} == {".json"}


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_committed_result_names_its_commit(path: Path) -> None:
    found = read_result(path)
    assert not found["partial"]
    commit = found["environment"].get("git") or ""
    said = " ".join(note for row in found["rows"] for note in row.get("notes", []))
    assert re.match(r"[0-9a-f]{7,40}(\+dirty)?$", commit) or "commit is not known" in said
    assert "+dirty" not in commit or "changes that were not committed" in said
    assert found["environment"]["cpu"]
    assert found["rows"]


def test_links_to_results_lead_to_one() -> None:
    links = {
        (document.name, link)
        for document in DOCUMENTS
        for link in re.findall(r"[\w./-]*bench/results/[\w.-]+\.json", document.read_text())
    }
    assert len(links) >= 10
    known = {path.name for path in RESULTS}
    assert {(document, link) for document, link in links if Path(link).name not in known} == set()
