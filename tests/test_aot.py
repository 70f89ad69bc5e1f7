"""Every Triton kernel compiles for three GPU generations, without spills, within the shared memory of a block."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bingo.kernels import aot, triton_queue_softmax

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton ships its assembler for Linux")
# The most one block may use: CUDA programming guide, table of compute capabilities.
TENSOR_CORE = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}


@pytest.mark.parametrize("arch", SHARED_LIMIT)
def test_compiles_without_spills(arch: int, tmp_path: Path) -> None:
    code = f"import json; from bingo.kernels.aot import compile_report; print(json.dumps(compile_report({arch})))"
    # An interpreted kernel cannot be compiled, and a cached one would not show that this compiler accepts it.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    assert {(r["dtype"], r["channels"]) for r in records if r["kernel"] == "split"} == {
        (dtype, channels) for dtype in ("fp32", "fp16", "bf16") for channels in (64, 128)
    }
    for record in records:
        assert record["arch"] == arch
        assert 0 < record["registers"] <= 255
        assert record["spill_bytes"] == 0, record
        assert record["shared_bytes"] <= SHARED_LIMIT[arch], record
        # Matrix products in half precision must run on the generation's own tensor-core instruction.
        half = record["kernel"] == "split" and record["dtype"] != "fp32"
        assert record["tensor_core"] == (TENSOR_CORE[arch] if half else "none"), record
        assert record["loop_instructions"] > 0


@pytest.mark.skipif(not triton_queue_softmax.is_interpreted(), reason="kernels are not interpreted here")
def test_interpreted_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="TRITON_INTERPRET is set"):
        aot.compile_report(90)


def test_hot_loop_is_the_one_with_the_products() -> None:
    code = """
.L_x_0:
        /*0000*/                   FFMA R1, R2, R3, R4 ;
        /*0010*/               @P0 BRA `(.L_x_0) ;
.L_x_1:
        /*0020*/                   LDSM.16.M88.4 R24, [R4] ;
        /*0030*/              @!P1 BRA `(.L_x_2) ;
        /*0040*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR12], RZ, !UPT ;
.L_x_2:
        /*0050*/                   HGMMA.64x128x16.F32.BF16 R88, R152, gdesc[UR12].tnspB, R88 ;
        /*0060*/               @P0 BRA `(.L_x_1) ;
.L_x_3:
        /*0070*/                   BRA `(.L_x_3);
"""
    assert aot.hot_loop(code) == ("HGMMA", 5)
    assert aot.hot_loop("        /*0000*/                   EXIT ;") == ("none", 0)
