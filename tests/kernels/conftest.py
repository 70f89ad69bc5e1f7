"""Every op's test runs with fresh memory full of poison."""

import pytest

from tests.support.poison import poison_fresh_memory


@pytest.fixture(autouse=True)
def fresh_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    poison_fresh_memory(monkeypatch)
