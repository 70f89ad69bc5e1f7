"""A finished recipe as a part of a report.

Every number is computed here from the files of the run; accuracies are 0..1 inside, percent on the page.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bingo.bags.diagnostics import diagnose, overlap, random_degrees
from bingo.bags.file import in_degree, load_bags
from bingo.bench.report import costs, pictures
from bingo.bench.report.contents import (
    ArmRow,
    BagCharts,
    BagGroup,
    BagSection,
    CostRow,
    CostSection,
    CurveSection,
    DifferenceRow,
    EnvironmentSection,
    Recipe,
    RepeatSection,
    RetrievalSection,
    SettingRow,
    TimeSection,
    ViewSection,
)
from bingo.bench.report.curves import Group, panels, read_curve, windows
from bingo.bench.report.results import METRICS, Record, Run, Student, compare, student_views
from bingo.bench.report.retrieval import retrieve
from bingo.bench.report.runs import flatten, setting_rows
from bingo.bench.report.summary import BASELINE, MAIN, headline, label, mean_interval, scores, shots
from bingo.config_json import from_json
from bingo.config_parts import Augmentation
from bingo.errors import UserError
from bingo.images.open import open_dataset
from bingo.recipes import CHAINS, REST
from bingo.views.loader import import_dali

PAIRS = ((BASELINE, "random"), (BASELINE, MAIN), ("random", MAIN), (MAIN, "label"))
ANCHORS, MEMBERS, VIEW_IMAGES, VIEWS = 8, 5, 6, 4
WHERE = ("out", "data", "teacher", "keys", "bags", "monitor.val")  # places, not settings
SAME_ENVIRONMENT = ("python", "system", "cpu", "cores", "memory_gib", "packages", "gpu", "driver", "git")


def content(run: Run) -> Recipe:
    """Everything the template shows."""
    names = {arm: label(arm) for arm in run.arms}
    main = run.arms.get(MAIN) or next(iter(run.arms.values()))
    evaluation = next(s for s in run.stages if s.kind == "eval")
    return {
        "headline": headline(run),
        "shots": shots(run),
        "draws": evaluation.config.get("draws"),
        "val_images": len(open_dataset(run.locate(evaluation.config["val"]))),
        "comparison": [
            pictures.comparison(
                f"{METRICS[m]} accuracy, %",
                {arm: [100 * value for value in scores(group, m)] for arm, group in run.arms.items()},
                names,
                None if run.teacher is None else 100 * run.teacher.scores[m],
            )
            for m in METRICS
        ],
        "arms": [arm_row(label(arm), group) for arm, group in run.arms.items()],
        "teacher": None if run.teacher is None else arm_row("teacher", (run.teacher,)),
        "protocol": main[0].protocol,
        "unequal": len({s.passes for group in run.arms.values() for s in group}) > 1,
        "differences": difference_rows(run),
        **cost_section(run, main[0].record),
        **retrieval_section(run, main[0].record, evaluation),
        **bags_section(run),
        **views_section(run, main[0].record),
        **curves_section(run, names),
        **time_section(run),
        **repeat_section(run),
        **environment_section(run, main[0].record),
        "settings": settings_rows(run),
    }


def arm_row(name: str, group: tuple[Student, ...]) -> ArmRow:
    return {
        "name": name,
        "n": len(group),
        "scores": [mean_interval(scores(group, metric)) for metric in METRICS],
        "passes": sorted({s.passes for s in group}),
        "sum": made_of(group[0]),
    }


def made_of(one: Student) -> str:
    """The factors of a student's passes."""
    optim = one.record.config["optim"]
    steps, views = one.steps // optim["epochs"], student_views(one.record.kind, one.record.config)
    return f"{optim['epochs']} epochs × {steps} steps × {optim['batch']} images × {views:.3g}"


def difference_rows(run: Run) -> list[DifferenceRow]:
    rows: list[DifferenceRow] = []
    for before, after in PAIRS:
        if before in run.arms and after in run.arms:
            found = [compare(run.arms[before], run.arms[after], metric) for metric in METRICS]
            rows.append({"name": f"{label(after)} − {label(before)}", "found": found})
    return rows


def networks_of(run: Run, record: Record) -> dict[str, Path]:
    """teacher, student -> the folder of each that is there with its weights."""
    teacher = run.teacher_of(record)
    folders = {"teacher": teacher.out if teacher else None, "student": record.out}
    return {name: out for name, out in folders.items() if out is not None and (out / "model.pt").exists()}


