"""What the template of a report shows, section by section: `Page`. Shares are 0..1 unless a name says percent."""

from typing import Required, TypedDict

from bingo.bench.report.pictures import Picture
from bingo.bench.report.results import Difference, Record


class ArmRow(TypedDict):
    """One arm: n seeds, its accuracies in percent as text, student passes (more than one if seeds differ)."""

    name: str
    n: int
    scores: list[str]
    passes: list[int]
    sum: str
    """The factors of the passes in words."""


class DifferenceRow(TypedDict):
    """Two arms; found: few-label, then kNN accuracy, None without a common seed."""

    name: str
    found: list[Difference | None]


class SettingRow(TypedDict):
    """One setting of the students, a value per arm."""

    name: str
    values: list[str]
    differs: bool


class BagGroup(TypedDict):
    """One bag file: bags of k members, its diagnostics, and a row of pictures per anchor."""

    name: str
    k: int
    purity: dict[str, float] | None
    in_degree: dict[str, dict[str, float]]
    """Both as `bingo.bags.diagnostics.diagnose` returns them."""
    rows: list[list[Picture]]


class BagChart(TypedDict, total=False):
    """In-degrees and overlaps; bag_chance: the overlap of random bags, None for a single bag file."""

    bag_chart: Required[Picture | None]
    bag_chance: float | None


class BagSection(BagChart):
    """members: how many of a bag are shown."""

    bags: list[BagGroup]
    members: int


class ViewSection(TypedDict, total=False):
    """A row per image; without DALI no row, and a note that says why."""

    views: Required[list[list[Picture]]]
    views_note: Required[str]
    view_size: int
    """Pixels per side."""
    views_of: str
    views_used: int


class CurveSection(TypedDict, total=False):
    """windows: steps of the loss's moving average, one per length of run."""

    curves: Required[Picture | None]
    windows: list[int]


class TimeSection(TypedDict):
    """total: seconds of all stages."""

    times: Picture
    total: float
    stages: tuple[Record, ...]


class EnvironmentSection(TypedDict):
    """(name, value) of one stage's environment; differing: field -> stages that recorded another value."""

    environment: list[tuple[str, str]]
    environment_of: str
    differing: dict[str, list[str]]


class Page(BagSection, ViewSection, CurveSection, TimeSection, EnvironmentSection):
    """The whole page; shots: labels per class, draws: of them, unequal: student passes differ between runs."""

    title: str
    headline: str
    shots: int
    draws: int | None
    val_images: int
    chart: Picture
    arms: list[ArmRow]
    unequal: bool
    differences: list[DifferenceRow]
    settings: list[SettingRow]
