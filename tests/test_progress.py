"""Progress bars: on a terminal only."""

import io
import sys

import pytest

from bingo.progress import progress_bar

pytestmark = pytest.mark.quick


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "show", "drawn"), [(Terminal, True, True), (Terminal, False, False), (io.StringIO, True, False)]
)
def test_a_bar_where_there_is_a_terminal(
    stream: type[io.StringIO], show: bool, drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    with progress_bar("reading", start=1, show=show) as advance:
        advance(2, 5)
        advance(3)
    written = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert bool(written) is drawn
    assert ("reading" in written and "3/5" in written) is drawn
