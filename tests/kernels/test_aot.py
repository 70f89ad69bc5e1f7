"""Every kernel compiles for three GPU generations and passes the gates."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bingo.cli import main
from bingo.kernels import aot, variants
from tests.softgpu.program import unknown
from tests.support.ranks import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton ships its assembler for Linux")
GOOD = {
    "arch": 90, "dtype": "bf16", "spill_bytes": 0, "bare_arrivals": 0, "tensor_core": "HGMMA",
    "registers": 64, "register_limit": 64, "shared_bytes": 227 * 1024, "loop_per_tile": 250, "loop_limit": 250,
    "unknown_opcodes": [], "cost": None,
}  # fmt: skip
KERNELS = (
    "split", "hopper", "ranks", "combine", "bag", "luma", "colour", "blur rows", "blur columns", "cutmix", "nearest"
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.sampled(1)
@pytest.mark.parametrize("arch", aot.TENSOR_CORE)
def test_every_variant_passes_the_gates(arch: int, tmp_path: Path) -> None:
    code = f"import json; from bingo.kernels.aot import compile_report; print(json.dumps(compile_report({arch})))"
    # A cached kernel would not show that this compiler accepts it.
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    for record in records:
        assert record["arch"] == arch
        assert record["gate"] == "ok", record
        assert 0 < record["registers"] <= 255
        assert record["loop_instructions"] > 0 or record["kernel"] not in ("split", "hopper", "ranks")
        costed = record["kernel"] in ("split", "hopper", "ranks", "nearest") and record["dtype"] != "fp32"
        assert bool(record["cost"]) == bool(record["expected_cycles"]) == costed
        assert not costed or record["cost"]["pipes"]["tensor"] <= record["expected_cycles"] + 1
    texts = [file.read_text() for file in tmp_path.rglob("*.ptx")]
    assert len(texts) == len(records)
    assert [names for text in texts if (names := unknown(text))] == [], "the executor of tests/softgpu does not know it"
    assert "frobnicate.b32" in unknown(texts[0].replace("ret;", "frobnicate.b32 %r1, %r1;\n ret;"))[0]
    kernels = {name: [r for r in records if r["kernel"] == name] for name in KERNELS}
    covered = {name: {(r["dtype"], r["channels"]) for r in found} for name, found in kernels.items()}
    assert covered["split"] == {(dtype, channels) for dtype in ("fp32", "fp16", "bf16") for channels in (64, 128, 256)}
    assert all(kernels[name] for name in KERNELS if name != "hopper")
    special = {*variants.SPECIAL_SPLITS, *(name for name, *_ in variants.VALUES_SPLITS)}
    assert {r["variant"] for r in kernels["split"]} == {"gradient", "48 of 64 channels", *special}
    for name in ("colour", "blur columns"):
        assert {r["variant"] for r in kernels[name]} == {"fp32 views", "fp16 views", "bf16 views"}
    assert len(kernels["cutmix"]) == 6
    assert {(r["dtype"], r["variant"].split(",")[0]) for r in kernels["nearest"]} == {
        (dtype, f"best {places}") for dtype in ("fp32", "fp16", "bf16") for places in (16, 32)
    }
    if arch == 90:
        assert covered["hopper"] == set(itertools.product(("fp16", "bf16"), (64, 128, 256)))
        assert {r["channels"] for r in kernels["hopper"] if "excluded" in r["variant"]} == {64, 128}
        assert {r["variant"].split(",")[0] for r in kernels["hopper"]} == {"gradient", "loss only"}
    else:
        assert not covered["hopper"]


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "ok"),
        ({"spill_bytes": 8}, "spills 8 bytes per thread"),
        ({"tensor_core": "HMMA"}, "its products run on HMMA, not on HGMMA"),
        ({"dtype": "fp32", "tensor_core": "none"}, "ok"),
        ({"bare_arrivals": 2}, "2 arrivals may hand back memory that a warp still reads"),
        ({"shared_bytes": 232449}, "needs 232449 bytes of shared memory, above 232448"),
        ({"arch": 80, "tensor_core": "HMMA"}, "needs 232448 bytes of shared memory, above 166912"),
        ({"registers": 65}, "uses 65 registers, above 64"),
        ({"loop_per_tile": 251}, "251 instructions per tile, above 250"),
        ({"loop_per_tile": 251, "loop_limit": None}, "ok"),
        ({"loop_per_tile": 251, "arch": 100, "tensor_core": "UTCHMMA"}, "ok"),
        ({"unknown_opcodes": ["IDP", "QMMA"]}, "no pipe is known for IDP, QMMA; add it to kernels/cycles.py"),
    ],
)
def test_gate_says_what_fails(change: dict[str, Any], verdict: str) -> None:
    assert aot.gate(GOOD | change) == verdict


@pytest.mark.parametrize(("spills", "status"), [(0, 0), (8, 1)])
def test_command_ends_with_1_where_a_gate_fails(
    spills: int, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"kernel": "split", "variant": "", "dtype": "bf16", "channels": 128}
    record = GOOD | names | {"spill_bytes": spills}
    monkeypatch.setattr(aot, "compile_report", lambda arch: [record | {"gate": aot.gate(record)}])
    assert main(["bench", "aot"]) == status
    assert ("spills 8 bytes per thread" in capsys.readouterr().out) == bool(spills)


def test_interpreted_kernels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aot, "is_interpreted", lambda: True)
    with pytest.raises(ValueError, match="TRITON_INTERPRET is set"):
        aot.compile_report(90)


def variant(**changes: Any) -> aot.Variant:
    plain = aot.Variant("split", "", "bf16", 128, None, {}, {}, warps=4, tile=(64, 128), products=2)
    return replace(plain, **changes)


HOT_LOOP = """
.L_x_0:
        /*0000*/                   FFMA R1, R2, R3, R4 ;
        /*0010*/               @P0 BRA `(.L_x_0) ;
.L_x_1:
        /*0020*/                   LDSM.16.M88.4 R24, [R4] ;
        /*0030*/              @!P1 BRA `(.L_x_4) ;
