"""The README's picture: the table of the demo in docs/results.md as dots with 95 % intervals.

python -m bingo.bench.report.demo_picture docs/results.md docs/result.svg
"""

import math
import re
import sys
from pathlib import Path

from bingo.bench.drawing import figure, standalone, svg_text
from bingo.bench.report.charts import Dot, draw_dots
from bingo.bench.report.pictures import COLOURS_OF
from bingo.bench.report.statistics import t_quantile
from bingo.errors import UserError

ROW = re.compile(r"^\| (?P<name>[^|]+?) \| (?P<cells>[\d. ]+ ± [\d. ]+(?:\| [\d. ]+ ± [\d. ]+)*)\|$", re.MULTILINE)
SEEDS = re.compile(r"mean and standard deviation over (\d+) seeds")
ARMS = {"no teacher": "no teacher", "random": "random bags", "nearest": "kNN bags", "label": "label bags"}
"""Word of a row's name -> the name in the picture."""
TITLES = ("few-label accuracy, %", "kNN accuracy, %")


def rows_of(text: str) -> dict[str, list[tuple[float, float]]]:
    """Arm -> (mean, half of its 95 % interval) per column, from means ± standard deviations over n seeds.

    `UserError` where the page has no such table.
    """
    part = text.partition("## The demo")[2]
    seeds = SEEDS.search(part)
    found: dict[str, list[tuple[float, float]]] = {}
    for match in ROW.finditer(part.partition("\n### ")[0]):
        name = next((shown for word, shown in ARMS.items() if word in match["name"]), None)
        if name and seeds:
            error = t_quantile(int(seeds[1]) - 1) / math.sqrt(int(seeds[1]))
            cells = [cell.split("±") for cell in match["cells"].split("|")]
            found[name] = [(float(mean), error * float(std)) for mean, std in cells]
    if len(found) < len(ARMS):
        raise UserError("this page has no table of the demo with all four arms; give docs/results.md")
    return found


def draw(text: str) -> str:
    """The picture as the text of an SVG file."""
    found = rows_of(text)
    colours = dict(zip(ARMS.values(), COLOURS_OF.values(), strict=True))
    with figure(8.0, 2.7) as chart:
        for column, (axes, title) in enumerate(zip(chart.subplots(1, 2), TITLES, strict=True)):
            rows = [
                Dot(name, mean, (mean - half, mean + half), colour=colours[name])
                for name, values in found.items()
                for mean, half in [values[column]]
            ]
            draw_dots(axes, title, rows)
        words = "; ".join(f"{name} {values[0][0]} and {values[1][0]} %" for name, values in found.items())
        return standalone(svg_text(chart, f"few-label and kNN accuracy: {words}"))


def main() -> None:
    page, picture = map(Path, sys.argv[1:3])
    picture.write_text(draw(page.read_text()))


if __name__ == "__main__":
    main()
