"""A test of the tests: the executor's cases notice wrong edits of the kernels' sources, and accept right ones.

`python -m tests.softgpu.mutations` (part of `make fuzz`) tries all of them; here are some of the quick ones.
"""

import importlib
import inspect
from collections import Counter

import pytest

from bingo.kernels import triton_combine
from tests.softgpu.mutate_ptx import opcode, unexplained
from tests.softgpu.mutations import ALL, CASES
from tests.softgpu.planting import Mutation, Stale, edited, noticed, planted

by_mutation = pytest.mark.parametrize("mutation", ALL, ids=lambda mutation: mutation.name)
by_quick = pytest.mark.parametrize("mutation", [m for m in ALL if m.quick], ids=lambda mutation: mutation.name)


@pytest.mark.slow
@pytest.mark.sampled(6)
@by_quick
def test_what_the_executor_notices(mutation: Mutation) -> None:
    assert bool(seen := noticed(mutation, CASES[mutation.case])) != mutation.right, seen


@by_mutation
def test_edits_fit_the_source(mutation: Mutation) -> None:
    """Whoever changes a kernel learns which edits have lost their place."""
    text = inspect.getsource(importlib.import_module(f"bingo.kernels.{mutation.module}"))
    assert edited(mutation, text) != text


def test_every_kind_of_kernel_is_edited() -> None:
    assert len({m.name for m in ALL}) == len(ALL) > 75
    assert {m.case for m in ALL} == set(CASES)
    assert {m.module for m in ALL if m.quick} == {m.module for m in ALL}
    assert len([m for m in ALL if m.module == "hopper_kernel" and not m.right]) >= 22


@pytest.mark.parametrize("text", ["* R + row", "no such text"])
def test_an_edit_replaces_one_place(text: str) -> None:
    """One that is there twice, one that is not there."""
    mutation = Mutation("mine", "triton_combine", "ragged", ((text, ""),))
    with pytest.raises(Stale, match=r"mine: triton_combine.py has .* (2|0) times"), planted(mutation):
        pass


def test_an_edit_ends_with_its_block() -> None:
    before = dict(vars(triton_combine))
    mutation = next(m for m in ALL if m.module == "triton_combine")

    def fail() -> None:
        with planted(mutation):
            assert triton_combine.combine_kernel is not before["combine_kernel"]
            assert triton_combine.combine.__globals__["combine_kernel"] is triton_combine.combine_kernel
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert vars(triton_combine) == before


def test_a_deletion_is_noticed_or_has_a_reason() -> None:
    """Reasons are of one kernel on one generation, and for so many."""
    few = Counter({"bar.sync": 4, "setmaxnreg.inc.sync.aligned.u32": 2, "setmaxnreg.dec.sync.aligned.u32": 1})
    assert unexplained(few, "hopper", 90) == {}
    assert unexplained(few + Counter({"bar.sync": 1, "fence.proxy": 1}), "hopper", 90) == {
        "bar.sync": 1,
        "fence.proxy": 1,
    }
    assert unexplained(few, "hopper", 100) == few
    assert opcode("\t@%p1 setmaxnreg.inc.sync.aligned.u32 240;") == "setmaxnreg.inc.sync.aligned.u32"
