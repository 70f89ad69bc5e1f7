"""Faults of GPUs read from what nvidia-smi and the kernel's log say, in the formats that NVIDIA documents."""

import os
from pathlib import Path

import pytest

from bingo.launch.job.gpu_faults import FIELDS, ROWS, XIDS, gpu_faults, of_gpus, of_log, table

pytestmark = pytest.mark.quick
SOUND = "00000000:18:00.0, 0, 0, No, Not Active, Not Active, Not Active"
LOG = """
[    8.1] NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.15
[ 1234.5] NVRM: Xid (PCI:0000:3b:00): 31, pid=7001, name=python, Ch 00000008, intr 00000000. MMU Fault
[ 1234.6] NVRM: Xid (PCI:0000:3b:00): 43, pid=7001, name=python, Ch 00000008
Nov 29 10:00:01 n7 kernel: NVRM: Xid (PCI:0000:86:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
[ 2000.0] NVRM: Xid (PCI:0000:86:00): 79, GPU has fallen off the bus.
[ 2000.1] NVRM: Xid (PCI:0000:86:00.0): 119, pid=1, name=systemd, Timeout after 6s of waiting for GPU1 GSP!
[ 2000.2] NVRM: Xid (PCI:0000:af:00): 790, no such number
"""


@pytest.mark.parametrize(
    ("row", "phrases"),
    [
        (SOUND, []),
        ("00000000:18:00.0, 0, 7, No, Not Active, Not Active, Not Active", []),  # remapped long ago
        ("00000000:18:00.0, [N/A], [N/A], [N/A], [N/A], [N/A], [N/A]", []),
        ("00000000:18:00.0, [Not Supported], -, -, -, -, -", []),
        ("00000000:18:00.0, 3, 3, No, Not Active, Not Active, Not Active", ["3 uncorrected memory errors"]),
        ("00000000:18:00.0, 0, 0, Yes, Not Active, Not Active, Not Active", ["waits to be retired"]),
        ("00000000:18:00.0, 0, 0, No, Active, Not Active, Active", ["slows it down", "power brake"]),
        ("00000000:18:00.0, 0, 0, No, Active, Active, Not Active", ["slows it down", "too hot"]),
        ("No devices were found", []),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver, alas, a, b, c, d, e, f", []),
        ("", []),
    ],
)
def test_a_row_of_a_gpu(row: str, phrases: list[str]) -> None:
    found = list(of_gpus(table(FIELDS, row)))
    assert len(found) == len(phrases)
    for text, phrase in zip(found, phrases, strict=True):
        assert text.startswith("GPU 00000000:18:00.0: ")
        assert phrase in text


@pytest.mark.parametrize(
    ("row", "phrase"),
    [("00000000:18:00.0, 1, 0", "waits to be remapped"), ("00000000:18:00.0, No, Yes", "could not be remapped")],
)
def test_rows_that_are_remapped(row: str, phrase: str) -> None:
    (found,) = of_gpus(table(ROWS, f"{row}\n00000000:3B:00.0, 0, No\n00000000:86:00.0, [N/A], [N/A]"))
    assert found.startswith("GPU 00000000:18:00.0: ")
    assert phrase in found


def test_the_log_of_the_kernel() -> None:
    assert list(of_log(LOG)) == [
        "GPU 0000:86:00: XID 79 since the node was started (the GPU has fallen off the bus)",
        "GPU 0000:86:00.0: XID 119 since the node was started (its system processor does not answer)",
    ]
    assert set(XIDS) == {48, 63, 64, 74, 79, 92, 94, 95, 119, 120}
    assert list(of_log("")) == []


SMI = """#!/bin/sh
case "$1" in
*clocks_throttle_reasons.hw_power_brake*) echo 'Field "clocks_throttle_reasons.hw_power_brake_slowdown" is not a valid field to query.'; exit 2 ;;
*retired_pages*) echo 'Field "retired_pages.pending" is not a valid field to query.'; exit 2 ;;
--query-gpu=*) echo "00000000:18:00.0, 2, 5, Active, Not Active"; echo "00000000:3B:00.0, 0, 0, Not Active, Not Active" ;;
--query-remapped-rows=*) echo "00000000:18:00.0, 0, 0"; echo "00000000:3B:00.0, 1, 0" ;;
esac
"""  # noqa: E501
LOST = """#!/bin/sh
echo "Unable to determine the device handle for GPU0000:3B:00.0: GPU is lost.  Reboot the system to recover this GPU"
exit 15
"""


def programs(folder: Path, **texts: str) -> str:
    folder.mkdir()
    for name, text in texts.items():
        (folder / name.replace("_", "-")).write_text(text)
        (folder / name.replace("_", "-")).chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_what_the_programs_of_a_node_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields that this version does not know are left out, a log that may not be read too."""
    monkeypatch.setenv("PATH", programs(tmp_path / "a", nvidia_smi=SMI, dmesg="#!/bin/sh\nexit 1\n",
                                        journalctl=f"#!/bin/sh\ncat <<'END'\n{LOG}\nEND\n"))  # fmt: skip
    found, lifetime = gpu_faults()
    assert found == [
        "GPU 00000000:18:00.0: 2 uncorrected memory errors since the driver started",
        "GPU 00000000:18:00.0: its hardware slows it down",
        "GPU 00000000:3B:00.0: a memory row waits to be remapped: reset the GPU",
        *of_log(LOG),
    ]
    assert lifetime == {"00000000:18:00.0": "5", "00000000:3B:00.0": "0"}
    quiet = "#!/bin/sh\nexit 1\n"
    monkeypatch.setenv("PATH", programs(tmp_path / "b", nvidia_smi=LOST, dmesg=quiet, journalctl=quiet))
    assert gpu_faults()[0] == [
        "Unable to determine the device handle for GPU0000:3B:00.0: GPU is lost.  Reboot the system to recover this GPU"
    ]
    noise = "#!/bin/sh\nprintf '\\000\\377,,\\n'\nexit 9\n"
    monkeypatch.setenv("PATH", programs(tmp_path / "c", nvidia_smi=noise, dmesg=quiet, journalctl=quiet))
    assert gpu_faults() == ([], {})


def test_programs_that_hang_do_not_hold_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bingo.launch.job.gpu_faults.ANSWER_S", 0.5)
    hangs = "#!/bin/sh\necho $0 >> $0.asked\nexec sleep 600\n"
    monkeypatch.setenv("PATH", programs(tmp_path / "a", nvidia_smi=SMI, dmesg=hangs, journalctl=hangs))
    gpu_faults()
    asked = [path.name for path in (tmp_path / "a").glob("*.asked")]
    assert len(asked) <= 1, "no question once the time is over"
    monkeypatch.setenv("PATH", programs(tmp_path / "b", nvidia_smi=hangs))
    assert gpu_faults() == ([], {})


def test_a_node_without_such_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_faults() == ([], {})
    (tmp_path / "dmesg").write_text(f"#!{os.sep}bin/sh\nexit 3\n")
    assert gpu_faults() == ([], {})
