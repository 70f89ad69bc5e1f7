"""The report's numbers against hand-computed ones, what it shows, and what it refuses."""

import base64
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from bingo.bags.file import label_bags, random_bags
from bingo.bench.report.page import write_report
from bingo.bench.report.recipe import curve_of
from bingo.bench.report.results import compare, load
from bingo.bench.report.summary import evidence, relation, summary_lines
from bingo.errors import UserError
from bingo.images.open import open_dataset
from tests.support.page import Page
from tests.support.recipe_folder import Folder, write_recipe


def test_numbers_equal_those_computed_by_hand(page: Page) -> None:
    # no teacher: 50, 54, 52: standard deviation 2, over sqrt 3, times 4.303. kNN bags: 60, 66, 60.
    work = ["4,096", "4 epochs × 16 steps × 64 images × 1"]
    assert ["no teacher", "3", "52.0 [47.0, 57.0]", "91.0 [88.5, 93.5]", "80.0 [80.0, 80.0]", *work] in page.rows
    work = ["4,096", "2 epochs × 16 steps × 64 images × 2"]
    assert ["kNN bags", "3", "62.0 [53.4, 70.6]", "91.0 [88.5, 93.5]", "80.0 [55.2, 104.8]", *work] in page.rows
    # Differences 10, 12, 8: standard error 2 / sqrt 3 = 1.15, times 4.30 is 4.97. kNN: 0, -1, 1. Linear: -10, 0, 10.
    found = ["+10.0 [+5.0, +15.0]", "+0.0 [−2.5, +2.5]", "+0.0 [−24.8, +24.8]"]
    assert ["kNN bags − no teacher", "3", *found] in page.rows
    # Label bags: -10, -10, -8 in few-label accuracy; +5, +6, +4 in kNN accuracy.
    found = ["−9.3 [−12.2, −6.5]", "+5.0 [+2.5, +7.5]", "+0.0 [−24.8, +24.8]"]
    assert ["label bags − kNN bags", "3", *found] in page.rows
    named = [row for row in page.rows if row[:1] and "random bags" in row[0]]
    assert [len(row) for row in named] == [9], "its bags are described, but it is no arm that was run"


def test_verdicts_are_colours(page: Page) -> None:
    shown = [attributes.get("class", "") for tag, attributes in page.tags if tag == "td"]
    assert [name for name in shown if name in ("better", "worse", "unclear")] == [
        "better",
        "unclear",
        "unclear",
        "worse",
        "better",
        "unclear",
    ]


def test_the_sentence_and_the_lines_say_the_same(written: tuple[str, list[str]], page: Page, root: Path) -> None:
    assert (
        "a tiny student distilled from a tiny-8 teacher with kNN bags reaches 62.0 % few-label accuracy (2 labels per "
        "class), 10.0 points above the same student trained without a teacher at equal student passes (difference "
        "+10.0, 95 % interval [+5.0, +15.0], n = 3: better). Its kNN accuracy is 0.0 points above (difference +0.0, "
        "95 % interval [-2.5, +2.5], n = 3: which holds zero: no clear difference)."
    ) in page.words
    assert written[1] == [
        "no teacher  n = 3  few-label 52.0 [47.0, 57.0] %  kNN 91.0 [88.5, 93.5] %  linear 80.0 [80.0, 80.0] %",
        "kNN bags    n = 3  few-label 62.0 [53.4, 70.6] %  kNN 91.0 [88.5, 93.5] %  linear 80.0 [55.2, 104.8] %",
        "label bags  n = 3  few-label 52.7 [45.1, 60.3] %  kNN 96.0 [93.5, 98.5] %  linear 80.0 [80.0, 80.0] %",
        "teacher     n = 1  few-label 90.0 %               kNN 97.0 %               linear 95.0 %",
        "kNN bags minus no teacher: few-label +10.0 points [+5.0, +15.0], n = 3: better; kNN +0.0 points [-2.5, +2.5], "
        "n = 3: unclear; linear +0.0 points [-24.8, +24.8], n = 3: unclear",
        f"report: {root / 'report.html'}",
    ]


def test_time_and_environment(page: Page) -> None:
    # A teacher, two kinds of bags, and nine students, the teacher and they with evaluations, 30 seconds each.
    assert "660 seconds (11.0 minutes) in all stages together" in page.words
    assert ["distill knn 1", "distill", "2", "30.0 since it resumed at step 16"] in page.rows
    assert ["CPU", "A <fast> CPU, 2 cores, 7.5 GiB of memory"] in page.rows
    assert "Every other stage recorded the same." in page.words
    assert ["optim.epochs", "4", "2", "2"] in page.rows
    assert not [row for row in page.rows if row[:1] in (["out"], ["data"], ["seed"])]


def test_self_contained_small_and_repeatable(written: tuple[str, list[str]], page: Page, tmp_path: Path) -> None:
    html = written[0]
    assert len(html.encode()) < 5_000_000
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "base"})
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert links
    assert all(value.startswith(("data:image/", "#")) for value in links)
    assert not re.search(r"url\((?!#)|@import|https?://", html)
    assert all(attributes["alt"] for attributes in page.images)


