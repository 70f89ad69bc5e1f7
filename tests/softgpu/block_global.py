"""Accesses to global memory that nothing orders: between blocks, and between the threads of one.

Blocks of a grid run at once on a device and one after another here, in any order. So no block may touch what another
writes, or write what another reads, unless atomic operations of device scope order the two: a release hands on all that
its thread knows (`clocks.py`), an acquire of the same word learns it, and other threads of the acquiring block learn it
through a barrier. Atomic operations never race with each other; a plain store ends what a word hands on.

Who has read a word is not kept one by one if it is several threads: such a word may be written by a thread that is
ordered after all reads of that tensor so far by that block, or by any if several blocks have read it. That is stricter
than a device.
"""

import numpy as np

from tests.softgpu.clocks import LANES
from tests.softgpu.memory import Allocation, Marks
from tests.softgpu.numbers import i4, i8
from tests.softgpu.state import BlockState

TIME_BITS, THREAD_BITS = 29, 11
SEVERAL = (1 << THREAD_BITS) - 1  # the thread of an event of several threads
MANY = -1  # several threads have read a word, or several blocks have changed it by atomics that order nothing


def pack(block: int, thread: np.ndarray, time: np.ndarray) -> np.ndarray:
    """An event in one number, never 0."""
    return (i8(block + 1) << THREAD_BITS | thread.astype(i8)) << TIME_BITS | time


