"""Figures as the report and the kernel benchmark draw them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bingo.errors import UserError

MISSING = "matplotlib and jinja2 are needed for a report ({}); type `pip install 'bingo-distill[report]'`"


@contextmanager
def figure(width: float, height: float) -> Iterator[Any]:
    """A matplotlib Figure (inches) without pyplot; names are drawn as they are, never parsed as mathematics.

    `UserError` where matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(MISSING.format(error)) from None
    settings = {
        "text.parse_math": False,
        "svg.hashsalt": "bingo",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e6e6e6",
        "legend.frameon": False,
    }
    with matplotlib.rc_context(settings):
        chart: Any = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        chart.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
        yield chart
