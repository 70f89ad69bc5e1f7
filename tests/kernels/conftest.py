"""Every op's test has a GPU, and fresh memory full of poison."""

from typing import Any

import pytest

from tests.support.poison import poison_fresh_memory


@pytest.fixture(autouse=True)
def fresh_memory(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    poison_fresh_memory(monkeypatch)
