"""Threads of a team: branches, joining, parameters, barriers."""

from typing import Any

import numpy as np

from tests.softgpu.clocks import LANES
from tests.softgpu.numbers import u4, u8
from tests.softgpu.state import Fragment, TeamState

ALL_LANES = 0xFFFFFFFF


class Control(TeamState):
    """Mixed into `team.Team`."""

    def branch(self, fragment: Fragment, taken: np.ndarray, mask: np.ndarray | None, target: int, after: int) -> int:
        """Where the fragment goes on; threads that go elsewhere become a fragment of their own."""
        active = taken if mask is None else taken & mask
        if not active.any():
            return after
        rest = ~taken if mask is None else ~taken & mask
        if not rest.any():
            return target
        self.fragments.append(Fragment(target, active))
        fragment.mask = rest
        return after

    def branch_table(self, fragment: Fragment, index: np.ndarray, mask: np.ndarray | None, table: tuple) -> int:
        """As `branch`, with a place per thread: table[index]."""
        active = index if mask is None else index[mask]
        values = np.unique(active)
        if values[-1] >= len(table):
            self.block.fault(fragment.at, f"branch {values[-1]} of a table of {len(table)}")
        for value in values[1:]:
            where = index == value
            self.fragments.append(Fragment(table[value], where if mask is None else where & mask))
        if len(values) > 1:
            where = index == values[0]
            fragment.mask = where if mask is None else where & mask
        return table[values[0]]

    def join(self) -> None:
        """Fragments that have come to the same place go on together."""
        places: dict[tuple, Fragment] = {}
        for fragment in self.fragments:
            key = (fragment.at, fragment.arrived, fragment.generation if fragment.arrived else 0)
            other = places.setdefault(key, fragment)
            if other is not fragment:
                both = other.mask | fragment.mask
                other.mask = None if both.all() else both
                other.tried = -1
        self.fragments = sorted(places.values(), key=lambda f: f.at)

    def leave(self, fragment: Fragment) -> None:
        """The fragment's threads return."""
        self.alive[slice(None) if fragment.mask is None else fragment.mask] = False
        self.fragments.remove(fragment)

    def parameter(self, name: str, kind: Any) -> np.ndarray:
        """The low bytes of a parameter, as `kind`, in every thread."""
        value = self.block.parameters[name]
        size = np.dtype(kind).itemsize
        bits = value if isinstance(value, bytes) else int(value).to_bytes(8, "little", signed=int(value) < 0)
        return np.full(self.lanes, np.frombuffer(bits[:size].ljust(size, b"\0"), kind)[0])

    def parameter_address(self, name: str) -> np.ndarray:
        """The address of a parameter that is a tensor map."""
        return np.full(self.lanes, self.block.map_address(name), u8)

    # Threads that wait for each other

    def bar(self, at: int, fragment: Fragment, number: int, count: int | None, mask: np.ndarray | None,
            aligned: bool = True) -> bool:  # fmt: skip
        """bar.sync, barrier.sync. aligned: whole warps come, lanes that have returned counted with them."""
        if aligned and not fragment.arrived and self._wait_for(at, fragment, None, mask):
            return False
        return self.block.bar(at, fragment, number, count or self.block.threads, self._threads(mask, aligned))

    def sync_warp(self, at: int, fragment: Fragment, members: np.ndarray, mask: np.ndarray | None) -> bool:
        """bar.warp.sync: waits for the lanes that `members` (bits, per thread) names and orders memory among them."""
        if self._wait_for(at, fragment, members, mask):
            return False
        if self.block.races:
            for threads in self._groups(members, mask):
                self.block.clocks.join(threads)
        return True

    def absent(self, at: int, fragment: Fragment, members: np.ndarray, mask: np.ndarray | None) -> bool:
        """Whether lanes are elsewhere that a shfl, vote, match, redux or elect has to wait for."""
        return self._wait_for(at, fragment, members, mask)

    def setmaxnreg(self, at: int, fragment: Fragment, more: bool, count: int, mask: np.ndarray | None) -> bool:
        if self._wait_for(at, fragment, None, mask):
            return False
        return self.block.setmaxnreg(at, fragment, more, count, self._active_warps(mask))

    def missing(self, at: int, members: np.ndarray | None, mask: np.ndarray | None) -> np.ndarray:
        """Matrix (warps, 32) of the lanes that are not active, though an active lane of the warp names them as members.

        Lanes that have returned are not waited for. members None: all lanes.
        """
        if mask is None and (members is None or (members == ALL_LANES).all()):
            return np.zeros((self.count, LANES), bool)
        active = np.ones(self.lanes, bool) if mask is None else mask
        bits = np.full(self.lanes, ALL_LANES, u4) if members is None else members
        if (active & (bits >> (self.lane % LANES).astype(u4) & 1 == 0)).any():
            self.block.fault(at, "a thread is not in its own member mask")
        named = np.bitwise_or.reduce(np.where(active, bits, u4(0)).reshape(-1, LANES), 1)
        named = (named[:, None] >> np.arange(LANES, dtype=u4) & 1).astype(bool)
        return named & (self.alive & ~active).reshape(-1, LANES)

    def _wait_for(self, at: int, fragment: Fragment, members: np.ndarray | None, mask: np.ndarray | None) -> bool:
        missing = self.missing(at, members, mask)
        if not missing.any():
            return False
        warp = int(missing.any(1).argmax())
        fragment.waits_for = f"lanes {np.flatnonzero(missing[warp]).tolist()} of warp {self.first + warp}"
        return True

    def _groups(self, members: np.ndarray, mask: np.ndarray | None) -> list[np.ndarray]:
        """The threads of the block that meet: those of one warp with the same mask."""
        active = self.thread if mask is None else self.thread[mask]
        bits = members if mask is None else members[mask]
        group = (active // LANES).astype(np.int64) << 32 | bits
        return [active[group == key] for key in np.unique(group)]

    def _threads(self, mask: np.ndarray | None, whole_warps: bool) -> np.ndarray:
        if mask is None:
            return self.thread
        if whole_warps:
            mask = np.repeat(mask.reshape(-1, LANES).any(1), LANES)
        return self.thread[mask]

    def _active_warps(self, mask: np.ndarray | None) -> np.ndarray:
        return self.own if mask is None else self.own[mask.reshape(-1, LANES).any(1)]

    def _whole_warps(self, at: int, mask: np.ndarray | None) -> Any:
        """The warps of the team, counted in it, that execute an .aligned instruction."""
        if mask is None:
            return slice(None)
        per_warp = mask.reshape(-1, LANES)
        if (per_warp.any(1) != per_warp.all(1)).any():
            self.block.fault(at, "an .aligned instruction is executed by part of a warp")
        return np.flatnonzero(per_warp.all(1))
