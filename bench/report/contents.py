"""What the templates of a report show, section by section. Shares are 0..1 unless a name says percent."""

from typing import Any, Required, TypedDict

from bingo.bench.report.charts import Chart
from bingo.bench.report.pictures import Picture
from bingo.bench.report.results import Record
from bingo.bench.report.statistics import Difference


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
    """One setting, a value per column."""

    name: str
    values: list[str]
    differs: bool


class CostRow(TypedDict):
    """A network's costs as text; n: samples of latency and rate."""

    name: str
    network: str
    parameters: int
    megabytes: float
    mflops: float | None
    latency_ms: float
    rate: float
    n: str


class CostSection(TypedDict):
    """Teacher and student at inference; where: hardware and versions."""

    costs: list[CostRow]
    costs_where: str
    costs_size: int
    costs_batch: int


class Retrieved(TypedDict):
    """One network: which share of the nearest has the anchor's class, among how many images, a row per anchor."""

    name: str
    share: float
    images: int
    rows: list[list[Picture]]


class RetrievalSection(TypedDict):
    """Without DALI or weights none, and a note that says why."""

    retrieved: list[Retrieved]
    retrieval_note: str


class BagGroup(TypedDict):
    """One bag file: bags of k members, its diagnostics, and a row of pictures per anchor."""

    name: str
    k: int
    purity: dict[str, float] | None
    in_degree: dict[str, dict[str, float]]
    """Both as `bingo.bags.diagnostics.diagnose` returns them."""
    rows: list[list[Picture]]


class BagCharts(TypedDict):
    """In-degrees and overlaps; bag_chance: the overlap of random bags, None for a single bag file."""

    bag_charts: list[Chart]
    bag_chance: float | None


class BagSection(BagCharts):
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


class CurveSection(TypedDict):
    """windows: steps of the loss's moving average, one per length of run."""

    curves: list[Chart]
    windows: list[int]


class TimeSection(TypedDict):
    """total: seconds of all stages."""

    times: Chart
    total: float
    stages: tuple[Record, ...]


class RepeatSection(TypedDict):
    """commands: what makes these results again; uses: (who loads the export, lines of code)."""

    commands: list[str]
    uses: list[tuple[str, str]]


class EnvironmentSection(TypedDict):
    """(name, value) of one stage's environment; differing: field -> stages that recorded another value."""

    environment: list[tuple[str, str]]
    environment_of: str
    differing: dict[str, list[str]]


class Recipe(
    CostSection, RetrievalSection, BagSection, ViewSection, CurveSection, TimeSection, RepeatSection, EnvironmentSection
):
    """A recipe; shots: labels per class, draws: of them, unequal: student passes differ between runs.

    protocol: of the linear accuracies."""

    headline: str
    shots: int
    draws: int | None
    val_images: int
    comparison: list[Chart]
    arms: list[ArmRow]
    teacher: ArmRow | None
    protocol: str
    unequal: bool
    differences: list[DifferenceRow]
    settings: list[SettingRow]


class Part(TypedDict):
    """A part of a page: its title, the template that shows it, and what that needs."""

    title: str
    template: str
    content: Any


class Page(TypedDict):
    """A whole page. results: the hash of what it was made from."""

    title: str
    results: str
    parts: list[Part]