def cost_section(run: Run, record: Record) -> CostSection:
    """Teacher and student at inference, measured here and now."""
    size, networks = record.config["augment"]["size"], networks_of(run, record)
    rows: list[CostRow] = []
    for name, found in costs.measure(networks, size).items():
        stage = next(s for s in run.stages if s.out == networks[name])
        rows.append(
            {
                "name": name,
                "network": stage.config.get("student") or stage.config["model"],
                "parameters": found.parameters,
                "megabytes": found.megabytes,
                "mflops": found.flops / 1e6 or None,
                "latency_ms": 1e3 * found.latency,
                "rate": found.rate,
                "n": " and ".join(map(str, dict.fromkeys(found.n))),
            }
        )
    return {"costs": rows, "costs_where": costs.where(), "costs_size": size, "costs_batch": costs.BATCH}


def retrieval_section(run: Run, record: Record, evaluation: Record) -> RetrievalSection:
    """What teacher and student find nearest among the validation images, or the reason why nothing is shown."""
    networks = networks_of(run, record)
    if not networks:
        return {"retrieved": [], "retrieval_note": "The weights of this run are not here, so nothing can be retrieved."}
    augment = from_json(Augmentation, record.config["augment"], f"{record.name}.augment")
    dataset = open_dataset(run.locate(evaluation.config["val"]))
    try:
        return {"retrieved": retrieve(networks, dataset, augment, ANCHORS), "retrieval_note": ""}
    except UserError as error:
        return {"retrieved": [], "retrieval_note": f"Nothing can be retrieved here: {error}."}


def bags_section(run: Run) -> BagSection:
    """The same anchors, the middles of equal parts of the dataset, under every kind of bag; then bags in figures."""
    groups: list[BagGroup] = []
    members, names = dict[str, np.ndarray](), dict[str, str]()
    stages = [s for s in run.stages if s.kind == "bags"]
    kinds = [s.config["kind"] for s in stages]
    for stage in stages:
        dataset = open_dataset(run.locate(stage.config["data"]))
        bags = load_bags(stage.out / "bags.npz", dataset_hash=dataset.hash, teacher_hash=None)
        anchors = pictures.anchors_of(len(dataset), ANCHORS)
        name = label(bags.kind) if kinds.count(bags.kind) == 1 else stage.name
        members[key := bags.kind if name != stage.name else name], names[key] = bags.members, name
        measured = diagnose(bags.members, dataset.labels, stage.config["seed"], {})
        rows = pictures.bag_rows(dataset, bags.members, anchors, MEMBERS)
        purity, degrees = measured["purity"], measured["in_degree"]
        groups.append({"name": name, "k": bags.k, "purity": purity, "in_degree": degrees, "rows": rows})
    return {"bags": groups, "members": MEMBERS, **bag_charts(members, names)}


def bag_charts(members: dict[str, np.ndarray], names: dict[str, str]) -> BagCharts:
    """In-degrees and overlaps of all bag files of the same images; `bag_chance`: the overlap of random bags."""
    count = max((len(bags) for bags in members.values()), default=0)
    same = {key: bags for key, bags in members.items() if len(bags) == count}
    if not same:
        return {"bag_charts": [], "bag_chance": None}
    degrees = {key: in_degree(bags) for key, bags in same.items()}
    widest = max(bags.shape[1] for bags in same.values())
    expected = random_degrees(count, widest, max(int(degree.max()) for degree in degrees.values()))
    overlaps = np.array([[overlap(a, b) for b in same.values()] for a in same.values()])
    labels = {key: names[key] for key in same}
    pairs = [f"{a} and {b} {100 * overlaps[i, j]:.1f} %"
             for i, a in enumerate(labels.values()) for j, b in enumerate(labels.values()) if i < j]  # fmt: skip
    alt = "Share of images by the number of bags they are members of, per kind of bag. "
    alt += "Members in common: " + ", ".join(pairs) if pairs else ""
    return {
        "bag_charts": pictures.bag_charts(degrees, labels, expected, overlaps, alt),
        "bag_chance": widest / (count - 1) if pairs else None,
    }


def views_section(run: Run, record: Record) -> ViewSection:
    """Views of the run's own plan, or the reason why there are none."""
    try:
        import_dali()
    except UserError as error:
        return {"views": [], "views_note": f"No views can be shown here: {error}."}
    augment = from_json(Augmentation, record.config["augment"], f"{record.name}.augment")
    dataset = open_dataset(run.locate(record.config["data"]))
    rows = pictures.view_rows(dataset, augment, record.config["seed"], VIEW_IMAGES, VIEWS)
    used = 1 if record.config.get("key_view") == "same" or record.config.get("keys") else 2
    return {"views": rows, "views_note": "", "view_size": augment.size, "views_of": record.name, "views_used": used}


