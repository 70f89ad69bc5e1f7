"""One check of a folder with every kind of file, for all files of this folder."""

import os
import socket

import pytest

from bingo.images.check import check_folder
from bingo.images.verdicts import Verdicts
from tests.support import bad_images
from tests.support.checked_folder import BAD, CONVERTIBLE, SOUND


@pytest.fixture(scope="session")
def result(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """One check of a folder that holds every kind."""
    root = tmp_path_factory.mktemp("kinds")
    bad_images.write(root / "bad", {name: data for name, (data, _) in BAD.items()})
    bad_images.write(root / "odd", {name: data for name, (data, _) in CONVERTIBLE.items()})
    bad_images.write(
        root / "sound", SOUND | {"deep/er/x.png": bad_images.png(9), ".hidden.jpg": b"", "notes.txt": b"a"}
    )
    bad_images.write(root, {"README.md": b"", ".cache/x.jpg": b""})
    (root / "bad" / "link.jpg").symlink_to("nowhere.jpg")
    (root / "bad" / "folder.jpg").mkdir()
    (root / "bad" / "unreadable.png").symlink_to("/proc/self/mem")  # which refuses root too, unlike a permission
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(root / "bad", os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/socket.png")  # the path of a socket must be short
        os.close(here)
    return check_folder(root, workers=2)
