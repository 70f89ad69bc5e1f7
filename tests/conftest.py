"""Shared by all tests: a GPU for Triton's kernels, tiny packed datasets, a small teacher, a Slurm."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cluster.slurm import Cluster, missing
from tests.support.inputs import make_bags, make_digits, make_teacher
from tests.support.on_gpu import REAL, of_file, on_gpu

pytest_plugins = ["tests.support.sampled"]
if not REAL:
    # On a GPU a kernel's first launch compiles it, in whichever test comes first.
    pytest_plugins += ["tests.support.cpu_limit"]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`-m quick` reads only the files with such a test: the others would import torch and have nothing to run."""
    if config.option.markexpr == "quick" and collection_path.match("test_*.py"):
        return "mark.quick" not in collection_path.read_text() or None
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Among several workers, the files with most slow tests first: no core waits for the end of a long one.

    Those that wait for Slurm take turns with the others, so that the other worker has the core.
    """
    if hasattr(config, "workerinput"):
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        waits = {item.path for item in items if item.get_closest_marker("slurm")}
        parts = [sorted(part, key=lambda path: (-slow[path], path)) for part in (waits, {*slow} - waits)]
        place = {path: at for part in parts for at, path in enumerate(part)}
        items.sort(key=lambda item: (place.get(item.path, len(items)), item.path not in waits))


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> Iterator[Any]:
    """For tests that launch Triton's kernels: a real GPU (then None), or a pretended one that takes CPU tensors."""
    with on_gpu(getattr(request, "param", None) or of_file(request.path)) as pretended:
        yield pretended


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo data as image folders (images/train, images/val) and packed (train, val)."""
    root = tmp_path_factory.mktemp("digits")
    make_digits(root)
    return root


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with random weights: tiny-8 with 16-d keys."""
    path = tmp_path_factory.mktemp("teacher") / "model.pt"
    make_teacher(path)
    return path


@pytest.fixture(scope="session")
def bags(tmp_path_factory: pytest.TempPathFactory, digits: Path, teacher: Path) -> Path:
    """kNN bags of the training digits under `teacher`, through the real stages."""
    return make_bags(tmp_path_factory.mktemp("bags"), digits, teacher)


@pytest.fixture(scope="session")
def slurm_installed() -> None:
    """Skips where no Slurm can be started, with the reason; fails where CI wants one."""
    if reason := missing():
        if os.environ.get("BINGO_REQUIRE_SLURM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def session_cluster(slurm_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes of a real Slurm; every process of pytest-xdist starts one of its own."""
    with Cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def cluster(session_cluster: Cluster) -> Cluster:
    """The same, without jobs, all of its nodes idle: for tests marked `slurm`."""
    session_cluster.run("scancel", "--quiet", "--user=root", check=False)
    session_cluster.wait_idle()
    return session_cluster


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six images in two classes; PNGs, since the first JPEG of a process costs an import of torch."""
    for at in range(6):
        path = tmp_path / "source" / f"class{at % 2}" / f"{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (40 * at, 0, 99)).save(path)
    return tmp_path / "source"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two splits of a dataset as far as listing goes."""
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
    return tmp_path / "images"
