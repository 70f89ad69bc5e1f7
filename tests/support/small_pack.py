"""Packs of a small folder with small flat files, also such as are killed at a moment of their own."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from bingo.files import hash_file
from bingo.images.dataset import Dataset
from bingo.images.pack import pack_folder
from tests.support import bad_images

SMALL = 20_000  # bytes in a flat file: three or four of the images below
KILLED = """
    import os, signal, sys
    from pathlib import Path
    import bingo.images.pack

    source, out, moment = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    real, renamed = os.replace, 0
    bingo.images.pack.SAVE_SECONDS = 1000.0 if moment == "unsaved" else 0.0

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def replace(old, new):
        global renamed
        name = os.path.basename(str(new))
        if (moment, name) in (("index", "index.npz"), ("verdicts", "verdicts.json")):
            die()
        real(old, new)
        renamed += name.startswith("images-")
        if moment == "rename" and renamed == 1:
            die()

    os.replace = replace
    bingo.images.pack.pack_folder(
        source, out, workers=1, convert=True, allow_bad=True, shard_gib=SMALL / 2**30,
        advance=lambda done, total: done == 8 and moment in ("images", "unsaved") and die(),
    )
"""


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hash_file(path) for path in folder.iterdir()}


def mixed_folder(folder: Path, first: int = 0) -> Path:
    """18 sound, bad and convertible files in turn; no JPEG, so that no decoding process is started to judge them."""
    files = {}
    for number in range(18):
        data = bad_images.png(first + number)
        if number % 5 == 1:
            data = bad_images.encode(bad_images.picture(first + number).convert("RGBA"), "PNG")
        files[f"{'ab'[number // 9]}/{number:02d}.png"] = data[:-9] if number % 7 == 4 else data
    return bad_images.write(folder, files)


def small_pack(source: Path, out: Path, **options: Any) -> Dataset:
    lenient = {"convert": True, "allow_bad": True, "workers": 1}
    return pack_folder(source, out, **lenient | options, shard_gib=SMALL / 2**30)


def killed_pack(source: Path, out: Path, moment: str) -> None:
    program = textwrap.dedent(KILLED).replace("SMALL", str(SMALL))
    killed = subprocess.run([sys.executable, "-c", program, source, out, moment], timeout=900)
    assert killed.returncode == -signal.SIGKILL


def looked_at(source: Path, out: Path, **options: Any) -> list[int]:
    """How far a pack was at each file that it looked at."""
    seen: list[int] = []
    small_pack(source, out, advance=lambda done, total: seen.append(done), **options)
    return seen