def unpack(event: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Block, thread and time of events."""
    actor = event >> TIME_BITS
    return (actor >> THREAD_BITS) - 1, actor & (1 << THREAD_BITS) - 1, event & (1 << TIME_BITS) - 1


class GlobalOrder(BlockState):
    """Mixed into `block.Block`."""

    def read_global(self, at: int, found: Allocation, thread: np.ndarray, offset: np.ndarray, extent: int) -> None:
        """Threads of the block read `extent` bytes each, `offset` bytes into an allocation."""
        if not self.races or not len(thread):
            return
        words, threads, _ = self._words(thread, offset, extent, None)
        marks = self._marks(found)
        self._check_writes(at, "read", found, words, threads)
        several = pack(self.number, np.array(SEVERAL), np.array(0))
        before = marks.reads.take(words)
        block, reader, _ = unpack(before)
        alone = (before == 0) | (reader == threads)
        now = np.where(alone, pack(self.number, threads, self.clocks.time[threads]), several)
        now[(before != 0) & (block != self.number)] = MANY
        marks.reads[words] = now
        marks.reads[words[marks.reads.take(words) != now]] = several
        last = marks.last_reads.setdefault(self.number, np.zeros(self.threads, i4))
        last[thread] = self.clocks.time[thread]

    def write_global(self, at: int, found: Allocation, thread: np.ndarray, offset: np.ndarray, extent: int,
                     idle: np.ndarray) -> None:  # fmt: skip
        """Threads store, as `read_global`. idle: stores that change nothing; they may meet others of their block."""
        if not self.races or not len(thread):
            return
        words, threads, idle = self._words(thread, offset, extent, idle)
        self._marks(found)
        self._check_writes(at, "write", found, words, threads, idle)
        self._check_reads(at, found, words, threads)
        self._record(at, found, words, pack(self.number, threads, self.clocks.time[threads]), atomic=False)
        if self.memory.released:
            for word in words.tolist():
                self.memory.released.pop((found.base, word), None)

    def atomic_global(self, at: int, found: Allocation, thread: np.ndarray, offset: np.ndarray, extent: int, order: str,
                      scope: str) -> None:  # fmt: skip
        """Threads do an atomic operation of this order (relaxed, acquire, release, acq_rel) and scope."""
        if not self.races or not len(thread):
            return
        words, threads, _ = self._words(thread, offset, extent, None)
        marks = self._marks(found)
        self._check_writes(at, "atomic", found, words, threads)
        self._check_reads(at, found, words, threads)
        now = pack(self.number, threads, self.clocks.time[threads])
        if order != "relaxed" and scope != "cta":
            for who, word in zip(thread.tolist(), (offset // self.memory.word).tolist(), strict=True):
                self._synchronise((found.base, word), who, order)
            self.clocks.tick(np.unique(thread // LANES))
        events = marks.writes.take(words)
        block, other, time = unpack(events)
        for i in np.flatnonzero((events != 0) & (block != self.number)):
            if not self._learnt(threads[i], int(block[i]), int(other[i]), time[i]):
                now[i] = MANY
        self._record(at, found, words, now, atomic=True)

    def _synchronise(self, key: tuple[int, int], thread: int, order: str) -> None:
        """What an atomic operation on a word learns and hands on."""
        handed = self.memory.released.get(key, {})
        if order in ("acquire", "acq_rel") and handed:
            self.acquired.append((thread, int(self.clocks.time[thread]), handed))
        if order in ("release", "acq_rel"):
            known = self.clocks.known[thread]
            parts = [handed, *(learnt for who, time, learnt in self.acquired if known[who] >= time)]
            self.memory.released[key] = _joined([*parts, {self.number: known[: self.threads].copy()}])

    def _record(self, at: int, found: Allocation, words: np.ndarray, events: np.ndarray, atomic: bool) -> None:
        marks = found.marks
        marks.writes[words], marks.at[words], marks.atomic[words] = events, at, atomic
        marks.reads[words], marks.written = 0, True

    def _marks(self, found: Allocation) -> Marks:
        if found.marks is None:
            found.marks = Marks(-(-found.size // self.memory.word))
        return found.marks

    def _words(self, thread: np.ndarray, offset: np.ndarray, extent: int, idle: np.ndarray | None) -> tuple:
        first, n = offset // self.memory.word, extent // self.memory.word
        if n == 1:
            return first, thread, idle
        words = (first[:, None] + np.arange(n)).reshape(-1)
        return words, np.repeat(thread, n), idle if idle is None else np.repeat(idle, n)

    def _check_writes(self, at: int, what: str, found: Allocation, words: np.ndarray, threads: np.ndarray,
                      idle: np.ndarray | None = None) -> None:  # fmt: skip
        marks = found.marks
        if not marks.written:
            return
        events = marks.writes.take(words)
        if what == "atomic":
            events[marks.atomic.take(words)] = 0
        bad = self._unordered(events, threads, idle)
        if bad is not None:
            block, thread, _ = unpack(events[bad])
            self.fault(
                at,
                f"race: {what} by {self._who(self.number, threads[bad])} of {self._word(found, words[bad])} that "
                f"{self._who(block, thread)} writes at {self.place(int(marks.at[words[bad]]))}: unordered",
            )

    def _check_reads(self, at: int, found: Allocation, words: np.ndarray, threads: np.ndarray) -> None:
        events = found.marks.reads.take(words)
        block, reader, _ = unpack(events)
        many = reader == SEVERAL
        for thread, of in {(int(t), int(b)) for t, b in zip(threads[many], block[many], strict=True)}:
            readers = found.marks.last_reads.items() if of < 0 else [(of, found.marks.last_reads[of])]
            if not all(self._knows_all(thread, *entry) for entry in readers):
                who, word = self._who(self.number, thread), words[many & (threads == thread) & (block == of)][0]
                self.fault(at, f"race: write by {who} of {self._word(found, word)} that several read: unordered")
        events[many] = 0
        bad = self._unordered(events, threads, None)
        if bad is not None:
            block, thread, _ = unpack(events[bad])
            self.fault(
                at,
                f"race: write by {self._who(self.number, threads[bad])} of {self._word(found, words[bad])} that "
                f"{self._who(block, thread)} reads: unordered",
            )

    def _unordered(self, events: np.ndarray, threads: np.ndarray, idle: np.ndarray | None) -> int | None:
        """The first of the events that its thread now is not ordered after. idle: may miss events of this block."""
        if not events.any():
            return None
        block, thread, time = unpack(events)
        mine = block == self.number
        late = mine & (self.clocks.known[threads, np.where(mine, thread, 0)] < time)
        if idle is not None:
            late &= ~idle
        for i in np.flatnonzero(late | (events != 0) & ~mine):
            if late[i] or not self._learnt(threads[i], int(block[i]), thread[i], time[i]):
                return int(i)
        return None

    def _learnt(self, thread: int, block: int, other: int | slice, time: np.ndarray) -> bool:
        """Whether an acquire that the thread knows of has handed on what `other` threads of a block did at `time`."""
        known = self.clocks.known[thread]
        return any(
            known[who] >= since and block in learnt and np.all(learnt[block][other] >= time)
            for who, since, learnt in self.acquired
        )

    def _knows_all(self, thread: int, block: int, last: np.ndarray) -> bool:
        if block == self.number:
            return bool((self.clocks.known[thread, : self.threads] >= last).all())
        return self._learnt(thread, block, slice(None), last)

    def _who(self, block: int, thread: int) -> str:
        if block < 0:
            return "atomics of several blocks"
        who = self.clocks.name(int(thread))
        return who if block == self.number else f"{who} of block {self.memory.order[int(block)]}"

    def _word(self, found: Allocation, word: int) -> str:
        return f"{found.name} + {int(word) * self.memory.word}"


def _joined(parts: list[dict[int, np.ndarray]]) -> dict[int, np.ndarray]:
    """For each block the newest times of its threads in any of the parts."""
    result: dict[int, np.ndarray] = {}
    for part in parts:
        for block, times in part.items():
            before = result.get(block, times)
            result[block] = times if before is times else np.maximum(before, times)
    return result
