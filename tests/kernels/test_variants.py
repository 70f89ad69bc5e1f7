"""Every launch compiles as the launcher specialises it, for GPUs that are not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ranks import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton ships its assembler for Linux")


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90])
def test_every_launch_compiles_as_the_launcher_specialises_it(arch: int, tmp_path: Path) -> None:
    """Of every kernel as many launches as the calls need; repairs only for those that may have rows of any length."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.pretend_gpu", str(arch)],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    launches = {"bag": 6, "combine": 6, "rank": 6, "split": 6 + 4}
    launches |= {"luma": 3, "colour": 2 * 3, "blur_rows": 3, "blur_columns": 3, "cutmix": 2 * 3, "nearest": 4}
    assert done.stdout.split() == [f"{name}_kernel:{count}" for name, count in sorted(launches.items())]
