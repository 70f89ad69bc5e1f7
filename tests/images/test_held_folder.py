"""A folder has one writer, and a new one that stays empty goes again."""

from pathlib import Path

import pytest

from bingo.errors import TransientError, UserError
from bingo.images.held_folder import held_folder

pytestmark = pytest.mark.quick


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with held_folder(tmp_path / "out", "pack"):
        with (
            pytest.raises(TransientError, match=r"another pack is writing .*/out now"),
            held_folder(tmp_path / "out", "pack"),
        ):
            pass
        (tmp_path / "out/kept").touch()
    with held_folder(tmp_path / "out", "pack"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "kept"]


def test_what_stays_empty_goes_and_temporaries_of_killed_writers_too(tmp_path: Path) -> None:
    with held_folder(tmp_path / "new", "pack"):
        assert (tmp_path / "new").is_dir()
    (tmp_path / "old").mkdir()
    (tmp_path / "old/.index.npz.other-host-77-0011aabb.tmp").touch()
    with held_folder(tmp_path / "old", "pack"):
        assert not list((tmp_path / "old").iterdir())
    assert [path.name for path in tmp_path.rglob("*")] == ["old"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"cannot write the folder .*/file/out: Not a directory; choose"),
        held_folder(tmp_path / "file/out", "pack"),
    ):
        pass
