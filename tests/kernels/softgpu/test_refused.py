"""What the executor does not know is refused by name, before anything runs."""

import numpy as np
import pytest

from tests.softgpu.harness import run
from tests.softgpu.opcodes import Opcodes
from tests.softgpu.parse import Unsupported

# Instructions with the words that the message must have beside the instruction's own name.
REFUSED = {
    # No such family.
    "sad.u32 %r0, %r1, %r2, %r3;": "not known",
    "mul24.lo.s32 %r0, %r1, %r2;": "not known",
    "addc.u32 %r0, %r1, %r2;": "not known",
    "fns.b32 %r0, %r1, %r2, %r3;": "not known",
    "set.eq.u32.s32 %r0, %r1, %r2;": "not known",
    "prefetch.global.L2 [%d0];": "not known",
    "call foo;": "not known",
    "trap;": "not known",
    "griddepcontrol.wait;": "not known",
    "isspacep.global %p0, %d0;": "not known",
    # Modifiers.
    "add.cc.u32 %r0, %r1, %r2;": ".cc",
    "add.sat.u32 %r0, %r1, %r2;": ".sat",
    "add.rm.f32 %r0, %r1, %r2;": ".rm",
    "mul.rp.f32 %r0, %r1, %r2;": ".rp",
    "fma.rm.f32 %r0, %r1, %r2, %r3;": ".rm",
    "fma.rn.relu.f16 %h0, %h1, %h2, %h3;": ".relu",
    "add.rn.ftz.f16 %h0, %h1, %h2;": ".ftz",
    "mad.hi.sat.s32 %r0, %r1, %r2, %r3;": ".sat",
    "add.rz.f64 %d0, %d1, %d2;": ".rz",
    "fma.rn.f64 %d0, %d1, %d2, %d3;": "round once",
    "mul.f32.f16 %r0, %h1, %r2;": "together",
    "mul.wide.u64 %d0, %d1, %d2;": "wider",
    "max.relu.u32 %r0, %r1, %r2;": ".relu",
    "max.xorsign.f32 %r0, %r1, %r2;": ".abs|'abs'",
    "max.ftz.f16 %h0, %h1, %h2;": ".ftz",
    "div.approx.f32 %r0, %r1, %r2;": ".approx",
    "div.rz.f32 %r0, %r1, %r2;": ".rz",
    "div.f32 %r0, %r1, %r2;": "where one of",
    "ex2.approx.f16 %h0, %h1;": ".f16",
    "ex2.rn.f32 %r0, %r1;": ".rn",
    "rcp.rz.f32 %r0, %r1;": ".rz",
    "tanh.approx.ftz.f32 %r0, %r1;": ".ftz",
    "lg2.f32 %r0, %r1;": "where one of",
    "testp.odd.f32 %p0, %r0;": ".odd",
    "cvt.rn.satfinite.f16.f32 %h0, %r0;": ".satfinite",
    "cvt.rn.relu.bf16.f32 %h0, %r0;": ".relu",
    "cvt.rna.tf32.f32 %r0, %r1;": ".tf32",
    "cvt.rn.bf16.f16 %h0, %h1;": "between half",
    "cvt.f32.s32 %r0, %r1;": "where one of",
    "cvt.rz.f32.s32 %r0, %r1;": ".rz",
    "cvt.rn.f16.s64 %h0, %d0;": "64 bits",
    "cvt.s32.f32 %r0, %r1;": "where one of",
    "cvt.f32.f64 %r0, %d0;": "rounding",
    "cvt.rn.f64.f32 %d0, %r0;": "rounding",
    "cvt.rni.f32.f64 %r0, %d0;": "rounding",
    "cvt.rn.e4m3x2.f32 %h0, %r0, %r1;": ".e4m3x2",
    "setp.lo.s32 %p0, %r0, %r1;": ".lo",
    "setp.lt.b32 %p0, %r0, %r1;": ".lt",
    "setp.ltu.s32 %p0, %r0, %r1;": ".ltu",
    "setp.eq.f16x2 %p0|%p1, %r0, %r1;": ".f16x2",
    "slct.ftz.b32.s32 %r0, %r1, %r2, %r3;": ".ftz",
    "lop3.or.b32 %r0, %r1, %r2, %r3, 5;": ".or",
    "prmt.b32.f8e %r0, %r1, %r2, %r3;": ".f8e",
    "shf.l.b32 %r0, %r1, %r2, %r3;": "where one of",
    "cvta.shared.u64 %d0, %d1;": ".shared",
    "cvta.local.u64 %d0, %d1;": ".local",
    # Memory.
    "ld.volatile.global.b32 %r0, [%d0];": ".volatile",
    "ld.relaxed.gpu.global.b32 %r0, [%d0];": ".relaxed",
    "ld.acquire.gpu.global.b32 %r0, [%d0];": ".acquire",
    "ld.global.nc.b32 %r0, [%d0];": ".nc",
    "ld.b32 %r0, [%d0];": "where one of",
    "ld.local.b32 %r0, [%d0];": ".local",
    "ld.const.b32 %r0, [%d0];": ".const",
    "ld.shared::cluster.b32 %r0, [%r1];": ".shared::cluster",
    "ld.global.v2.b32 %r0, [%d0];": "vector",
    "ld.global.b32 {%r0, %r1}, [%d0];": "vector",
    "ld.global.b128 %d0, [%d1];": ".b128",
    "ld.param.b64 %d0, [nothing];": "no parameter",
    "ld.global.b32 %r0, [%d0*2];": "address",
    "ld.global.b32 %r0, [elsewhere];": "elsewhere",
    "st.release.gpu.global.b32 [%d0], %r0;": ".release",
    "st.async.b32 [%r0], %r1, [%r2];": ".async",
    "atom.shared.add.u32 %r0, [%r1], %r2;": "other spaces",
    "atom.add.u32 %r0, [%d1], %r2;": "other spaces",
    "atom.global.add.noftz.f16 %h0, [%d0], %h1;": ".noftz",
    "atom.global.min.f32 %r0, [%d0], %r1;": ".f32",
    "atom.global.relaxed.acquire.gpu.add.u32 %r0, [%d0], %r1;": "two orders",
    "red.async.relaxed.cluster.add.u32 [%r0], %r1, [%r2];": "other spaces",
    # Across threads.
    "shfl.down.b32 %r0, %r1, 1, 31;": "where one of",
    "shfl.sync.b32 %r0, %r1, 1, 31, -1;": "where one of",
    "vote.all.pred %p0, %p1;": "where one of",
    "vote.sync.ballot.pred %r0, %p1, -1;": ".pred",
    "match.any.sync.b32 %r0|%p0, %r1, -1;": "two parts",
    "redux.sync.max.f32 %r0, %r1, -1;": ".f32",
    "redux.sync.max.abs.s32 %r0, %r1, -1;": ".abs",
    # Control.
    "bar.arrive 1, 64;": ".arrive",
    "bar.red.popc.u32 %r0, 1, %p0;": ".red",
    "@%p0 bar.sync 0;": "guard",
    "bar.sync %r0;": "operands",
    "@%p0 ret;": "guard",
    "@%p0 exit;": "guard",
    "setmaxnreg.inc.sync.u32 64;": "where one of",
    "membar.proxy.alias;": ".proxy",
    # Operands.
    "mov.u32 %r0, %clock;": "%clock",
    "mov.u64 %d0, %globaltimer;": "%globaltimer",
    "mov.u32 %r0, %smid;": "%smid",
    "mov.b64 %d0, %r0;": "size",
    "mov.b32 %r0, nothing;": "nothing",
    "mov.b32 %r0, 4294967296;": "fit",
    "mov.b128 %d0, %d1;": ".b128",
    "mov.b32 {%r0, %r1}, %r2;": "size",
    "mov.b64 {%h0, %h1, %h2}, %d0;": "3 parts",
    "add.s32 %r0, %r1;": "operands",
    "add.s32 %r0, %r1, %r2, %r3;": "operands",
    "add.s32 %d0, %r1, %d2, %r0;": "operands",
    "add.s64 %d0, %d1, %r2;": "used as u8",
    "add.s64 %r0, %d1, %d2;": "written as u8",
    "add.f32 %d0, %r1, %r2;": "wider",
    "add.f32 %r0, %r1, %p0;": "used as f4",
    "add.f32 5, %r1, %r2;": "not a register",
    "lop3.b32 %r0, %r1, %r2, %r3, %r4;": "operands",
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_refused_by_name(text: str) -> None:
    name = text.removeprefix("@%p0 ").rstrip(";").split()[0]
    with pytest.raises(Unsupported, match=REFUSED[text].replace(".", r"\.")) as refusal:
        run(text, {}, {})
    assert f": {name}: " in str(refusal.value)
    assert str(refusal.value).startswith("PTX line ")


def test_every_unknown_instruction_is_named() -> None:
    body = "sad.u32 %r0, %r1, %r2, %r3;\nadd.s32 %r0, %r0, 1;\nadd.rm.f32 %r0, %r1, %r2;"
    with pytest.raises(Unsupported) as refusal:
        run(body, {}, {})
    sad, rounding = str(refusal.value).split("\n")
    assert "sad.u32" in sad
    assert "add.rm.f32" in rounding


def test_what_is_refused_does_not_run() -> None:
    memory = np.zeros(1, np.uint32)
    with pytest.raises(Unsupported):
        run("mov.b32 %r0, 1;\nst.global.b32 [%m], %r0;\nsad.u32 %r0, %r1, %r2, %r3;", {}, {}, memory={"m": memory})
    assert memory[0] == 0


def test_families_share_no_names() -> None:
    """They are mixed into one class: a method of one would silently take the place of another's."""
    seen: dict[str, str] = {}
    for family in Opcodes.__mro__[1:-1]:
        for name in vars(family):
            if not name.startswith("__"):
                assert name not in seen, f"{name} of {family.__name__} and of {seen[name]}"
                seen[name] = family.__name__
