"""Threads of a team: branches, joining, parameters, barriers."""

from typing import Any

import numpy as np

from tests.softgpu.numbers import i8, u8
from tests.softgpu.state import Fragment, TeamState


class Control(TeamState):
    """Mixed into `team.Team`."""

    def branch(self, fragment: Fragment, taken: np.ndarray, mask: np.ndarray | None, target: int, after: int) -> int:
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
        active = index if mask is None else index[mask]
        values = np.unique(active)
        for value in values[1:]:
            where = index == value
            self.fragments.append(Fragment(table[value], where if mask is None else where & mask))
        if len(values) > 1:
            where = index == values[0]
            fragment.mask = where if mask is None else where & mask
        return table[values[0]]

    def join(self) -> None:
        """Fragments that have come to the same place go on together."""
        places: dict[int, Fragment] = {}
        for fragment in self.fragments:
            other = places.get(fragment.at)
            if other is None or other.arrived != fragment.arrived:
                places[fragment.at if other is None else ~fragment.at] = fragment
                continue
            both = other.mask | fragment.mask
            other.mask = None if both.all() else both
            other.tried = -1
        self.fragments = sorted(places.values(), key=lambda f: f.at)

    def parameter(self, name: str, kind: Any) -> np.ndarray:
        value = self.block.parameters[name]
        size = np.dtype(kind).itemsize
        bits = value if isinstance(value, bytes) else int(value).to_bytes(8, "little", signed=int(value) < 0)
        return np.full(self.lanes, np.frombuffer(bits[:size].ljust(size, b"\0"), kind)[0])

    def parameter_signed(self, name: str, kind: Any) -> np.ndarray:
        value = int.from_bytes(self.block.parameters[name][:4], "little", signed=True)
        return np.full(self.lanes, value, i8).view(kind)

    def parameter_address(self, name: str) -> np.ndarray:
        return np.full(self.lanes, self.block.map_address(name), u8)

    def bar(self, at: int, fragment: Fragment, number: int, count: int | None, mask: np.ndarray | None) -> bool:
        warps = self._active_warps(mask)
        lanes = self.lanes if mask is None else int(mask.sum())
        return self.block.bar(at, fragment, number, count or self.block.threads, warps, lanes)

    def setmaxnreg(self, at: int, fragment: Fragment, more: bool, count: int, mask: np.ndarray | None) -> bool:
        return self.block.setmaxnreg(at, fragment, more, count, self._active_warps(mask))

    def _active_warps(self, mask: np.ndarray | None) -> Any:
        return self.own if mask is None else self.own[mask.reshape(-1, 32).any(1)]

    def _whole_warps(self, at: int, mask: np.ndarray | None) -> Any:
        if mask is None:
            return slice(None)
        per_warp = mask.reshape(-1, 32)
        if (per_warp.any(1) != per_warp.all(1)).any():
            self.block.fault(at, "an .aligned instruction is executed by part of a warp")
        return np.flatnonzero(per_warp.all(1))
