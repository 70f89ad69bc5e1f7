"""The diagram of the kernels: no text leaves its box or the page, in a wide font too."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.ranks import ROOT

NS = "{http://www.w3.org/2000/svg}"
WIDER = 1.06
"""Than DejaVu Sans, which is among the widest that stand for `sans-serif`."""
Box = tuple[float, float, float, float]


def texts(svg: ElementTree.Element) -> Iterator[tuple[ElementTree.Element, float, str, bool]]:
    """Every text, its font size, its anchor, whether it is bold: attributes of groups hold for what is in them."""

    def walk(
        node: ElementTree.Element, size: float, anchor: str, bold: bool
    ) -> Iterator[tuple[ElementTree.Element, float, str, bool]]:
        size, anchor = float(node.get("font-size", size)), node.get("text-anchor", anchor)
        bold = bold or node.get("font-weight") == "bold"
        if node.tag == f"{NS}text":
            yield node, size, anchor, bold
        for inner in node:
            yield from walk(inner, size, anchor, bold)

    return walk(svg, 16.0, "start", False)


def test_every_text_stays_in_its_box() -> None:
    mpl = pytest.importorskip("matplotlib")
    from PIL import ImageFont

    fonts = Path(mpl.get_data_path()) / "fonts" / "ttf"
    svg = ElementTree.parse(ROOT / "kernels" / "queue_softmax.svg").getroot()
    boxes: list[Box] = [
        (x, y, x + float(rect.get("width", 0)), y + float(rect.get("height", 0)))
        for rect in svg.iter(f"{NS}rect")
        for x, y in [(float(rect.get("x", 0)), float(rect.get("y", 0)))]
    ]
    found = list(texts(svg))
    assert len(found) > 50
    for text, size, anchor, bold in found:
        font = ImageFont.truetype(fonts / f"DejaVuSans{'-Bold' * bold}.ttf", 100)
        width = WIDER * size * font.getlength(text.text or "") / 100
        x, y = float(text.get("x", 0)), float(text.get("y", 0))
        left = x - width / 2 if anchor == "middle" else x
        around = min((b for b in boxes if b[0] <= x <= b[2] and b[1] <= y <= b[3]), key=lambda b: b[2] - b[0])
        assert around[0] <= left, text.text
        assert left + width <= around[2], f"{text.text!r} reaches {left + width:.0f}, its box ends at {around[2]:.0f}"
