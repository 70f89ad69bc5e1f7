"""The kinds of faults as data: each can be drawn, carried out inside and outside, and come to an end."""

import re
from pathlib import Path

import pytest

from tests.cluster.fault_campaign import grouped
from tests.cluster.faults import CHECKPOINT_EVERY, KINDS, STEPS, draw
from tests.cluster.outside import EXPORTED, SCRIPTS

pytestmark = pytest.mark.quick
ROOT = Path(__file__).parents[2]
INJECTOR = Path(__file__).parent / "injector" / "sitecustomize.py"


@pytest.mark.parametrize("name", KINDS)
def test_draws_lie_within_the_run(name: str) -> None:
    kind, drawn = KINDS[name], [draw(name, seed, Path("marks")) for seed in range(60)]
    assert all(kind.earliest <= fault.step < STEPS - 2 * CHECKPOINT_EVERY for fault in drawn)
    assert {fault.rank for fault in drawn} == ({kind.rank} if kind.rank is not None else set(range(kind.nodes)))
    assert {fault.variant for fault in drawn} == set(kind.variants)
    assert len({fault.step for fault in drawn}) > 10
    assert draw(name, 7, Path("marks")) == drawn[7]
    if kind.again:
        assert all(CHECKPOINT_EVERY + 1 < fault.again < fault.step for fault in drawn if fault.again is not None)
        assert all(fault.again is not None for fault in drawn)


def test_what_a_kind_names_is_there() -> None:
    named = {
        action for kind in KINDS.values() for action in ([kind.action] if isinstance(kind.action, str) else kind.action)
    }
    inside = INJECTOR.read_text()
    assert not {action for action in named if action and f'"{action}"' not in inside}
    assert {kind.outside for kind in KINDS.values()} - {""} == set(SCRIPTS)
    assert set(EXPORTED) == set(KINDS["environment"].variants)
    for kind in KINDS.values():
        assert bool(kind.stop) == ("stopped" in kind.ends)
        assert not kind.mended or kind.ends == ("stopped",)


def test_trials_share_a_cluster_only_with_those_that_want_the_same() -> None:
    groups = grouped([(name, seed) for seed in range(2) for name in KINDS])
    assert sum(len(trials) for trials in groups.values()) == 2 * len(KINDS)
    assert {name for name, _ in groups[2, False, False]} == {"preempt-term"}
    assert {name for name, _ in groups[2, True, True]} == {"controller-crash", "controller-usr2"}
    assert {name for name, _ in groups[4, True, False]} == {"four-sigkill", "four-hang"}


def test_the_documents_table_names_the_trial_of_each_row() -> None:
    """Each row of "What survives what" ends with kinds of this matrix, test files or "once"; no kind is left out."""
    text = (ROOT / "docs" / "cluster.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and line.count(" | ") == 3]
    assert [row[0] for row in rows[1:] if not re.search(r"`|once", row[3])] == []
    assert {name for row in rows[1:] for name in re.findall(r"`([^`]+)`", row[3]) if not (ROOT / name).is_file()} == {
        *KINDS
    }
