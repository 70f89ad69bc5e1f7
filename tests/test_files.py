"""Atomic writes: the old file or the new one, whatever happens in between."""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bingo.errors import TransientError, UserError
from bingo.files import atomic_write, folder_lock, hash_file, hash_json, read_json, write_json
from tests.support.ranks import ROOT

pytestmark = pytest.mark.quick


def test_an_exception_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})

    def write_half() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_half()
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_a_kill_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    code = (
        "import os, signal, sys, pathlib; from bingo.files import atomic_write\n"
        "with atomic_write(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_json(path) == {"a": 1}


def test_a_full_disk_is_one_sentence_and_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """A file size limit stands for the full disk: the same error from the same call, without needing to mount one."""
    code = (
        "import pathlib, signal, sys, torch; from bingo.train.checkpoint import save_checkpoint, load_newest\n"
        "from bingo.errors import UserError\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "save_checkpoint(folder, 1, {'key': 'k', 'x': torch.zeros(1000)})\n"
        "import resource; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))\n"
        "try:\n"
        "    save_checkpoint(folder, 2, {'key': 'k', 'x': torch.zeros(100_000)})\n"
        "except UserError as error:\n"
        "    print(error)\n"
        "assert load_newest(folder, 'k', torch.device('cpu'))['step'] == 1\n"
        "assert len(list(folder.iterdir())) == 1, list(folder.iterdir())"
    )
    assert resource.RLIMIT_FSIZE
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout
    assert "free space or choose another folder" in done.stdout


def test_what_may_mend_itself_is_told_from_what_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, kind in ((errno.ENOSPC, TransientError), (errno.ESTALE, TransientError), (errno.EACCES, UserError)):

        def refused(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", refused)
        with pytest.raises(UserError, match="cannot write") as found:
            write_json(tmp_path / "value.json", 1)
        assert type(found.value) is kind


# Holds the folder at argv[1], says so, and lets go of it when a line comes in.
HOLDER = """
import pathlib, sys
from bingo.files import folder_lock
with folder_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_held_folder_is_refused_or_waited_for(tmp_path: Path) -> None:
    """As an attempt finds it whose predecessor is not quite dead yet."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(TransientError, match=f"another process is writing {tmp_path} now"), folder_lock(tmp_path):
        pass
    threading.Timer(1.0, holder.stdin.close).start()
    with folder_lock(tmp_path, wait_s=60):
        assert holder.wait(60) == 0


def test_unwritable_place() -> None:
    with pytest.raises(UserError, match=r"cannot write /dev/null/x/value.json: Not a directory"):
        write_json(Path("/dev/null/x/value.json"), 1)


def test_json_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        read_json(tmp_path / "bad.json")
    with pytest.raises(UserError, match="does not exist"):
        read_json(tmp_path / "absent.json")


def test_hashes_do_not_depend_on_order_or_place(tmp_path: Path) -> None:
    assert hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1}) != hash_json({"a": 1, "b": 3})
    (tmp_path / "a").write_bytes(b"x" * 100)
    (tmp_path / "b").write_bytes(b"x" * 100)
    assert hash_file(tmp_path / "a") == hash_file(tmp_path / "b")
