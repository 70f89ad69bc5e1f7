"""The demo's digits: counts, split, labels and pixels against scikit-learn, and all-or-nothing writing."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bingo.errors import UserError
from bingo.files import hash_file
from bingo.images.demo_data import DIGITS, split, write_digits

pytestmark = pytest.mark.quick

datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "digits"
    assert write_digits(out) == {"train": 1078, "val": 719}
    return out


def files(out: Path) -> dict[str, str]:
    return {path.relative_to(out).as_posix(): hash_file(path) for path in out.rglob("*.*") if path.is_file()}


def test_every_digit_is_there_once_under_its_label(digits: Path) -> None:
    target = datasets.load_digits().target
    images = list(digits.glob("*/*/*.jpg"))
    assert len(images) == 1797
    assert sorted(int(path.stem) for path in images) == list(range(1797))
    for path in images:
        assert int(path.parent.name) == target[int(path.stem)]
    assert len(list(digits.glob("train/*/*.jpg"))) == 1078


def test_the_split_is_stratified() -> None:
    target = datasets.load_digits().target
    val = split(target)
    assert val.sum() == 719
    for digit in range(10):
        assert abs(val[target == digit].sum() - (target == digit).sum() * 719 / 1797) <= 1
    assert abs(np.flatnonzero(val).mean() - 898) < 30  # spread over the writers, who come in order


def enlarging(size: int) -> np.ndarray:
    """Keys' cubic convolution (a = -1/2) from 8 samples to `size`, as a matrix; weights outside are dropped."""
    distance = np.abs((np.arange(size)[:, None] + 0.5) * 8 / size - 0.5 - np.arange(8))
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def test_pixels_are_the_digit_enlarged(digits: Path) -> None:
    source, enlarge = datasets.load_digits().images, enlarging(32)
    for path in sorted(digits.glob("val/*/*.jpg"))[::100]:
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (32, 32))
            assert image.layer[1][1:3] == (1, 1)  # 4:4:4
            pixels = np.asarray(image).astype(float)
        expected = np.clip(enlarge @ (source[int(path.stem)] * 255 / 16) @ enlarge.T, 0, 255)
        assert np.abs(pixels - expected[..., None]).mean() < 2  # of 255: what quality 95 costs


def test_two_writes_are_identical_and_a_second_one_does_nothing(digits: Path, tmp_path: Path) -> None:
    write_digits(tmp_path / "again")
    assert files(tmp_path / "again") == files(digits)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]
    before = {path: path.stat().st_mtime_ns for path in digits.rglob("*")}
    assert write_digits(digits) == {"train": 1078, "val": 719}
    assert {path: path.stat().st_mtime_ns for path in digits.rglob("*")} == before


def test_an_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/a.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    for name in ("letters", "file"):
        with pytest.raises(UserError, match="already exists and is not a folder of demo digits"):
            write_digits(tmp_path / name)

    out = tmp_path / "digits"
    out.mkdir()  # an empty folder is as good as none
    write_digits(out, size=8)
    with pytest.raises(UserError, match="is not the demo digits at 32 pixels"):
        write_digits(out)
    next(out.glob("val/3/*.jpg")).unlink()
    with pytest.raises(UserError, match="is not complete or was changed"):
        write_digits(out, size=8)
    (out / DIGITS.manifest).write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        write_digits(out, size=8)


@pytest.mark.parametrize("size", [7, 1025])
def test_sizes_out_of_range(tmp_path: Path, size: int) -> None:
    with pytest.raises(UserError, match="choose a size between 8 and 1024"):
        write_digits(tmp_path / "digits", size=size)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))

    program = """
        import sys
        from pathlib import Path
        from bingo.images.demo_data import write_digits
        from bingo.errors import UserError
        try:
            write_digits(Path(sys.argv[1]))
        except UserError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "digits")]
    full = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, timeout=900)
    assert full.stdout.startswith(f"cannot write {tmp_path / 'digits'}: File too large; free space"), full.stderr
    assert os.listdir(tmp_path) == []


def test_without_scikit_learn_the_extra_is_named(tmp_path: Path) -> None:
    program = """
        import sys
        sys.modules["sklearn"] = None  # what Python itself puts there to make an import fail
        from pathlib import Path
        from bingo.images.demo_data import write_digits
        write_digits(Path(sys.argv[1]))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "digits")]
    failed = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert "UserError: the demo's digits come with scikit-learn" in failed.stderr
    assert "pip install bingo-distill[demo]" in failed.stderr
    assert os.listdir(tmp_path) == []