.L_x_2:
        /*0040*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR12], RZ, !UPT ;
        /*0050*/                   HGMMA.64x128x16.F32.BF16 R88, R152, gdesc[UR12].tnspB, R88 ;
        /*0060*/               @P0 BRA `(.L_x_1) ;
"""


def test_hot_loop_is_the_one_with_the_products() -> None:
    assert aot.hot_loop(HOT_LOOP) == aot.Loop("HGMMA", 5, 2 * 64 * 128 * 16 // 4)
    assert aot.hot_loop("        /*0000*/                   EXIT ;") == aot.Loop()


def test_hot_loop_of_a_consumer_is_not_the_loop_around_it_nor_the_one_that_waits() -> None:
    code = f"""
.L_x_9:{HOT_LOOP}
        /*0070*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR12], RZ, !UPT ;
        /*0080*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR12], RZ, !UPT ;
        /*0090*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR12], RZ, !UPT ;
        /*00a0*/                   BRA `(.L_x_9) ;
        /*00b0*/                   EXIT ;
.L_x_4:
        /*00c0*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P1, [UR8], R1 ;
        /*00d0*/              @!P1 BRA `(.L_x_4) ;
        /*00e0*/                   BRA `(.L_x_2) ;
"""
    assert aot.hot_loop(code) == aot.hot_loop(HOT_LOOP)


def test_an_arrival_needs_a_barrier_after_the_wait() -> None:
    wait, barrier, arrive = (
        f"        /*0000*/              {instruction} ;\n"
        for instruction in (
            "WARPGROUP.DEPBAR.LE gsb0, 0x0",
            "BAR.SYNC 0x2, 0x80",
            "@!P0 SYNCS.ARRIVE.TRANS64.A1T0 RZ, [UR4]",
        )
    )
    assert aot.bare_arrivals(wait + barrier + arrive) == 0
    assert aot.bare_arrivals(barrier + wait + arrive + arrive) == 2


def test_loop_is_counted_per_tile_of_64_rows_and_128_keys() -> None:
    per_tile = 64 * 128 * 128 * 2 // 4
    assert aot.loop_per_tile(aot.Loop("HGMMA", 240, per_tile), variant()) == 240
    assert aot.loop_per_tile(aot.Loop("HGMMA", 480, 2 * per_tile), variant()) == 240
    assert aot.loop_per_tile(aot.Loop("UTCHMMA", 240), variant(tile=(128, 128))) == 120
    assert aot.loop_per_tile(aot.Loop("UTCHMMA", 240), variant(warps=8)) == 480
    assert aot.loop_per_tile(aot.Loop("none", 240), variant(products=0)) is None
