"""Variables of the environment: one sentence for each that is wrong, in every verb that reads it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.variables import RANKS, Place, cache_folder, forget_ranks, named_gpus, place
from tests.support.modules import SOURCES
from tests.support.ranks import ROOT, bingo

pytestmark = pytest.mark.quick

WHOLE = {
    "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "n1",
    "MASTER_PORT": "29500",
}  # fmt: skip


def test_what_launchers_say() -> None:
    assert place({}) == Place(0, 1, 0, 1)
    assert place({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "", "MASTER_PORT": "x"}).size == 1, "nobody to meet"
    assert place(WHOLE) == Place(1, 4, 1, 2, "n1", 29500)
    assert not place(WHOLE).agent
    torchrun = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "3"}
    assert place({**WHOLE, **torchrun}) == Place(1, 4, 1, 2, "n1", 29500, True, 3)
    few = {name: WHOLE[name] for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
    assert place(few) == Place(1, 4, 0, 4, "n1", 29500), "of one node"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"RANK": None}, "WORLD_SIZE=4 is set, but RANK is not"),
        ({"WORLD_SIZE": None}, "RANK=1 is set, but WORLD_SIZE is not"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE is empty"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0 is not allowed: it must be at least 1"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE='-1' is not a whole number of 0 or more"),
        ({"WORLD_SIZE": " 4 "}, "WORLD_SIZE=' 4 ' is not a whole number"),
        ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE='9+' is not a whole number"),
        ({"RANK": "one"}, "RANK='one' is not a whole number"),
        ({"RANK": "1.0"}, "RANK='1.0' is not a whole number"),
        ({"RANK": "٣"}, "RANK='٣' is not a whole number"),
        ({"RANK": "4"}, "RANK=4 is not allowed: it must be below WORLD_SIZE=4"),
        ({"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE=0 is not allowed: it must be between 1 and WORLD_SIZE=4"),
        ({"LOCAL_WORLD_SIZE": "5"}, "LOCAL_WORLD_SIZE=5 is not allowed: it must be between 1 and WORLD_SIZE=4"),
        ({"LOCAL_RANK": "2"}, "LOCAL_RANK=2 is not allowed: it must be below 2"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR is not set"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is empty"),
        ({"MASTER_PORT": None}, "MASTER_PORT is not set"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT=0 is not allowed: it must be a port between 1 and 65535"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT=70000 is not allowed"),
        ({"MASTER_PORT": "abc"}, "MASTER_PORT='abc' is not a whole number"),
    ],
)
def test_wrong_ranks(changes: dict[str, str | None], sentence: str) -> None:
    environ = {name: value for name, value in {**WHOLE, **changes}.items() if value is not None}
    with pytest.raises(UserError, match=sentence) as refused:
        place(environ)
    assert "`unset RANK WORLD_SIZE " in str(refused.value)


@pytest.mark.parametrize("variables", [{"LOCAL_RANK": "3"}, {"LOCAL_WORLD_SIZE": "2"}, {"LOCAL_WORLD_SIZE": "0"}])
def test_leftovers_without_a_size(variables: dict[str, str]) -> None:
    with pytest.raises(UserError, match=rf"^{'='.join(*variables.items())} is not allowed"):
        place(variables)


@pytest.mark.parametrize("verb", ["features", "pack"])
def test_a_stage_refuses_them_at_once(source: Path, tmp_path: Path, verb: str) -> None:
    """As processes: before there is any folder, and without a traceback."""
    words = {"features": ["--data", source, "--model", "resnet18", "--out", tmp_path / "out"]}
    done = bingo(verb, *words.get(verb, [source, tmp_path / "out"]), RANK="5", WORLD_SIZE="4")
    assert done.returncode == 2
    assert re.fullmatch(rf"bingo {verb}: RANK=5 is not allowed: it must be below WORLD_SIZE=4, .*\n", done.stderr)
    assert not (tmp_path / "out").exists()


def test_a_verb_that_is_one_process_says_so(source: Path, tmp_path: Path) -> None:
    """It once did nothing and said nothing."""
    words = ["--cluster", "debug", "--out", tmp_path / "out", "--", source, tmp_path / "packed"]
    done = bingo("submit", "pack", *words, RANK="1")
    assert done.returncode == 0, done.stderr
    assert "RANK=1 does not count here: `bingo submit` is one process" in done.stderr
    assert (tmp_path / "packed" / "stage.json").exists()
    assert bingo("check", source, RANK="0", WORLD_SIZE="1").stderr == "", "that is one process"


def test_the_doctor_names_them() -> None:
    done = bingo("doctor", WORLD_SIZE="2", XDG_CACHE_HOME="/proc/nowhere")
    assert "- no stage would start: WORLD_SIZE=2 is set, but RANK is not" in done.stdout
    assert "- no folder for caches can be written" in done.stdout


def test_they_are_taken_away() -> None:
    torchrun = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "x"}
    environ = {**WHOLE, **torchrun, "HOME": "/root"}
    assert forget_ranks(environ) == ["RANK=1", "LOCAL_RANK=1", "WORLD_SIZE=4", "LOCAL_WORLD_SIZE=2"]
    assert environ == {"HOME": "/root"}


def test_nobody_else_reads_them() -> None:
    """No other module asks the environment for a rank, the cache folder or a home; paths.py expands `~`."""
    asks = re.compile(
        rf"environ\W+(?:get\W+)?(?:{'|'.join([*RANKS, 'XDG_CACHE_HOME', 'HOME'])})\b|Path\.home|expanduser"
    )
    found = {path.name for path in SOURCES if asks.search(path.read_text())}
    assert found == {"variables.py", "paths.py"}


@pytest.mark.parametrize(
    ("named", "count"), [(None, None), ("", 0), ("0,3", 2), ("0,-1,2", 1), ("-1", 0), ("GPU-ab, GPU-cd", 2)]
)
def test_gpus_as_cuda_counts_them(monkeypatch: pytest.MonkeyPatch, named: str | None, count: int | None) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert named_gpus() == count


def test_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache" / "bingo"
    for ignored in ("", "relative", "~/cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder() == tmp_path / "home" / ".cache" / "bingo"
    assert (tmp_path / "home" / ".cache" / "bingo").is_dir()
    for home in ("", "relative", "/dev/null", "/proc/nowhere"):
        monkeypatch.setenv("HOME", home)
        assert cache_folder() is None
    assert sorted(os.listdir()) == ["cache", "home"]


def test_without_a_home() -> None:
    """As a user that the system does not know."""
    if os.getuid():
        pytest.skip("only root can become another user")
    code = "import os, bingo.variables; os.setuid(54321); print(bingo.variables.cache_folder())"
    environ = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.stdout == "None\n", done.stderr
