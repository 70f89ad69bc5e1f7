"""The rooms rest on each other in one order: an import goes down, and none goes round in a circle.

A room is a folder, or a module of its own in `bingo/`, `launch/` or `bench/`. Imports inside functions and those for
type checkers count like all others; a name in a string, as in `bingo.stages.KINDS`, does not.
"""

import graphlib
import itertools
from collections.abc import Iterable

import pytest

from tests.support.modules import SOURCES, imports, module

# From the bottom up. A room may import from the layers before its own, and from no other room of its own layer.
LAYERS = (
    ("bingo", "bingo.kernels"),
    ("bingo.errors", "bingo.environment", "bingo.progress", "bingo.streams", "bingo.watch"),
    ("bingo.variables", "bingo.paths"),
    ("bingo.rendezvous", "bingo.files", "bingo.config_json", "bingo.config_parts", "bingo.arguments"),
    ("bingo.torch_files", "bingo.protocols", "bingo.roof", "bingo.shapes", "bingo.objectives"),
    (
        "bingo.config",
        "bingo.config_evaluation",
        "bingo.config_scaling",
        "bingo.config_flags",
        "bingo.completion",
        "bingo.distributed",
        "bingo.models",
    ),
    ("bingo.inputs", "bingo.key_settings", "bingo.kinds"),
    ("bingo.images",),
    ("bingo.views", "bingo.identity", "bingo.aside"),
    ("bingo.features",),
    ("bingo.bags", "bingo.evaluate", "bingo.losses"),
    ("bingo.train", "bingo.export"),
    ("bingo.supervised",),
    ("bingo.stages", "bingo.doctor"),
    ("bingo.recipes",),
    ("bingo.flags",),
    ("bingo.explain",),
    ("bingo.launch.layout", "bingo.launch.cluster"),
    ("bingo.launch.job",),
    ("bingo.launch.submit", "bingo.launch.live"),
    ("bingo.launch.status", "bingo.launch.local"),
    ("bingo.launch.here",),
    ("bingo.launch", "bingo.launch.command"),
    (
        "bingo.bench",
        "bingo.bench.arguments",
        "bingo.bench.record",
        "bingo.bench.samples",
        "bingo.bench.timing",
        "bingo.bench.ceilings",
        "bingo.bench.drawing",
        "bingo.bench.fresh_process",
    ),
    ("bingo.bench.keeper", "bingo.bench.summary"),
    ("bingo.bench.processes",),
    ("bingo.bench.compare",),
    ("bingo.bench.neighbours", "bingo.bench.kernels", "bingo.bench.loader", "bingo.bench.step", "bingo.bench.report"),
    ("bingo.bench.predict", "bingo.bench.profile", "bingo.bench.roof", "bingo.bench.scaling"),
    ("bingo.bench.gpu", "bingo.bench.history"),
    ("bingo.bench.command",),
    ("bingo.cli",),
    ("bingo.__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
TREES = ("bingo", "bingo.launch", "bingo.bench")  # their modules are rooms of their own
OF_JOBS = "bingo.bench.scaling"
"""The one measurement that sends jobs, and is about them."""
Sources = dict[str, str]
"""Dotted name -> text of each module."""


def room(name: str) -> str:
    parent = name.rpartition(".")[0]
    return name if parent in ("", *TREES) else parent


def may_import(importer: str, imported: str) -> bool:
    """Whether one room may import from another. Jobs and measurements do not know each other, but for the measurement
    of jobs."""
    if importer.startswith("bingo.bench") and imported.startswith("bingo.launch") and importer != OF_JOBS:
        return False
    return importer == imported or LEVEL[imported] < LEVEL[importer]


def graph(sources: Sources) -> dict[str, set[str]]:
    """Module -> the modules that it imports."""
    return {name: {found for n in imports(text) if (found := _known(n, sources))} for name, text in sources.items()}


def _known(name: str, sources: Sources) -> str:
    """The module that an imported name is or belongs to; "" for those of others."""
    while name and name not in sources:
        name = name.rpartition(".")[0]
    return name


def without_place(sources: Sources) -> list[str]:
    return [
        f"{name}: its room {room(name)} has no place in LAYERS of tests/test_layers.py; give it one"
        for name in sources
        if room(name) not in LEVEL
    ]


def wrong_imports(sources: Sources) -> list[str]:
    return [
        f"{importer} imports {imported}: {room(importer)} does not rest on {room(imported)}, see tests/test_layers.py"
        for importer, found in graph(sources).items()
        for imported in sorted(found)
        if {room(importer), room(imported)} <= LEVEL.keys() and not may_import(room(importer), room(imported))
    ]


def circle(sources: Sources) -> str:
    """A circle of imports, or ""."""
    try:
        graphlib.TopologicalSorter(graph(sources)).prepare()
    except graphlib.CycleError as error:
        return " imports ".join(reversed(error.args[1]))
    return ""


ALL = {module(path): path.read_text() for path in SOURCES}
PLANTS = (
    "import {name}",
    "def late():\n    from {name} import something",
    "if TYPE_CHECKING:\n    import {name} as other",
)


def planted(importer: str, imported: Iterable[str], plant: str) -> Sources:
    """All modules, one of them with more imports."""
    lines = [plant.format(name=name) for name in imported]
    return ALL | {importer: "\n\n".join([ALL[importer], *lines, ""])}


def test_every_room_has_one_place() -> None:
    assert without_place(ALL) == []
    assert sum(map(len, LAYERS)) == len(LEVEL), "no room is named twice"
    assert set(LEVEL) == {room(name) for name in ALL}, "no room is named that does not exist"


def test_the_table_keeps_the_promises() -> None:
    """Kernels rest on nothing, only `__main__` imports the command; jobs and measurements do not know each other, but
    for one measurement, which no job knows."""
    assert [r for r in LEVEL if may_import("bingo.kernels", r)] == ["bingo.kernels"]
    assert [r for r in LEVEL if may_import(r, "bingo.cli")] == ["bingo.cli", "bingo.__main__"]
    jobs, measurements = ([r for r in LEVEL if r.startswith(tree)] for tree in ("bingo.launch", "bingo.bench"))
    assert not [(a, b) for a in jobs for b in measurements if may_import(a, b)]
    assert {b for a in jobs for b in measurements if may_import(b, a)} == {OF_JOBS}


def test_imports_go_down() -> None:
    assert wrong_imports(ALL) == []


def test_no_circle() -> None:
    assert circle(ALL) == ""


FORBIDDEN = {here: others for here in LEVEL if (others := [there for there in LEVEL if not may_import(here, there)])}


@pytest.mark.parametrize("plant", PLANTS, ids=["at the top", "in a function", "for type checkers"])
@pytest.mark.parametrize("here", FORBIDDEN)
def test_planted_imports_are_found(here: str, plant: str) -> None:
    """From each room one import to every other on which it does not rest: a sentence for each of these pairs."""
    first = {room(name): name for name in reversed(ALL)}
    found = wrong_imports(planted(first[here], (first[there] for there in FORBIDDEN[here]), plant))
    pairs = [sentence.partition(", see ")[0] for sentence in found]
    expected = [f"{first[here]} imports {first[there]}: {here} does not rest on {there}" for there in FORBIDDEN[here]]
    assert sorted(pairs) == sorted(expected)


INSIDE = {room(a): (a, b) for a, found in graph(ALL).items() for b in sorted(found) if room(a) == room(b)}


@pytest.mark.parametrize("where", INSIDE)
def test_a_planted_circle_is_named(where: str) -> None:
    """Within a room, where any module may import any other: one imports its own importer."""
    importer, imported = INSIDE[where]
    for plant in PLANTS:
        sources = planted(imported, [importer], plant)
        names = circle(sources).split(" imports ")
        steps = list(itertools.pairwise(names))
        assert names[0] == names[-1]
        assert (imported, importer) in steps, "the planted import is in every circle"
        assert all(b in graph(sources)[a] for a, b in steps)


@pytest.mark.parametrize(
    ("name", "place"),
    [("bingo.new", "bingo.new"), ("bingo.new.part", "bingo.new"), ("bingo.launch.new", "bingo.launch.new")],
)
def test_a_new_room_needs_a_place(name: str, place: str) -> None:
    sources = ALL | {name: "import bingo.cli"}
    (sentence,) = without_place(sources)
    assert sentence.startswith(f"{name}: its room {place} has no place in LAYERS")
    assert wrong_imports(sources) == [], "one sentence is enough"
