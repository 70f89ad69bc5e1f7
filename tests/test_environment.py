"""The environment record: JSON of whatever machine this is, without torch, and None for what is not there."""

import json
import subprocess
import sys

import pytest

from bingo import environment
from tests.support.ranks import ROOT

pytestmark = pytest.mark.quick


def test_the_record_is_json_and_never_imports_torch() -> None:
    code = (
        "import json, sys; from bingo.environment import environment_record as record; print(json.dumps(record()));"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, "word"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["python"] == environment.platform.python_version()
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0
    assert found["cpu"]
    assert found["gpu"] == []
    assert found["argv"] == ["-c", "word"]
    assert set(found["packages"]) == set(environment.PACKAGES)


def test_only_these_variables_of_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.os.environ:
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_CONF", "/a/path")
    assert environment.environment_record()["slurm"] == {"SLURM_JOB_ID": "12"}


def test_what_is_absent_is_none() -> None:
    assert environment.version("no-such-package-at-all") is None
    assert environment.version("numpy")
