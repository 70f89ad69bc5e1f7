"""The fault matrix: every kind of fault comes to its right end, almost all to the weights of an uninterrupted run.

One trial of each kind that is drawn, at a random step (the seed is in the message of a failure; $BINGO_FAULT_SEED
repeats it). Eight kinds for each commit, all with --whole or by `python -m tests.cluster.fault_campaign`: many trials.
"""

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.fault_campaign import campaign
from tests.cluster.faults import KINDS

# The first test waits for all trials: two run at a time, and most of their time is Slurm's.
pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(6000)]
MARGIN_S = 10.0
"""Beyond the bound, on an idle machine: the test looks a few times a second. On a busy one both count several times."""


@pytest.fixture(scope="module")
def lines(
    request: pytest.FixtureRequest, slurm_installed: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Results of the trials that are selected, by kind."""
    base = tmp_path_factory.mktemp("faults")
    chosen = [item.callspec.params["kind"] for item in request.session.items if item.path == Path(__file__)]  # type: ignore[attr-defined]
    seed = int(os.environ.get("BINGO_FAULT_SEED", random.SystemRandom().randrange(1_000_000)))
    report = base / "report.jsonl"
    campaign(base, [(kind, seed) for kind in chosen], 2, report)
    return {line["kind"]: line for line in map(json.loads, report.read_text().splitlines())}


@pytest.mark.sampled(8)
@pytest.mark.parametrize("kind", KINDS)
def test_the_right_end(lines: dict[str, dict[str, Any]], kind: str) -> None:
    line = lines[kind]
    assert line["ok"], line
    if line.get("freed_after") is not None and line["bound_s"] is not None:
        assert line["freed_after"] <= (line["bound_s"] + MARGIN_S) * line["slowness"], line
