"""Figures as the reports and the benchmarks draw them, and SVGs that follow light and dark pages."""

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bingo.errors import UserError

MISSING = "matplotlib and jinja2 are needed for a report ({}); type `pip install 'bingo-distill[report]'`"
INK, SOFT, GRID, PAGE = "#222222", "#5c6370", "#e6e6e6", "#ffffff"
THEME = {INK: "--text", SOFT: "--soft", GRID: "--line", PAGE: "--page"}
"""Colours of everything but data -> the variable of the page that stands for them in an SVG."""
FONT = "'DejaVu Sans',Verdana,sans-serif"
"""Text is laid out in the first; the others are hardly wider."""
VARIABLES = (
    f"text{{font-family:{FONT};paint-order:stroke;stroke:var(--page);stroke-width:2.5px}}"
    ":root{--text:#1c1e21;--soft:#5c6370;--line:#e3e5e9;--page:#ffffff}"
    "@media(prefers-color-scheme:dark){:root{--text:#e6e8eb;--soft:#9aa3af;--line:#363b43;--page:#16181c}}"
)
"""The same variables for an SVG that stands alone."""


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
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor"), INK),
        **dict.fromkeys(("xtick.color", "ytick.color"), INK),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(settings):
        chart: Any = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        chart.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
        yield chart


def svg_text(chart: Any, alt: str) -> str:
    """The chart as an `<svg>` element for a page: its text stays text, and ink, grid and background are variables.

    Without a date, and ids are of the content: the same chart gives the same text. alt: what a screen reader says.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        chart.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"| version="[^"]*"| (width|height)="[\d.]+pt"', "", text)
    text = text.replace("xlink:href", "href")
    for colour, variable in THEME.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"font-family: [^;]*; ", "", text)  # the page's, see `FONT`
    used = set(re.findall(r"#([\w-]+)[\")]", text))
    text = re.sub(r' id="([\w.-]+)"', lambda found: found[0] if found[1] in used else "", text)
    text = re.sub(r"\s*\n\s*", " ", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1).strip()


def standalone(svg: str) -> str:
    """An `<svg>` element of `svg_text` as a file of its own, in light or dark as the reader's screen is."""
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    width, height = (size[1], size[2]) if size else ("100%", "100%")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}pt" height="{height}pt"'
    ground = f'<style>{VARIABLES}</style><rect width="100%" height="100%" fill="var(--page)"/>'
    return f"{svg.replace('<svg', head, 1).replace('>', f'>{ground}', 1)}\n"
