"""Headers of tar files are walked, not believed: places as tar has them, hostile sizes refused in one sentence."""

import os
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.images.listing import NO_FILE
from bingo.images.tar_members import members, open_tar
from tests.support.bad_images import jpeg, png
from tests.support.tars import END, header, hostile_tars, member, pax, write_tar

pytestmark = pytest.mark.quick
HOSTILE = hostile_tars()


def found(path: Path) -> list[tuple[str, int, int]]:
    with open_tar(path) as file:
        return [tuple(entry) for entry in members(path, file)]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_where_python_finds_them(form: int, tmp_path: Path) -> None:
    long = "d" * 80 + "/" + "n" * 60
    names = ["a/0.png", "plain", f"{long}.jpg"]
    if form != tarfile.USTAR_FORMAT:
        names += ["x" * 300 + "/ü.jpg", "bytes/\udcff.jpg"]
    path = write_tar(
        tmp_path / "a.tar", {name: png(seed)[: 700 + seed] for seed, name in enumerate(names)}, format=form
    )
    with tarfile.open(path) as tar:
        expected = [(entry.name, entry.offset_data, entry.size) for entry in tar]
    assert found(path) == expected
    assert [name for name, _, _ in expected] == names


def test_a_size_and_a_name_of_pax_records_count(tmp_path: Path) -> None:
    data = jpeg()
    records = pax(path="b/ä.jpg".encode(), size=b"%d" % len(data), hdrcharset=b"BINARY")
    body = data + bytes(-len(data) % 512)
    everywhere = member("g", pax(comment=b"of git archive"), b"g")
    (tmp_path / "a.tar").write_bytes(everywhere + member("p", records, b"x") + header("short") + body + END)
    assert found(tmp_path / "a.tar") == [("b/ä.jpg", 2560, len(data))]


def test_links_sparse_files_and_devices_are_no_plain_files(tmp_path: Path) -> None:
    sparse = pax(GNU__sparse__major=b"1", GNU__sparse__minor=b"0", GNU__sparse__name=b"a/s.jpg")
    (tmp_path / "a.tar").write_bytes(
        b"".join(header(f"a/{kind.decode()}.jpg", 512, kind) for kind in (b"1", b"2", b"3", b"6"))
        + header("a/folder", 0, b"5")
        + header("a/S.jpg", 512, b"S", {482: b"\1"}) + bytes(512) + bytes(512)
        + member("p", sparse, b"x") + member("a/1.jpg", b"no map\n" * 80)
        + END
    )  # fmt: skip
    assert [(name, size) for name, _, size in found(tmp_path / "a.tar")] == [
        *((f"a/{kind}.jpg", NO_FILE) for kind in ("1", "2", "3", "6", "S")),
        ("a/s.jpg", NO_FILE),
    ]


def test_names_are_those_that_tar_extracts(tmp_path: Path) -> None:
    names = {"/etc/a.jpg": "etc/a.jpg", "./a/./b.jpg": "a/b.jpg", "../../x.jpg": "x.jpg", "a/../../b/c.jpg": "b/c.jpg"}
    names |= {"//r.jpg": "r.jpg", "..": "", "/": "."}
    content = b"".join(member(name, b"") for name in names) + END
    (tmp_path / "a.tar").write_bytes(content)
    extracted = [name for name, _, _ in found(tmp_path / "a.tar")]
    assert extracted == list(names.values())


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.tar"
    path.write_bytes(HOSTILE[name][0])
    with pytest.raises(UserError) as refused:
        found(path)
    assert HOSTILE[name][1] in str(refused.value)
    assert str(path) in str(refused.value)


def test_pipes_and_what_is_gone_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    (tmp_path / "b.tar").symlink_to("b.tar")
    expected = {"a.tar": "is not a regular file", "b.tar": "Too many levels", "c.tar": "No such file"}
    for name, message in expected.items():
        with pytest.raises(UserError, match=message):
            open_tar(tmp_path / name)


def test_hostile_tars_end_the_command_within_a_gigabyte(tmp_path: Path) -> None:
    """Each with exit status 2 and one line; 4 TiB of nothing and a file of 40 GiB in a hole too."""
    for name, (data, _) in HOSTILE.items():
        (tmp_path / f"{name}.tar").write_bytes(data)
    with open(tmp_path / "nothing.tar", "wb") as file:
        file.truncate(1 << 42)
    with open(tmp_path / "label.tar", "wb") as file:
        file.write(header("a/x.cls", 40 << 30))
        file.truncate(512 + (40 << 30) + 1024)
    program = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from bingo.cli import main
        import bingo.images.check
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + (1 << 30),) * 2)
        for path in sorted(Path(sys.argv[1]).glob("*.tar")):
            print("bingo", path.name, main(["check", str(path)]), file=sys.stderr, flush=True)
    """)
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=600)
    lines = done.stderr.splitlines()
    assert done.returncode == 0, done.stderr
    assert len(lines) == 2 * (len(HOSTILE) + 2)
    assert {line.rpartition(" ")[2] for line in lines[1::2]} == {"2"}
    assert all(line.startswith("bingo check: ") for line in lines[::2])
