"""Vector clocks against their definition: a graph of events, and who comes before whom by its transitive closure."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.softgpu.block_races import Races
from tests.softgpu.clocks import LANES, Clocks
from tests.softgpu.state import Fault

WARPS, GRANULES, BARRIERS = 2, 3, 2
THREADS = LANES * WARPS
GROUPS = ([0], [1], [32], [33], [0, 1], [0, 32], list(range(32)), list(range(32, 64)), list(range(64)))


@dataclass
class Graph:
    """Events and what comes before each: program order, and the edges of whoever meets. before: node -> bits of nodes.

    An access of a whole warp is one event per lane; it is ordered before another if all of its events are.
    """

    before: list[int] = field(default_factory=list)
    last: dict[int, int] = field(default_factory=dict)  # thread -> its newest node
    fences: list[int] = field(default_factory=list)

    def node(self, *earlier: int) -> int:
        bits = 1 << len(self.before)
        for other in earlier:
            bits |= self.before[other]
        self.before.append(bits)
        return len(self.before) - 1

    def event(self, threads: Any) -> list[int]:
        nodes = []
        for t in threads:
            self.last[t] = self.node(*([self.last[t]] if t in self.last else []))
            nodes.append(self.last[t])
        return nodes

    def meet(self, threads: Any, *earlier: int) -> int:
        """All of the threads learn what each of them and the earlier nodes know."""
        node = self.node(*earlier, *(self.last[t] for t in threads if t in self.last))
        self.last |= dict.fromkeys(threads, node)
        return node

    def ordered(self, first: list[int], then: list[int]) -> bool:
        return all(self.before[b] >> a & 1 for a in first for b in then)

    def flushed(self, first: list[int], then: list[int]) -> bool:
        return all(any(self.ordered([a], [f]) and self.ordered([f], [b]) for f in self.fences)
                   for a in first for b in then)  # fmt: skip


class Bench(Races):
    """The real reads and writes, without a kernel around them."""

    def __init__(self) -> None:
        self.races, self.mbarriers, self.clocks = True, {}, Clocks(WARPS, GRANULES)
        self.known = {slot: self.nothing() for slot in range(BARRIERS)}

    def nothing(self) -> list[np.ndarray]:
        return [np.zeros(self.clocks.actors, np.int32) for _ in range(2)]

    def fault(self, at: int, text: str) -> None:
        raise Fault(text)

    def place(self, at: int) -> str:
        return f"instruction {at}"

    def at(self, who: int) -> dict[str, Any]:
        """who: a thread, or 64 + w for warp w as a whole."""
        if who >= THREADS:
            return {"warp": np.array([who - THREADS]), "lane": None}
        return {"warp": np.array([who // LANES]), "lane": np.array([who % LANES])}


class History:
    """A history on both: each step says whether it is a race by the graph, and whether the clocks call it one."""

    def __init__(self) -> None:
        self.graph, self.bench = Graph(), Bench()
        self.writes: dict[int, tuple[list[int], bool]] = {}  # granule -> events, whether through the async proxy
        self.reads: dict[int, list[tuple[int, list[int]]]] = {g: [] for g in range(GRANULES)}
        self.slots: dict[int, list[int]] = {slot: [] for slot in range(BARRIERS)}
        self.flying: dict[int, list[int]] = {slot: [] for slot in range(BARRIERS)}
        self.copies: dict[int, list[list[int]]] = {t: [] for t in range(THREADS)}  # thread -> groups of nodes
        self.open: dict[int, list[int]] = {t: [] for t in range(THREADS)}
        self.phase = dict.fromkeys(range(BARRIERS), 0)

    def lanes(self, who: int) -> list[int]:
        return [who] if who < THREADS else list(range(LANES * (who - THREADS), LANES * (who - THREADS + 1)))

    def access(self, what: str, who: int, g: int, asynchronous: bool = False) -> tuple[bool, list[int], bool]:
        """Race by the graph; the events; whether several lanes of a warp have read the granule, which clocks join."""
        now = self.graph.event(self.lanes(who))
        race = False
        if g in self.writes:
            events, was_asynchronous = self.writes[g]
            race = not self.graph.ordered(events, now)
            race |= asynchronous and not was_asynchronous and not self.graph.flushed(events, now)
        several = False
        if what == "write":
            race |= any(not self.graph.ordered(events, now) for _, events in self.reads[g])
            warps = [w // LANES if w < THREADS else w - THREADS for w in {w for w, _ in self.reads[g]}]
            several = len(set(warps)) < len(warps)
        return race, now, several

    def step(self, kind: str, *a: Any) -> tuple[bool, bool, bool]:
        """(race by the graph, race by the clocks, whether the clocks may be stricter)."""
        return getattr(self, kind)(*a) or (False, False, False)

    def clocks(self, call: Any, *a: Any, **options: Any) -> bool:
        try:
            call(0, *a, **options)
        except Fault:
            return True
        return False

    def read(self, who: int, g: int) -> tuple[bool, bool, bool]:
        race, events, _ = self.access("read", who, g)
        self.reads[g].append((who, events))
        return race, self.clocks(self.bench.read, offset=np.array([4 * g]), extent=4, **self.bench.at(who)), False

    def write(self, who: int, g: int) -> tuple[bool, bool, bool]:
        race, events, several = self.access("write", who, g)
        self.writes[g] = events, False
        return race, self.clocks(self.bench.write, offset=np.array([4 * g]), extent=4, **self.bench.at(who)), several

    def join(self, threads: list[int]) -> None:
        self.graph.meet(threads)
        self.bench.clocks.join(np.array(threads))

    def release(self, threads: list[int], slot: int) -> None:
        self.slots[slot] += self.graph.event(threads)
        message = self.bench.clocks.release(np.array(threads))
        self.bench.known[slot] = [np.maximum(*pair) for pair in zip(self.bench.known[slot], message, strict=True)]

    def acquire(self, threads: list[int], slot: int) -> None:
        for t in threads:
            self.graph.meet([t], *self.slots[slot])
        self.bench.clocks.acquire(np.array(threads), *self.bench.known[slot])

    def fence(self, threads: list[int]) -> None:
        self.graph.fences += self.graph.event(threads)
        self.graph.event(threads)
        self.bench.clocks.fence(np.array(threads))

    def copy(self, thread: int, g: int) -> tuple[bool, bool, bool]:
        """cp.async into the open group of the thread."""
        race, issue, several = self.access("write", thread, g)
        node = self.graph.node(*issue)
        self.open[thread].append(node)
        self.writes[g] = [node], False
        actor, time = self.bench.clocks.copies(np.array([thread])), np.array([len(self.copies[thread]) + 1])
        noticed = self.clocks(self.bench.write, offset=np.array([4 * g]), extent=4, actor=actor, time=time,
                              **self.bench.at(thread))  # fmt: skip
        return race, noticed, several

    def commit(self, thread: int) -> None:
        self.copies[thread].append(self.open[thread])
        self.open[thread] = []

    def wait(self, thread: int, allowed: int) -> None:
        done = max(0, len(self.copies[thread]) - allowed)
        self.graph.meet([thread], *(node for group in self.copies[thread][:done] for node in group))
        self.bench.clocks.finish_copies(np.array([thread]), done)

    def bulk(self, thread: int, g: int, slot: int) -> tuple[bool, bool, bool]:
        """A copy by TMA, which `land` ends."""
        race, issue, several = self.access("write", thread, g, asynchronous=True)
        node = self.graph.node(*issue)
        self.flying[slot].append(node)
        self.writes[g] = [node], True
        actor, time = np.array([self.bench.clocks.barrier(slot)]), np.array([self.phase[slot] + 1])
        noticed = self.clocks(self.bench.write, offset=np.array([4 * g]), extent=4, actor=actor, time=time,
                              asynchronous=True, **self.bench.at(thread))  # fmt: skip
        return race, noticed, several

    def land(self, slot: int) -> None:
        """All copies of a barrier arrive."""
        self.slots[slot] += self.flying[slot]
        self.flying[slot] = []
        self.phase[slot] += 1
        self.bench.known[slot][0][self.bench.clocks.barrier(slot)] = self.phase[slot]


granule, slot = st.integers(0, GRANULES - 1), st.integers(0, BARRIERS - 1)
thread = st.sampled_from([0, 1, 32])
who = st.sampled_from([0, 1, 32, 33, THREADS, THREADS + 1])
group = st.sampled_from(GROUPS)
STEPS = {
    "read": (who, granule), "write": (who, granule), "join": (group,), "release": (group, slot),
    "acquire": (group, slot), "fence": (group,), "copy": (thread, granule), "commit": (thread,),
    "wait": (thread, st.integers(0, 1)), "bulk": (thread, granule, slot), "land": (slot,),
}  # fmt: skip
histories = st.lists(st.one_of([st.tuples(st.just(kind), *parts) for kind, parts in STEPS.items()]), max_size=24)


@settings(max_examples=250, deadline=None)
@given(histories)
def test_random_histories(steps: list[tuple]) -> None:
    """Up to the first race: the clocks miss none, and call nothing else one but where they are stricter on purpose."""
    history = History()
    for step in steps:
        race, noticed, stricter = history.step(*step)
        assert noticed or not race, step
        assert race or not noticed or stricter, step
        if race or noticed:
            return


ALL, WARP = list(range(64)), list(range(32))
EITHER = {  # name -> (steps before, the step that is judged with them, whether it is a race)
    "own": ([("write", 0, 0)], ("read", 0, 0), False),
    "lanes": ([("write", 0, 0)], ("read", 1, 0), True),
    "lanes that met": ([("write", 0, 0), ("join", WARP)], ("read", 1, 0), False),
    "others met": ([("write", 0, 0), ("join", [1, 2])], ("read", 1, 0), True),
    "written after they met": ([("join", WARP), ("write", 0, 0)], ("read", 1, 0), True),
    "warps": ([("write", 0, 0), ("join", ALL)], ("read", 33, 0), False),
    "read, then written": ([("read", 0, 0)], ("write", 33, 0), True),
    "read, met, then written": ([("read", 0, 0), ("join", ALL)], ("write", 33, 0), False),
    "two writes": ([("write", 0, 0)], ("write", 1, 0), True),
    "whole warp reads its lane": ([("write", 0, 0)], ("read", 64, 0), True),
    "whole warp after it met": ([("write", 0, 0), ("join", WARP)], ("read", 64, 0), False),
    "lane reads its whole warp": ([("write", 64, 0)], ("read", 0, 0), True),
    "handed over": ([("write", 0, 0), ("release", [0], 0), ("acquire", [33], 0)], ("read", 33, 0), False),
    "handed to a whole warp": ([("write", 0, 0), ("release", [0], 0), ("acquire", list(range(32, 64)), 0)],
                               ("read", 65, 0), False),
    "handed to a part of it": ([("write", 0, 0), ("release", [0], 0), ("acquire", [32, 33], 0)], ("read", 65, 0), True),
    "handed on by a whole warp": ([("write", 64, 0), ("release", WARP, 0), ("acquire", [33], 0)], ("read", 33, 0),
                                  False),
    "met one lane of it": ([("write", 64, 0), ("join", [1, 33])], ("read", 33, 0), True),
    "handed on by a part of it": ([("write", 64, 0), ("release", [0, 1], 0), ("acquire", [33], 0)], ("read", 33, 0),
                                  True),
    "another lane arrives": ([("write", 1, 0), ("release", [0], 0), ("acquire", [33], 0)], ("read", 33, 0), True),
    "read by another lane": ([("read", 1, 0), ("release", [0], 0), ("acquire", [33], 0)], ("write", 33, 0), True),
    "it met first": ([("read", 1, 0), ("join", WARP), ("release", [0], 0), ("acquire", [33], 0)], ("write", 33, 0),
                     False),
    "written after the arrival": ([("release", [0], 0), ("write", 0, 0), ("acquire", [33], 0)], ("read", 33, 0), True),
    "another barrier": ([("write", 0, 0), ("release", [0], 1), ("acquire", [33], 0)], ("read", 33, 0), True),
    "no proxy fence": ([("write", 0, 0)], ("bulk", 0, 0, 0), True),
    "proxy fence": ([("write", 0, 0), ("fence", [0])], ("bulk", 0, 0, 0), False),
    "fence too early": ([("fence", [0]), ("write", 0, 0)], ("bulk", 0, 0, 0), True),
    "fence of the writer": ([("write", 0, 0), ("fence", [0]), ("join", ALL)], ("bulk", 33, 0, 0), False),
    "fence of another": ([("write", 0, 0), ("fence", [33]), ("join", ALL)], ("bulk", 33, 0, 0), True),
    "fence after they met": ([("write", 0, 0), ("join", ALL), ("fence", [33])], ("bulk", 33, 0, 0), False),
    "met one lane of it, then its own": ([("write", 64, 0), ("join", [1, 33]), ("join", list(range(32, 64)))],
                                         ("read", 33, 0), True),
    "a warp met one lane": ([("write", 33, 0), ("join", [*WARP, 33])], ("read", 64, 0), False),
    "no proxy fence after a whole warp": ([("write", 64, 0), ("join", WARP)], ("bulk", 0, 0, 0), True),
    "proxy fence after a whole warp": ([("write", 64, 0), ("join", WARP), ("fence", [0])], ("bulk", 0, 0, 0), False),
    "no proxy fence after cp.async": ([("copy", 0, 0), ("commit", 0), ("wait", 0, 0)], ("bulk", 0, 0, 0), True),
    "copy in flight": ([("bulk", 0, 0, 0)], ("read", 0, 0), True),
    "copy not waited for": ([("bulk", 0, 0, 0), ("land", 0)], ("read", 0, 0), True),
    "copy waited for": ([("bulk", 0, 0, 0), ("land", 0), ("acquire", [0], 0)], ("read", 0, 0), False),
    "copy waited for by another": ([("bulk", 0, 0, 0), ("land", 0), ("acquire", [1], 0)], ("read", 0, 0), True),
    "cp.async in flight": ([("copy", 0, 0), ("commit", 0), ("wait", 0, 1)], ("read", 0, 0), True),
    "cp.async waited for": ([("copy", 0, 0), ("commit", 0), ("wait", 0, 0)], ("read", 0, 0), False),
    "cp.async of another": ([("copy", 0, 0), ("commit", 0), ("wait", 0, 0)], ("read", 1, 0), True),
    "cp.async, then they met": ([("copy", 0, 0), ("commit", 0), ("wait", 0, 0), ("join", WARP)], ("read", 1, 0),
                                False),
    "cp.async not committed": ([("copy", 0, 0), ("wait", 0, 0)], ("read", 0, 0), True),
}  # fmt: skip


@pytest.mark.parametrize("name", EITHER)
def test_each_rule(name: str) -> None:
    before, step, expected = EITHER[name]
    history = History()
    for earlier in before:
        assert history.step(*earlier)[:2] == (False, False)
    assert history.step(*step)[:2] == (expected, expected)


def test_lanes_that_read_one_word_count_as_their_warp() -> None:
    """Stricter than the graph: lanes 0 and 1 have arrived, but the warp has not."""
    history = History()
    for step in (("read", 0, 0), ("read", 1, 0), ("release", [0, 1], 0), ("acquire", [32], 0)):
        history.step(*step)
    assert history.step("write", 32, 0) == (False, True, True)


@pytest.mark.parametrize(("actor", "words"), [
    (lambda c: 33, "warp 1 lane 1"), (lambda c: c.warp(1), "warp 1"), (lambda c: c.products(1), "wgmma of warp 1"),
    (lambda c: c.copies(33), "cp.async of warp 1 lane 1"), (lambda c: c.barrier(3), "TMA (mbarrier 3)"),
])  # fmt: skip
def test_actors_have_names(actor: Any, words: str) -> None:
    clocks = Clocks(WARPS, GRANULES)
    assert clocks.name(actor(clocks)) == words
