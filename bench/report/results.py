"""A finished recipe read back from its folder, and the statistics of its comparison.

Accuracies and their differences are 0..1 here; `bingo.bench.report.page` shows them in percent and points.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bingo.bench.report.statistics import Difference, paired
from bingo.config_json import from_json, to_json, values_in
from bingo.errors import UserError, brief, did_you_mean
from bingo.files import RECORD, read_object, read_sealed
from bingo.images.open import open_dataset
from bingo.inputs import read_config
from bingo.objectives import OBJECTIVES, local_share
from bingo.paths import quoted
from bingo.recipes import results_hash
from bingo.stages import KINDS

METRICS = {"fewshot": "few-label", "knn": "kNN", "linear": "linear"}
ENVIRONMENT = {"packages": dict, "slurm": dict, "gpu": list}
"""Fields of environment.json that are no single words, and their types."""


@dataclass(frozen=True)
class Record:
    """What a finished stage left in its folder; the dictionaries are its JSON files as they are."""

    name: str
    kind: str
    out: Path
    config: dict[str, Any]
    seconds: float
    figures: dict[str, Any]
    ranks: int
    environment: dict[str, Any]


@dataclass(frozen=True)
class Student:
    """One trained student: its seed, its scores (metric -> 0..1), whole views through it per step, and steps."""

    seed: int
    scores: dict[str, float]
    record: Record
    per_step: float
    steps: int
    judged: tuple[str, str] | None = None
    """Content hashes of the training and validation images of its evaluation, where they are recorded."""
    protocol: str = "cached"
    """Of its linear accuracy; earlier releases had `cached` only, and did not say so."""

    @property
    def passes(self) -> int:
        return round(self.per_step * self.steps)


@dataclass(frozen=True)
class Run:
    """A finished recipe. `locate` turns a path written in a config into where it is now."""

    name: str
    stages: tuple[Record, ...]
    arms: dict[str, tuple[Student, ...]]
    locate: Callable[[str], Path]
    results: str = ""
    """What it was read from, see `bingo.recipes.results_hash`."""
    teacher: Student | None = None
    """The teacher that the students were distilled from, where a stage evaluated it."""
    settings: Mapping[str, Any] | None = None
    """What the recipe was built with; None: an earlier release did not say so, or it is a sweep."""

    def stage_at(self, path: str | None) -> Record | None:
        """The stage that wrote this folder, or the folder of this file."""
        if path is None:
            return None
        place = self.locate(path)
        return next((s for s in self.stages if s.out in (place, place.parent)), None)

    def teacher_of(self, record: Record) -> Record | None:
        """The stage that trained a distillation's teacher, or the one whose keys it reads from a cache."""
        keys = self.stage_at(record.config.get("keys"))
        return self.stage_at((keys or record).config.get("teacher"))


def load(root: Path) -> Run:
    """Read recipe.json and every stage's folder.

    `UserError`: no recipe.json, stages that are not finished, or that do not belong together.
    """
    path = root / "recipe.json"
    if not path.exists():
        raise UserError(
            f"{root} holds no finished recipe (no recipe.json in it); name the folder given to `bingo run RECIPE --out`"
        )
    remedy = "it is not a recipe written by `bingo run`; name the folder given to `bingo run RECIPE --out`"
    recipe = read_object(path, remedy=remedy)
    try:
        outs = [stage["config"]["out"] for stage in recipe["stages"]]
        written = Path(recipe.get("root") or os.path.commonpath([Path(out).parent for out in outs]))
        locate = locator(root, [written])
        folders = {stage["name"]: locate(out) for stage, out in zip(recipe["stages"], outs, strict=True)}
        name, arms = str(recipe["recipe"]), {arm: list(names) for arm, names in recipe["arms"].items()}
        settings = dict(recipe["settings"]) if "settings" in recipe else None
        missing = sorted({n for names in arms.values() for n in names} - set(folders))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is not a recipe written by `bingo run` ({error!r}); type `bingo run digits --out {quoted(root)}`"
        ) from None
    if missing or not all(arms.values()) or not arms:
        raise UserError(f"{path} names no stage for {', '.join(missing) or 'an arm'}; type `bingo run digits` again")
    records = read_stages(folders, f"bingo {'' if 'root' in recipe else 'run '}{name} --out {quoted(root)}")
    locate = locator(root, [written, *written_roots(root, records.values())])
    run = Run(name, tuple(records.values()), {}, locate, results_hash(recipe, folders.values()), settings=settings)
    students = {arm: tuple(student(run, records[eval_name]) for eval_name in names) for arm, names in arms.items()}
    judged = {name for names in arms.values() for name in names}
    teacher = evaluated_teacher(
        run, students, [r for r in records.values() if r.kind == "eval" and r.name not in judged]
    )
    _check_same_images(run, students if teacher is None else {**students, "teacher": (teacher,)})
    return replace(run, arms=students, teacher=teacher)


def evaluated_teacher(run: Run, students: dict[str, tuple[Student, ...]], others: list[Record]) -> Student | None:
    """The first distillation's teacher as one of the `others`, evaluations of no student, scored it."""
    distilled = next((s.record for group in students.values() for s in group if s.record.kind == "distill"), None)
    record = run.teacher_of(distilled) if distilled else None
    found = [e for e in others if record is not None and run.stage_at(e.config["run"]) is record]
    return student(run, found[0]) if found else None


