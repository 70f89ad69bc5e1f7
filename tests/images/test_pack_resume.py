"""A pack that is killed or refused goes on to the same bytes; damage is found again."""

from pathlib import Path

import pytest

from bingo.cli import main
from bingo.errors import UserError
from bingo.images.open import open_dataset
from tests.support import bad_images
from tests.support.small_pack import contents, killed_pack, looked_at, mixed_folder, small_pack

MOMENTS = {"unsaved": 18, "images": 10, "rename": 0, "index": 0, "verdicts": 0}  # -> files left to look at


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_pack_goes_on_to_the_same_bytes(tmp_path: Path, moment: str) -> None:
    source, out = mixed_folder(tmp_path / "images"), tmp_path / "packed"
    expected = small_pack(source, tmp_path / "expected")
    assert len(list(expected.path.glob("*.bin"))) > 4
    killed_pack(source, out, moment)
    seen: list[int] = []
    packed = small_pack(source, out, advance=lambda done, total: seen.append(done))
    assert len(seen) == MOMENTS[moment]
    assert contents(out) == contents(expected.path)
    assert packed.verify() == []


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_leaves_the_old_dataset(tmp_path: Path, moment: str) -> None:
    source, out = mixed_folder(tmp_path / "images"), tmp_path / "packed"
    old = small_pack(source, out)
    mixed_folder(source, first=20)
    killed_pack(source, out, moment)
    reopened = open_dataset(out)
    assert (reopened.hash == old.hash) == (moment != "verdicts")  # by then the new index is in place
    assert reopened.verify() == []
    assert small_pack(source, out).hash != old.hash
    assert contents(out) == contents(small_pack(source, tmp_path / "expected").path)


@pytest.mark.parametrize("moment", ["images", "rename"])
def test_a_killed_pack_of_a_changed_folder_starts_afresh(tmp_path: Path, moment: str) -> None:
    source, out = mixed_folder(tmp_path / "images"), tmp_path / "packed"
    killed_pack(source, out, moment)
    (source / "a/00.png").write_bytes(bad_images.png(99))
    assert looked_at(source, out) == list(range(1, 19))
    assert contents(out) == contents(small_pack(source, tmp_path / "expected").path)


@pytest.mark.slow
def test_a_refused_pack_goes_on_with_the_flags(tmp_path: Path) -> None:
    """With --allow-bad nothing is looked at again, with --convert only what it changes; the bytes are the same."""
    source, out = mixed_folder(tmp_path / "images"), tmp_path / "packed"
    bad_images.write(source, {"c/slow.jpg": bad_images.jpeg(progressive=True), "c/fast.jpg": bad_images.jpeg()})
    expected = contents(small_pack(source, tmp_path / "expected").path)
    with pytest.raises(UserError, match="5 of 20 images"):
        small_pack(source, out, convert=False, allow_bad=False)
    with pytest.raises(UserError, match="3 of 20 images"):
        looked_at(source, out, convert=False)
    assert looked_at(source, out) == [17, 18, 19, 20]  # three with alpha, one progressive
    assert contents(out) == expected


def test_damage_is_named_and_ends_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = small_pack(mixed_folder(tmp_path / "images"), tmp_path / "packed")
    assert main(["pack", "--verify", str(packed.path), "--workers", "2"]) == 0
    assert capsys.readouterr().out == f"{packed.path}: {len(packed)} images, 0 damaged\n"
    for index in (2, 9):
        data = packed.encoded(index).tobytes()
        file = next(file for file in packed.path.glob("*.bin") if data in file.read_bytes())
        whole = file.read_bytes()
        at = whole.index(data) + 50
        file.write_bytes(bad_images.with_byte(whole, at, whole[at] ^ 1))
    assert main(["pack", "--verify", str(packed.path)]) == 1
    *named, total = capsys.readouterr().out.splitlines()
    assert named == [f"{'damaged':12s} {packed.paths[index]}" for index in (2, 9)]
    assert total == f"{packed.path}: {len(packed)} images, 2 damaged; pack them again"
    file.unlink()
    assert main(["pack", "--verify", str(packed.path)]) == 2
    assert "is missing, the index beside it refers to it" in capsys.readouterr().err
