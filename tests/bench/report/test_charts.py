"""Panels follow light and dark pages, keep their text, and are the same each time."""

import re

import numpy as np

from bingo.bench.drawing import THEME, standalone
from bingo.bench.report.charts import Bar, Chart, Dot, Line, Span, dots, lines, number, short, thinned, timeline


def forest() -> Chart:
    rows = [Dot("<b>ours</b>", 1.5, (1.4, 1.7), (1.4, 1.6)), Dot("x" * 60, 0.9)]
    return dots("a title " * 9, rows, 'alt "<x>"', label="times release " * 6, band=0.1, at=1.0, logarithmic=True)


def test_a_panel_is_text_in_the_colours_of_the_page() -> None:
    svg = forest().svg
    assert svg.startswith('<svg role="img" aria-label="alt &quot;&lt;x&gt;&quot;" viewBox="0 0 288 ')
    assert "&lt;b&gt;ours&lt;/b&gt;" in svg
    assert "<b>" not in svg
    assert f"{'x' * 19}…{'x' * 19}" in svg
    assert not [colour for colour in THEME if colour in svg]
    assert {"var(--text)", "var(--soft)", "var(--page)"} <= set(re.findall(r"var\(--\w+\)", svg))
    assert not re.search(r"https?:|url\((?!#)|<script|<image|font-family", svg)


def test_ids_are_there_only_where_they_are_used_and_the_same_each_time() -> None:
    svg = forest().svg
    used = set(re.findall(r'(?:href="|url\()#([\w-]+)', svg))
    assert used
    assert set(re.findall(r' id="([^"]+)"', svg)) == used
    assert forest().svg == svg


def test_alone_it_brings_its_two_palettes() -> None:
    text = standalone(forest().svg)
    assert text.startswith('<svg xmlns="http://www.w3.org/2000/svg" width="288pt" height="')
    assert "@media(prefers-color-scheme:dark)" in text
    assert set(re.findall(r"var\((--\w+)\)", text)) <= set(re.findall(r"(--\w+):", text))


def test_curves_and_time_lines_are_drawn() -> None:
    x = np.arange(1.0, 1001.0)
    one = Line("loss", x, x, "#2f81d8", [(x, x + 1)], (x - 1, x + 1))
    drawn = lines("loss", [one, Line("other", x, 2 * x, "#d97706", dots=True)], "alt", across={"teacher": 3.0})
    assert {">loss<", ">other<", ">teacher<"} <= set(re.findall(r">[^<>]+<", drawn.svg))
    assert len(thinned(1000)) == 400
    assert (thinned(3).tolist(), thinned(0).tolist()) == ([0, 1, 2], [])
    colours = {"queued": "#808080", "training": "#2f81d8", "never": "#000001"}
    bar = Bar("job", [Span(0, 1, "queued"), Span(1, 3, "training")], [(3, "hang")], "hang")
    drawn = timeline("jobs", [bar], colours, "alt", label="hours")
    assert {">queued<", ">training<", ">hang<", ">job<"} <= set(re.findall(r">[^<>]+<", drawn.svg))
    assert "never" not in drawn.svg, "kinds that do not occur are not in the legend"


def test_numbers_and_names_are_short() -> None:
    assert [number(value) for value in (0.015, 61_440, 2.3e6, 9.9e11)] == ["0.015", "61.44k", "2.3M", "990G"]
    assert short("a name") == "a name"
    assert len(short("n" * 100)) <= 40
