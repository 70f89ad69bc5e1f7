"""Shared by the tests of launching."""

import pytest

from bingo.launch.cluster.site import Cluster, read_site
from tests.support.ranks import ROOT


@pytest.fixture
def cluster() -> Cluster:
    """The site file that the tests of a real Slurm use, as read."""
    return read_site(ROOT / "tests" / "cluster" / "site.toml")
