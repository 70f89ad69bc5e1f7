"""What `bingo report` is given: each path is a recipe, a training, a submission or a result of `bingo bench`."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bingo.bench.record import SCHEMA, Result, read_result
from bingo.bench.report.jobs import is_submission, submissions_of
from bingo.errors import UserError
from bingo.files import METRICS, read_object
from bingo.inputs import HOLDS, kind_of
from bingo.recipes import RECIPE

ACCEPTED = (
    "give folders of trainings (with metrics.jsonl), of `bingo run` or `bingo submit`, or result files of "
    "`bingo bench ... --json FILE`"
)


@dataclass
class Inputs:
    """The paths by what they are, each kind in the order given, none twice."""

    recipes: list[Path] = field(default_factory=list)
    trainings: list[Path] = field(default_factory=list)
    submissions: list[Path] = field(default_factory=list)
    results: list[tuple[Path, Result]] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.recipes) + len(self.trainings) + len(self.submissions) + len(self.results)


def read_inputs(paths: Sequence[Path]) -> Inputs:
    """Sort the paths; `UserError`, one sentence, for one that is nothing of these, or whose record is damaged."""
    found = Inputs()
    for path in paths:
        if path.is_dir():
            _folder(path, found)
        elif path.exists():
            found.results.append((path, read_result(path)))
        else:
            raise UserError(f"{path} does not exist; {ACCEPTED}")
    found.recipes, found.trainings = list(dict.fromkeys(found.recipes)), list(dict.fromkeys(found.trainings))
    found.submissions = list(dict.fromkeys(found.submissions))
    return found


def _folder(path: Path, found: Inputs) -> None:
    before = found.count
    if is_submission(path):
        found.submissions.append(path)
    elif (path / METRICS).exists():
        found.trainings.append(path)
    else:
        found.submissions += submissions_of(path)
        if (path / RECIPE).exists():
            _recipe(path, found)
        found.results += [(file, read_result(file)) for file in results_in(path)]
    if found.count == before:
        kind = kind_of(path)
        holds = f"holds {HOLDS[kind]}" if kind else "is empty" if not any(path.iterdir()) else "holds no run"
        raise UserError(f"{path} {holds}, which no report shows; {ACCEPTED}")


def _recipe(path: Path, found: Inputs) -> None:
    """A recipe that compares arms is shown as such; of another its trainings are."""
    recipe = read_object(path / RECIPE, remedy="it is not a recipe written by `bingo run`; " + ACCEPTED)
    if recipe.get("arms") == {}:
        found.trainings += trainings_below(path)
    else:
        found.recipes.append(path)


def trainings_below(path: Path) -> Iterator[Path]:
    """Folders with steps, two levels down at most."""
    for pattern in ("*", "*/*"):
        yield from sorted(file.parent for file in path.glob(f"{pattern}/{METRICS}"))


def results_in(path: Path) -> Iterator[Path]:
    """Files of a folder that say that they are results of `bingo bench`."""
    for file in sorted(path.glob("*.json")):
        try:
            head = file.read_text(errors="replace")
            mine = SCHEMA in head and json.loads(head).get("schema") == SCHEMA
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
        if mine:
            yield file