def curves_section(run: Run, names: dict[str, str]) -> CurveSection:
    groups = [
        Group(names[arm], pictures.colour(arm, list(names)), [curve_of(student) for student in students])
        for arm, students in run.arms.items()
    ]
    distilled = next((g[0].record for g in run.arms.values() if g[0].record.kind == "distill"), None)
    teacher = run.teacher_of(distilled) if distilled else None
    score = teacher.figures.get("knn") if teacher else None
    return {
        "curves": panels(groups, {} if score is None else {"knn": {"teacher": score}}),
        "windows": windows(groups),
    }


def curve_of(one: Student) -> Any:
    """A student's training."""
    return read_curve(one.record.out / "metrics.jsonl", one.per_step, one.record.config["optim"]["batch"])


def time_section(run: Run) -> TimeSection:
    """Seconds by kind of stage over all seeds; students and teacher are told apart."""
    students = {s.record.name for group in run.arms.values() for s in group}
    groups: dict[str, float] = {}
    for stage in run.stages:
        who = " (students)" if stage.name in students else " (teacher)" if stage.kind == "pretrain" else ""
        groups[stage.kind + who] = groups.get(stage.kind + who, 0.0) + stage.seconds
    total = sum(groups.values())
    return {"times": pictures.times(groups), "total": total, "stages": run.stages}


def environment_section(run: Run, record: Record) -> EnvironmentSection:
    """The environment of one stage, and in what the others differ from it."""
    own = record.environment
    differing = {
        field: sorted(s.name for s in run.stages if s.environment.get(field) != own.get(field))
        for field in SAME_ENVIRONMENT
    }
    packages = own.get("packages") or {}
    rows = [
        ("CPU", f"{own.get('cpu')}, {own.get('cores')} cores, {own.get('memory_gib')} GiB of memory"),
        ("GPU", ", ".join(map(str, own.get("gpu") or [])) or "none"),
        ("driver", own.get("driver")),
        ("system", f"{own.get('system')}, Python {own.get('python')}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in packages.items() if version)),
        ("git", own.get("git")),
        ("Slurm", ", ".join(f"{name}={value}" for name, value in (own.get("slurm") or {}).items())),
        ("ranks", ", ".join(str(ranks) for ranks in sorted({s.ranks for s in run.stages}))),
    ]
    return {
        "environment": [(name, value) for name, value in rows if value],
        "environment_of": record.name,
        "differing": {field: names for field, names in differing.items() if names},
    }


def settings_rows(run: Run) -> list[SettingRow]:
    """Settings of the first student of every arm, side by side; places and seeds are left out."""
    columns = {arm: flatten(group[0].record.config) for arm, group in run.arms.items()}
    return [row for row in setting_rows(columns) if row["name"] not in (*WHERE, "seed")]


def repeat_section(run: Run) -> RepeatSection:
    """Commands that make these results again, and the lines by which the exported student is loaded."""
    commands = []
    git = next((s.environment.get("git") for s in run.stages if s.environment.get("git")), None)
    if git and "+" not in git:
        commands.append(f"git checkout {git}")
    if run.name in CHAINS and run.settings is not None:
        words = ["bingo", "run", run.name, "--out", f"runs/{run.name}-again", *repeated(run.settings)]
        commands.append(shlex.join(words))
    export = next((s for s in run.stages if s.kind == "export"), None)
    return {"commands": commands, "uses": [] if export is None else uses(export.out)}


def repeated(settings: Mapping[str, Any]) -> Iterator[str]:
    """The flags of `bingo run` for the settings of a recipe; those of the trainings come last, after `--`."""
    for name, value in settings.items():
        if name != REST:
            yield from (f"--{name}", str(value))
    yield from ("--", *settings[REST]) if settings.get(REST) else ()


def uses(folder: Path) -> list[tuple[str, str]]:
    """(Who loads, lines of code) from the model card of an export."""
    path = folder / "README.md"
    card = path.read_text(errors="replace") if path.is_file() else ""
    loading = card.partition("## Loading")[2].partition("\n## ")[0]
    found = re.findall(r"### (.+?)\n.*?```\w*\n(.*?)```", loading, re.DOTALL)
    return [(who, lines.strip().replace("DIR", str(folder))) for who, lines in found]