def _check_same_images(run: Run, students: dict[str, tuple[Student, ...]]) -> None:
    """`UserError` when students were judged on different images or labels, or by different protocols of the linear
    classifier: their accuracies cannot be compared."""
    judged = {students_of: {s.judged for s in group} - {None} for students_of, group in students.items()}
    if len(set().union(*judged.values())) > 1:
        raise UserError(
            f"the arms {', '.join(judged)} were evaluated on different datasets (content hashes in their "
            f"results.json), so they cannot be compared; type `bingo run {run.name}` again"
        )
    if len(protocols := {student.protocol for group in students.values() for student in group}) > 1:
        raise UserError(
            f"the arms {', '.join(judged)} have linear accuracies of different protocols "
            f"({', '.join(sorted(protocols))}), so they cannot be compared; type `bingo run {run.name}` again"
        )


def locator(root: Path, written: Iterable[Path]) -> Callable[[str], Path]:
    """Paths as the run wrote them -> paths under `root`, so that a moved or copied run is read as a whole.

    written: names of the root then; several where `bingo submit`, which writes whole paths, made some stages and
    `bingo run`, which writes what was typed, the others.
    """
    bases = list(dict.fromkeys(written))

    def locate(path: str) -> Path:
        base = next((base for base in bases if Path(path).is_relative_to(base)), None)
        return Path(path) if base is None else root / Path(path).relative_to(base)

    return locate


def written_roots(root: Path, records: Iterable[Record]) -> Iterator[Path]:
    """What each stage's own config called the root."""
    for record in records:
        inside, out = record.out.relative_to(root).parts, Path(record.config["out"]).parts
        if out[-len(inside) :] == inside:
            yield Path(*out[: -len(inside)])


def read_stages(folders: dict[str, Path], command: str) -> dict[str, Record]:
    """Stage name -> its record; `UserError` naming the stages that did not finish."""
    records = {name: read_sealed(out / RECORD) for name, out in folders.items() if (out / RECORD).exists()}
    unfinished = [name for name in folders if "seconds" not in records.get(name, {})]
    if unfinished:
        named = ", ".join(unfinished[:5]) + (", ..." if len(unfinished) > 5 else "")
        raise UserError(f"{len(unfinished)} of {len(folders)} stages are not finished ({named}); type `{command}`")
    return {name: _record(name, out) for name, out in folders.items()}


def _record(name: str, out: Path) -> Record:
    """What a finished stage left; `UserError` for a file that is damaged."""
    fields = {"kind": str, "seconds": int | float, "figures": dict, "ranks": int}
    entry = read_sealed(out / RECORD, fields)
    if entry["kind"] not in KINDS:
        raise UserError(f"{out / RECORD}: {brief(entry['kind'])} is no kind of stage; {did_you_mean('', KINDS)}")
    path = out / "config.json"
    cls = KINDS[entry["kind"]].config
    config = to_json(
        from_json(cls, values_in(cls, read_config(path)), str(path))
    )  # with what earlier releases left out
    environment = read_object(out / "environment.json")
    for field, kind in ENVIRONMENT.items():
        if not isinstance(environment.get(field), kind | type(None)):
            raise UserError(f"{out / 'environment.json'}: {field!r} is {brief(environment[field])}, not of its type")
    if not 0 <= entry["seconds"] < math.inf:
        raise UserError(f"{out / RECORD}: 'seconds' is {brief(entry['seconds'])}, which does not belong there")
    return Record(
        name, entry["kind"], out, config, float(entry["seconds"]), entry["figures"], entry["ranks"], environment
    )


def student(run: Run, evaluation: Record) -> Student:
    """The student that an evaluation stage scored; `UserError` if it has been trained anew since."""
    record = run.stage_at(evaluation.config["run"])
    results = read_sealed(evaluation.out / "results.json")
    again = f"delete {evaluation.out} and type `bingo run {run.name}` again"
    if record is None or record.kind not in ("pretrain", "distill"):
        raise UserError(f"{evaluation.name} evaluates {evaluation.config['run']}, which no stage trained; {again}")
    if results.get("model") != record.figures.get("weights", results.get("model")):
        raise UserError(f"{evaluation.name} holds the results of other weights than {record.name} made; {again}")
    absent = [metric for metric in METRICS if not is_share(results.get(metric))]
    if absent:
        raise UserError(f"{evaluation.out / 'results.json'} has no {absent[0]} accuracy; {again}")
    optim = record.config["optim"]
    steps = optim["epochs"] * (len(open_dataset(run.locate(record.config["data"]))) // optim["batch"])
    scores = {metric: float(results[metric]) for metric in METRICS}
    judged = (str(results["train"]), str(results["val"])) if {"train", "val"} <= results.keys() else None
    per_step = optim["batch"] * student_views(record.kind, record.config)
    protocol = str(results.get("protocol", "cached"))
    return Student(record.config["seed"], scores, record, per_step, steps, judged, protocol)


def is_share(value: Any) -> bool:
    """Whether this is a number between 0 and 1."""
    return type(value) in (int, float) and 0 <= value <= 1


def student_views(kind: str, config: Mapping[str, Any]) -> float:
    """Whole views through the student per image of a batch: MoCo 1, distillation as its objective says; a local crop
    is the part of one that its pixels are."""
    if kind != "distill":
        return 1
    local = local_share(config["local_crops"], config["local_size"], config["augment"]["size"])
    return OBJECTIVES[config["objective"]].passes(mixes=config["cutmix"]) + local


def compare(before: tuple[Student, ...], after: tuple[Student, ...], metric: str) -> Difference | None:
    """after - before, paired by seed; None without a common seed."""
    old, new = ({student.seed: student.scores[metric] for student in arm} for arm in (before, after))
    return paired(old, new)
