"""The cost model: what each pipe takes of a tile, by instructions written by hand, and against published kernels."""

import dataclasses
import subprocess
import sys

import pytest

from bingo.kernels import aot, cycles
from bingo.kernels.cycles import Work
from tests.support import attention
from tests.support.ranks import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton ships its assembler for Linux")
WAVE = [("FFMA", " R1, R2, R3, R4"), ("MUFU.EX2", " R1, R2"), ("F2FP.BF16.F32.PACK_AB", " R1, R2, R3")]
PRODUCT = ("HGMMA.64x128x16.F32.BF16", " R24, R152, gdesc[UR12], R24, gsb0 ")
WORK = Work(64, 128, 128, 2)


def pipes(*body: tuple[str, str], arch: int = 90, tiles: float = 1.0, work: Work = WORK) -> dict[str, float]:
    """Of the pipes that are used at all."""
    found = cycles.tile_cost(body, arch, tiles, work, 1).pipes
    return {pipe: value for pipe, value in found.items() if value}


@pytest.mark.parametrize(("arch", "multiply_adds", "fma"), [(80, 1024, 2), (90, 2048, 1), (100, 4096, 1)])
def test_every_lane_of_a_generation_counts(arch: int, multiply_adds: int, fma: int) -> None:
    tile = 2 * 64 * 128 * 128 / multiply_adds
    # The keys from L2, 32 bytes a clock: all 64 rows of the block share them.
    assert pipes(*WAVE, arch=arch) == {
        "tensor": tile, "fma": fma, "mufu": 8, "alu": 2, "issue": 3, "l2": 128 * 128 * 2 / 32
    }  # fmt: skip


def test_half_a_tile_per_turn_costs_twice_as_much_per_tile() -> None:
    once, twice = pipes(*WAVE), pipes(*WAVE, tiles=0.5)
    assert {pipe: twice[pipe] / once[pipe] for pipe in ("fma", "mufu", "alu", "issue")} == dict.fromkeys(
        ("fma", "mufu", "alu", "issue"), 2
    )
    assert (twice["tensor"], twice["l2"]) == (once["tensor"], once["l2"])


@pytest.mark.parametrize(
    ("name", "operands", "pipe", "expected"),
    [
        ("FADD2", "", "fma", 2),
        ("IMAD.WIDE.U32", "", "fma", 2),
        ("I2F.U32.RP", "", "mufu", 8),
        ("LDSM.16.M88.4", "", "shared", 16),  # four warps, 512 bytes each, 128 a clock
        ("LDSM.16.MT88.4", "", "shared", 16),
        ("STSM.16.M88", "", "shared", 4),
        ("LDS.128", "", "shared", 16),
        ("STS.64", "", "shared", 8),
        ("LDG.E", "", "shared", 4),
        ("SHFL.BFLY", "", "shared", 4),
        ("LDTM.x64", "", "tmem", 64),
        ("STTM.16dp32bit_t0_t15.x32", "", "tmem", 16),
        ("HGMMA.64x128x16.F32", " R24, R152, gdesc[UR12], R24 ", "shared", 32),  # 128 keys of 16 channels
        ("HGMMA.64x128x16.F32", " R24, gdesc[UR12], RZ, !UPT ", "shared", 48),  # and 64 rows
        ("HGMMA.64x64x16.F32", " R24, gdesc[UR12].tnspA, R24 ", "shared", 32),
    ],
)
def test_an_instruction_takes_its_pipe(name: str, operands: str, pipe: str, expected: float) -> None:
    assert pipes((name, operands))[pipe] == expected
    assert pipes((name, operands))["issue"] == 1


@pytest.mark.parametrize("name", ["BRA", "SYNCS.ARRIVE.TRANS64", "UIADD3.X", "R2UR", "BAR.SYNC.DEFER_BLOCKING"])
def test_control_and_scalars_take_a_slot_only(name: str) -> None:
    assert set(pipes((name, ""))) == {"issue", "tensor", "l2"}


def test_an_unknown_opcode_is_refused_by_name() -> None:
    body = [*WAVE, ("QMMA.16816", ""), ("IDP.4A", "")]
    assert cycles.unknown(body) == ["IDP", "QMMA"]
    with pytest.raises(ValueError, match=r"no pipe is known for IDP, QMMA; add it to kernels/cycles\.py"):
        cycles.tile_cost(body, 90, 1.0, WORK, 1)


def test_keys_that_the_copy_engine_brings_are_written_to_shared_memory_once_for_all_consumers() -> None:
    tile = 128 * 128 * 2
    copied = dataclasses.replace(WORK, copied=True)
    assert pipes(*WAVE, work=copied)["shared"] == tile / 128
    shared = pipes(*WAVE, work=dataclasses.replace(copied, consumers=2))
    assert (shared["shared"], shared["l2"]) == (tile / 128 / 2, tile / 32 / 2)
    rows_too = pipes(*WAVE, work=dataclasses.replace(WORK, loads_rows=True))
    assert rows_too["l2"] == (tile + 64 * 128 * 2) / 32
    assert pipes(*WAVE, work=dataclasses.replace(WORK, matrices=2))["l2"] == 2 * tile / 32


