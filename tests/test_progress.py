"""How far work is: a bar on a terminal, lines in a log elsewhere."""

import io
import logging
import sys

import pytest

from bingo.progress import FIRST_S, MOST_S, Due, progress_bar

pytestmark = pytest.mark.quick


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("stream", "show", "drawn"), [(Terminal, True, True), (Terminal, False, False), (io.StringIO, True, False)]
)
def test_a_bar_where_there_is_a_terminal(
    stream: type[io.StringIO], show: bool, drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setenv("COLUMNS", "120")
    clock = Clock()
    with progress_bar("reading", start=1, show=show, images=10, clock=clock) as advance:
        clock.now += 2
        advance(2, 5, note="loss 2.5")
        advance(3, note="loss [1.5]")
    written = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert bool(written) is drawn
    assert ("reading" in written and "3/5" in written) is drawn
    assert ("2 s left, loss [1.5], 10 images/s" in written) is drawn


@pytest.mark.parametrize("stream", [io.StringIO, lambda: None])
def test_lines_where_there_is_none(
    stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also with a standard error that was closed before the start (None)."""
    caplog.set_level(logging.INFO, "bingo")
    monkeypatch.setattr(sys, "stderr", stream())
    clock = Clock()
    with progress_bar("step", 9000, 1000, images=64, clock=clock) as advance:
        for step in range(1000, 1100):
            clock.now += 1
            advance(step + 1, note=f"epoch 1 of 9, loss {step}")
    assert [record.getMessage() for record in caplog.records] == [
        "step 1030 of 9000, epoch 1 of 9, loss 1029, 64 images/s, 2.2 h left",
        "step 1060 of 9000, epoch 1 of 9, loss 1059, 64 images/s, 2.2 h left",
        "step 1090 of 9000, epoch 1 of 9, loss 1089, 64 images/s, 2.2 h left",
    ]


def test_a_line_says_what_it_counts(caplog: pytest.LogCaptureFixture) -> None:
    """The total may become known on the way; a step that takes longer than a line is told when it ends."""
    caplog.set_level(logging.INFO, "bingo")
    clock = Clock()
    with progress_bar("features", unit="blocks", clock=clock) as advance:
        clock.now += 40
        advance(4)
        clock.now += 80
        advance(12, 320)
    with progress_bar("quick", clock=clock) as advance:
        advance(1, 1)
    assert [record.getMessage() for record in caplog.records] == [
        "features 4 blocks",
        "features 12 of 320 blocks, 51 min left",
    ]


def test_lines_become_rarer() -> None:
    clock = Clock()
    due, times = Due(clock), []
    for _ in range(20 * 3600):
        clock.now += 1
        if due():
            times.append(clock.now - 1000)
    gaps = [after - before for before, after in zip([0, *times], times, strict=False)]
    assert gaps[0] == FIRST_S
    assert gaps[-1] == MOST_S
    assert gaps == sorted(gaps)
    assert len(times) < 400