def test_the_same_run_gives_the_same_page(written: tuple[str, list[str]], root: Path, tmp_path: Path) -> None:
    write_report(root, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == written[0]


def test_a_page_of_others_is_not_overwritten(root: Path, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<html>years of work</html>")
    with pytest.raises(UserError, match=r"report.html is there and is no page of bingo; move it, or name another file"):
        write_report(root, tmp_path / "report.html")
    assert "years" in (tmp_path / "report.html").read_text()


def test_bags_show_the_packed_bytes_and_frame_other_classes(page: Page, root: Path) -> None:
    dataset = open_dataset(root / "train")
    members = random_bags(len(dataset), 3, 0)
    anchors = [int((i + 0.5) * len(dataset) / 8) for i in range(8)]
    rows = [[anchor, *members[anchor].tolist()] for anchor in anchors]
    shown = [a for a in page.images if a["alt"].startswith(("anchor", "member"))]
    assert len(shown) == 2 * 8 * 4
    for attributes, index in zip(shown, [i for row in rows for i in row], strict=False):
        assert base64.b64decode(attributes["src"].split(",")[1]) == dataset.encoded(index).tobytes()
    other = [bool(dataset.labels[i] != dataset.labels[row[0]]) for row in rows for i in row]
    assert any(other)
    assert ["other" in a["class"].split() for a in shown] == other + [False] * len(other)
    purity = 100 * np.mean(dataset.labels[members] == dataset.labels[:, None])
    assert f"random bags: purity {purity:.1f} %" in page.words
    assert "label bags: purity 100.0 %" in page.words


def test_bags_are_described_beside_chance(page: Page, root: Path) -> None:
    labels = open_dataset(root / "train").labels
    n, members = len(labels), label_bags(labels, 3, 0)
    used = np.bincount(members.ravel(), minlength=n)
    sizes = np.bincount(labels)
    chance = 100 * (sizes * (sizes - 1)).sum() / (n * (n - 1))
    (row,) = [row for row in page.rows if row[0] == "label bags" and len(row) == 9]
    assert row[1:4] == ["100.0", f"{chance:.1f}", str(used.max())]
    assert row[5:7] == [f"{100 * (used == 0).mean():.2f}", f"{100 * (1 - 3 / (n - 1)) ** (n - 1):.2f}"]
    other = random_bags(n, 3, 0)
    common = 100 * np.mean([len(set(a) & set(b)) / 3 for a, b in zip(members.tolist(), other.tolist(), strict=True)])
    charts = [a["aria-label"] for tag, a in page.tags if tag == "svg"]
    (words, again) = [alt for alt in charts if alt.startswith("Share of images by the number of bags")]
    assert words == again
    assert f"random bags and label bags {common:.1f} %" in words
    drawn = [text for text in page.text if text in ("100.0", f"{common:.1f}")]
    assert drawn.count("100.0") >= 2
    assert drawn.count(f"{common:.1f}") >= 2
    assert f"by chance {300 / (n - 1):.2f} %" in page.words


def test_the_charts_name_their_values(page: Page) -> None:
    """In words for those who do not see them, and as text that can be read and searched."""
    charts = [a["aria-label"] for tag, a in page.tags if tag == "svg"]
    assert "few-label accuracy, %: no teacher 52.0, kNN bags 62.0, label bags 52.7, teacher 90.0" in charts
    for title in ("training loss", "learning rate", "own key nearest (top-1), %", "kNN accuracy while training, %"):
        assert title in page.text
        assert [alt for alt in charts if alt.startswith(f"{title}: ")]


def test_curves_count_student_passes(root: Path) -> None:
    found = curve_of(load(root).arms["knn"][1]).series
    passes = [128 * (step + 1) for step in range(32)]
    assert found["loss"][0].tolist() == found["lr"][0].tolist() == passes
    assert np.allclose(found["loss"][1], 5 - 0.01 * np.arange(32))
    assert (found["knn"][0].tolist(), found["knn"][1].tolist()) == ([4096], [0.91])
    assert found["top1"][0].tolist() == [128 * 16, 128 * 32]
    assert "loader_wait" not in found


def test_one_seed_says_so_in_words(tmp_path: Path, digits: Path) -> None:
    root = write_recipe(tmp_path, digits, {"no teacher": [(0.6, 0.9, 0.9)], "knn": [(0.55, 0.9, 0.9)]})
    assert summary_lines(load(root))[-1] == (
        "kNN bags minus no teacher: few-label -5.0 points (one seed, no interval); kNN +0.0 points (one seed, no "
        "interval); linear +0.0 points (one seed, no interval)"
    )
    few = compare(*load(root).arms.values(), "fewshot")
    assert few is not None
    assert (relation(few), evidence(few)) == ("5.0 points below", "one seed, so no interval")


def test_unequal_passes_are_flagged_and_names_are_escaped(tmp_path: Path, digits: Path) -> None:
    """Also the other ways round: no bags, and arms that the comparison does not know."""
    strange = '<b>"$x_&\\frac'
    folder = Folder(tmp_path, digits)
    folder.arm("no teacher", [(0.5, 0.9, 0.9), (0.5, 0.9, 0.9)], 1)
    folder.arm(strange, [(0.5, 0.9, 0.9), (0.5, 0.9, 0.9)], 1)
    write_report(folder.close("<script>alert(1)</script>"), tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    found = Page(html)
    assert "<script" not in html
    assert "<b>" not in html
    assert "Distillation report: <script>alert(1)</script>" in found.words
    assert [row[5] for row in found.rows if row[0] == strange] == ["2,048"]
    assert "The student passes differ between runs" in found.words
    assert "the highest of 2 arms. By 95 % intervals paired by seed: too few seeds: " in found.words
    assert "This recipe made no bags." in found.words


def test_without_dali_the_section_says_so(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    write_report(root, tmp_path / "report.html")
    words = Page((tmp_path / "report.html").read_text()).words
    assert "No views can be shown here: NVIDIA DALI is needed" in words
    assert "pip install nvidia-dali-cuda130" in words


@pytest.mark.parametrize("module", ["matplotlib", "jinja2"])
def test_missing_extra_is_named(module: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=re.escape("pip install 'bingo-distill[report]'")):
        write_report(root, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())