def test_tcgen05_of_128_rows_reads_its_operands_from_shared_memory() -> None:
    """128 x 128 scores of 128 channels, as FlashAttention-4 has them: the rows of the first product come from shared
    memory, those of the second from tensor memory; three operands of 32 KB in all."""
    scores = [("UTCHMMA", " gdesc[UR14], gdesc[UR18], tmem[UR12], tmem[UR56], idesc[UR57], UPT ")] * 8
    output = [("UTCHMMA", " tmem[UR14], gdesc[UR4], tmem[UR10], tmem[UR46], idesc[UR47], UPT ")] * 8
    exponentials = [("MUFU.EX2", "")] * 128  # of each of four warps
    found = pipes(*scores, *output, *exponentials, arch=100, tiles=2.0, work=Work(128, 128, 128, 2))
    assert {pipe: 2 * found[pipe] for pipe in ("tensor", "shared", "mufu")} == {
        "tensor": 4 * 128**3 / 8192, "shared": 3 * 32 * 1024 / 128, "mufu": 128**2 / 16
    }  # fmt: skip
    assert pipes(*scores, arch=100)["tensor"] == 1024  # 64 rows: half of the work in the same time


def test_overlap_is_read_from_the_order_of_the_instructions() -> None:
    def overlap(*body: tuple[str, str], blocks: int = 1, consumers: int = 1) -> str:
        work = dataclasses.replace(WORK, consumers=consumers)
        return cycles.tile_cost(body, 90, 1.0, work, blocks).overlap

    def wait(left: int) -> tuple[str, str]:
        return ("WARPGROUP.DEPBAR.LE", f" gsb0, {left:#x} ")

    assert overlap(PRODUCT, PRODUCT, wait(1), *WAVE, wait(0)) == "warp"
    assert overlap(wait(0), *WAVE, PRODUCT) == "little"
    assert overlap(*WAVE, PRODUCT) == "warp"  # what the turn before started
    assert overlap(PRODUCT, wait(0), *WAVE, blocks=2) == "blocks"
    assert overlap(PRODUCT, wait(0), *WAVE, consumers=2) == "blocks"
    one = (PRODUCT[0], PRODUCT[1].replace(", gsb0", ""))
    assert overlap(one, PRODUCT, wait(1), *WAVE, wait(0)) == "warp"  # a group of two is one


def test_together_lies_between_the_longest_pipe_and_the_sum() -> None:
    used = {"tensor": 1000.0, "mufu": 500.0, "issue": 200.0}
    assert [cycles.together(used, overlap) for overlap in ("warp", "blocks", "little")] == [1215, 1425, 1500]
    assert cycles.together(used | {"shared": 1300.0}, "warp") == 1300
    assert cycles.together(used | {"l2": 1400.0, "shared": 1300.0}, "warp") == 1400
    assert cycles.together(used | {"issue": 1100.0}, "little") == 2100


def test_barriers_are_waits() -> None:
    waits = [
        ("BAR.SYNC.DEFER_BLOCKING", ""),
        ("SYNCS.PHASECHK.TRANS64.TRYWAIT", ""),
        ("WARPGROUP.DEPBAR.LE", " gsb0, 0x0"),
    ]
    found = cycles.tile_cost([*waits, ("SYNCS.ARRIVE.TRANS64", ""), *WAVE], 90, 0.5, WORK, 1)
    assert found.barriers == 6


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "arch", "blocks"),
    [
        (128, 218, 115 * 1024, 90, 1),
        (128, 218, 113 * 1024, 90, 2),
        (384, 168, 0, 90, 1),
        (128, 120, 0, 80, 4),
        (1024, 8, 0, 80, 2),
    ],
)
def test_blocks_are_limited_by_the_scarcest(threads: int, registers: int, shared: int, arch: int, blocks: int) -> None:
    assert cycles.blocks_per_sm(threads, registers, shared, arch) == blocks


def document() -> str:
    return (ROOT / "docs" / "cost-model.md").read_text()


def test_the_document_has_the_error_of_every_published_kernel() -> None:
    rows = list(attention.lines((row, attention.share_by_hand(row)) for row in attention.BY_HAND))
    assert [row for row in rows if row not in document()] == []
    for row in attention.COMPILED:
        assert f"| {row.name} | {row.channels} | {row.speed:.0f} |" in document()


@pytest.mark.slow
def test_a_compiled_attention_kernel_comes_out_near_its_published_speed() -> None:
    """In a process of its own: here kernels are compiled for the executor, without the assembler."""
    code = "from tests.support.attention import *; print(compiled_share(COMPILED[1]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = attention.COMPILED[1]
    assert float(done.stdout) * attention.REACHED[row.arch] == pytest.approx(row.speed, rel=0.1)


def test_the_table_shows_pipes_and_what_binds(capsys: pytest.CaptureFixture[str]) -> None:
    cost = cycles.tile_cost([*WAVE, PRODUCT], 90, 1.0, WORK, 1)
    record = {"kernel": "split", "arch": 90, "dtype": "bf16", "channels": 128, "variant": "gradient", "gate": "ok"}
    aot.print_table([record | {"cost": dataclasses.asdict(cost), "unknown_opcodes": []}])
    head, row = capsys.readouterr().out.splitlines()[-2:]
    cells = dict(zip(head.split(), row.split(), strict=True))
    assert cells["tensor"] == "1024"
    assert (cells["binds"], cells["overlap"], cells["expected"]) == ("tensor", "warp", f"{cost.expected:.0f}")
    assert cells["peak"] == f"{1024 / cost.expected:.0%}"
