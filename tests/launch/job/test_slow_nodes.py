"""Which nodes count as slow: tables of figures, and who is left out for them."""

import pytest

from bingo.launch.job.slow_nodes import decide, most_excluded, tournament

pytestmark = pytest.mark.quick
GOOD = {"matmul": 10.0, "memory": 20.0, "write": 1.0, "read": 2.0}


def rows(**matmul: float) -> dict[str, dict[str, float]]:
    return {node: {**GOOD, "matmul": rate} for node, rate in matmul.items()}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8])
def test_everybody_meets_everybody_once(count: int) -> None:
    players = [f"n{i}" for i in range(count)]
    rounds = tournament(players)
    met = [frozenset(pair) for pairs in rounds for pair in pairs]
    assert len(met) == len(set(met)) == count * (count - 1) // 2
    for pairs in rounds:
        seated = [node for pair in pairs for node in pair]
        assert len(seated) == len(set(seated)), "one at a time"


@pytest.mark.parametrize(
    ("figures", "min_nodes", "idle", "slow", "exclude"),
    [
        (rows(a=10, b=9), 1, 0, [], ()),
        (rows(a=10, b=6.9), 1, 0, ["b"], ("b",)),
        (rows(a=10, b=6.9), 2, 0, ["b"], ()),  # needs both, no other node is free
        (rows(a=10, b=6.9), 2, 1, ["b"], ("b",)),  # a spare takes its place
        (rows(a=10), 1, 5, [], ()),  # nobody to compare with
        (rows(a=10, b=10, c=1), 1, 0, ["c"], ("c",)),
        (rows(a=10, b=10, c=10, d=3, e=2, f=10), 1, 0, ["e", "d"], ("e", "d")),
        (rows(a=10, b=10, c=10, d=10, e=2, f=3, g=1), 1, 0, ["g", "e", "f"], ("g", "e")),  # a third of seven
        (rows(a=10, b=10, c=10, d=3, e=2, f=10), 5, 0, ["e", "d"], ("e",)),  # five must remain
        ({"a": GOOD, "b": {**GOOD, "write": 0.4}}, 1, 0, [], ()),  # shared storage swings
        ({"a": GOOD, "b": {**GOOD, "write": 0.3}}, 1, 0, ["b"], ("b",)),
        ({"a": {**GOOD, "write": 0.0}, "b": {**GOOD, "write": 0.0}}, 1, 0, [], ()),  # a full disk is nobody's fault
        ({"a": {**GOOD, "read": 0.1}, "b": {**GOOD, "matmul": 1.0}}, 1, 0, ["a", "b"], ("a",)),  # never both of two
    ],
)
def test_decision(
    figures: dict[str, dict[str, float]], min_nodes: int, idle: int, slow: list[str], exclude: tuple[str, ...]
) -> None:
    decision = decide(figures, {}, min_nodes=min_nodes, idle=idle)
    assert (list(decision.slow), decision.exclude) == (slow, exclude)
    assert decision.why.startswith(("starts again without", "goes on", "no node is below"))


def test_the_node_common_to_slow_pairs_is_to_blame() -> None:
    pairs = {("a", "b"): 1.0, ("a", "c"): 0.2, ("b", "c"): 0.2}
    decision = decide(rows(a=10, b=10, c=10), pairs)
    assert decision.exclude == ("c",)
    assert decision.slow["c"] == ["all-reduce 0.2 GB/s, 20% of the others' median"]


def test_a_slow_link_alone_blames_nobody() -> None:
    assert decide(rows(a=10, b=10, c=10), {("a", "b"): 1.0, ("a", "c"): 0.2, ("b", "c"): 1.0}).slow == {}
    assert decide(rows(a=10, b=10), {("a", "b"): 0.0}).slow == {}


def test_a_silent_node_is_the_worst() -> None:
    decision = decide(rows(a=10, b=10, c=10, d=2), {}, silent=("e",))
    assert list(decision.slow) == ["e", "d"]
    assert decision.exclude == ("e",)


def test_a_faulty_node_is_worse_than_a_slow_one() -> None:
    phrases = ["GPU 18: XID 79 (it has fallen off the bus)"]
    decision = decide(rows(a=10, b=10, c=1, d=10), {}, faults={"d": phrases, "b": []})
    assert (list(decision.slow), decision.exclude) == (["d", "c"], ("d",))
    assert decision.slow["d"] == phrases
    assert decide(rows(a=10, b=10), {}, faults={"a": phrases, "b": phrases}).exclude == ("a",), "never both of two"
    alone = decide(rows(a=10), {}, faults={"a": phrases}, idle=3)
    assert (list(alone.slow), alone.exclude) == (["a"], ())
    both = decide(rows(a=10, b=10, c=1), {}, faults={"c": phrases})
    assert both.slow == {"c": [*phrases, "matmul 1 TFLOP/s, 10% of the others' median"]}


def test_a_node_that_the_job_was_told_to_have_stays() -> None:
    decision = decide(rows(a=10, b=10, c=1, d=10, e=2, f=10), {}, kept=("c", "a"))
    assert (list(decision.slow), decision.exclude) == (["c", "e"], ("e",))
    decision = decide(rows(a=10, b=1), {}, kept=("b",))
    assert (decision.exclude, decision.why) == ((), "goes on: the job was told to have b (--nodelist)")


def test_earlier_attempts_count() -> None:
    assert decide(rows(a=10, b=10, c=10, d=10, e=1), {}, earlier=("x",)).exclude == ("e",)
    assert decide(rows(a=10, b=10, c=1), {}, earlier=("x",)).exclude == ()
    assert decide(rows(a=10), {}, earlier=("b",)).exclude == ()


def test_never_all_nodes() -> None:
    assert [most_excluded(n) for n in range(8)] == [0, 0, 1, 1, 1, 1, 2, 2]
