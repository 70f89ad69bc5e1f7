"""`bingo report`: a finished recipe as one self-contained HTML page that opens offline.

Every number on the page is computed here from the files of the run; accuracies are 0..1 inside, percent on the page.
"""

from pathlib import Path
from typing import Any

import numpy as np

from bingo.bags.diagnostics import diagnose, overlap, random_degrees
from bingo.bags.file import in_degree, load_bags
from bingo.bench.drawing import MISSING
from bingo.bench.report import pictures
from bingo.bench.report.contents import (
    ArmRow,
    BagChart,
    BagGroup,
    BagSection,
    CurveSection,
    DifferenceRow,
    EnvironmentSection,
    Page,
    SettingRow,
    TimeSection,
    ViewSection,
)
from bingo.bench.report.pictures import Curve
from bingo.bench.report.results import METRICS, Difference, Record, Run, Student, compare, load, student_views
from bingo.config_json import from_json
from bingo.config_parts import Augmentation
from bingo.errors import UserError
from bingo.files import atomic_write
from bingo.images.open import open_dataset
from bingo.train.lines import read_lines
from bingo.views.loader import import_dali

LABELS = {"random": "random bags", "knn": "kNN bags", "label": "label bags", "kmeans": "k-means bags"}
BASELINE, MAIN = "no teacher", "knn"
PAIRS = ((BASELINE, "random"), (BASELINE, MAIN), ("random", MAIN), (MAIN, "label"))
ANCHORS, MEMBERS, VIEW_IMAGES, VIEWS = 8, 5, 6, 4
WHERE = ("out", "data", "teacher", "keys", "bags", "monitor.val")  # places, not settings
SAME_ENVIRONMENT = ("python", "system", "cpu", "cores", "memory_gib", "packages", "gpu", "driver", "git")


def write_report(root: Path, out: Path) -> list[str]:
    """Write the page about the recipe in `root` to `out` and return a few lines of text that say the same.

    `UserError`: no recipe.json, stages that are not finished or do not belong together, matplotlib or jinja2 missing.
    """
    run = load(root)
    html = render(page(run))
    with atomic_write(out) as file:
        file.write(html.encode())
    return [*summary_lines(run), f"report: {out}"]


def mean_std(arm: tuple[Student, ...], metric: str) -> str:
    """`81.1 ± 1.5` in percent; the standard deviation has n - 1 in its denominator."""
    values = 100 * np.array([s.scores[metric] for s in arm])
    return f"{values.mean():.1f} ± {values.std(ddof=1):.1f}" if len(values) > 1 else f"{values.mean():.1f}"


def spread(difference: Difference) -> str:
    """`+10.6 points, std 8.7 over n = 2 seeds: within noise`."""
    over = f", std {100 * difference.std:.1f} over n = {difference.n} seeds" if difference.std is not None else ""
    return f"{round(100 * difference.mean, 1) + 0:+.1f} points{over}: {difference.verdict}"


def summary_lines(run: Run) -> list[str]:
    """One line per arm, and one for kNN bags against no teacher."""
    width = max(len(label(arm)) for arm in run.arms)
    lines = [
        f"{label(arm):{width}s}  n = {len(students)}  few-label {mean_std(students, 'fewshot')} %  "
        f"kNN {mean_std(students, 'knn')} %"
        for arm, students in run.arms.items()
    ]
    if BASELINE in run.arms and MAIN in run.arms:
        found = [(m, compare(run.arms[BASELINE], run.arms[MAIN], m)) for m in ("fewshot", "knn")]
        parts = [f"{METRICS[metric]} {spread(d)}" for metric, d in found if d]
        lines.append(f"{label(MAIN)} minus {BASELINE}: " + ("; ".join(parts) or "no common seed"))
    return lines


def label(arm: str) -> str:
    return LABELS.get(arm, arm)


def headline(run: Run) -> str:
    """The result in words, with n, spread and verdict."""
    if BASELINE not in run.arms or MAIN not in run.arms:
        return f"This recipe has no pair of {BASELINE!r} and {MAIN!r} arms, so the gain over no teacher is not known."
    base, main = run.arms[BASELINE], run.arms[MAIN]
    few, knn = (compare(base, main, metric) for metric in ("fewshot", "knn"))
    config = main[0].record.config
    teacher = run.teacher_of(main[0].record)
    source = f"a {teacher.config['model']} teacher" if teacher else "a given teacher"
    reached = np.mean([100 * s.scores["fewshot"] for s in main])
    opening = (
        f"On {run.name}, a {config['student']} student distilled from {source} with {label(MAIN)} reaches "
        f"{reached:.1f} % few-label accuracy ({shots(run)} labels per class)"
    )
    if few is None or knn is None:
        return f"{opening}; it shares no seed with the student trained without a teacher, so the gain is not known."
    model = base[0].record.config["model"]
    other = "the same student" if model == config["student"] else f"a {model}"
    passes = "equal" if len({s.passes for s in (*base, *main)}) == 1 else "unequal"
    return (
        f"{opening}, {relation(few)} {other} trained without a teacher at {passes} student passes ({evidence(few)}). "
        f"Its kNN accuracy is {relation(knn)} ({evidence(knn)})."
    )


def relation(difference: Difference) -> str:
    """`10.6 points above`, as it will be rounded."""
    points = round(100 * difference.mean, 1)
    return f"{abs(points):.1f} points {'below' if points < 0 else 'above'}"


def evidence(difference: Difference) -> str:
    """n, spread and verdict in words."""
    if difference.std is None:
        return "one seed, so the noise is not known"
    verdict = difference.verdict if difference.verdict == "within noise" else "clear of the noise"
    return f"n = {difference.n} seeds, std of the paired differences {100 * difference.std:.1f} points: {verdict}"


def shots(run: Run) -> int:
    """Labels per class of the few-label evaluation."""
    return next(int(s.config["shots"]) for s in run.stages if s.kind == "eval")


def page(run: Run) -> Page:
    """Everything the template shows."""
    names = {arm: label(arm) for arm in run.arms}
    panels = {
        f"{METRICS[m]} accuracy, %": {arm: [100 * s.scores[m] for s in group] for arm, group in run.arms.items()}
        for m in ("fewshot", "knn")
    }
    lines = summary_lines(run)
    main = run.arms.get(MAIN) or next(iter(run.arms.values()))
    evaluation = next(s for s in run.stages if s.kind == "eval")
    return {
        "title": f"Distillation report: {run.name}",
        "headline": headline(run),
        "shots": shots(run),
        "draws": evaluation.config.get("draws"),
        "val_images": len(open_dataset(run.locate(evaluation.config["val"]))),
        "chart": pictures.comparison(panels, names, "Bar chart. " + ". ".join(lines)),
        "arms": arm_rows(run),
        "unequal": len({s.passes for group in run.arms.values() for s in group}) > 1,
        "differences": difference_rows(run),
        **bags_section(run),
        **views_section(run, main[0].record),
        **curves_section(run, names),
        **time_section(run),
        **environment_section(run, main[0].record),
        "settings": settings_rows(run),
    }


def arm_rows(run: Run) -> list[ArmRow]:
    return [
        {
            "name": label(arm),
            "n": len(group),
            "scores": [mean_std(group, metric) for metric in METRICS],
            "passes": sorted({s.passes for s in group}),
            "sum": made_of(group[0]),
        }
        for arm, group in run.arms.items()
    ]


def made_of(one: Student) -> str:
    """The factors of a student's passes."""
    optim = one.record.config["optim"]
    steps = one.steps // optim["epochs"]
    return f"{optim['epochs']} epochs × {steps} steps × {optim['batch']} images × {student_views(one.record)}"


def difference_rows(run: Run) -> list[DifferenceRow]:
    rows: list[DifferenceRow] = []
    for before, after in PAIRS:
        if before in run.arms and after in run.arms:
            found = [compare(run.arms[before], run.arms[after], metric) for metric in ("fewshot", "knn")]
            rows.append({"name": f"{label(after)} − {label(before)}", "found": found})
    return rows


def bags_section(run: Run) -> BagSection:
    """The same anchors, the middles of equal parts of the dataset, under every kind of bag; then bags in figures."""
    groups: list[BagGroup] = []
    members, names = dict[str, np.ndarray](), dict[str, str]()
    stages = [s for s in run.stages if s.kind == "bags"]
    kinds = [s.config["kind"] for s in stages]
    for stage in stages:
        dataset = open_dataset(run.locate(stage.config["data"]))
        bags = load_bags(stage.out / "bags.npz", dataset_hash=dataset.hash, teacher_hash=None)
        anchors = np.unique(((np.arange(ANCHORS) + 0.5) * len(dataset) / ANCHORS).astype(int))
        name = label(bags.kind) if kinds.count(bags.kind) == 1 else stage.name
        members[key := bags.kind if name != stage.name else name], names[key] = bags.members, name
        measured = diagnose(bags.members, dataset.labels, stage.config["seed"], {})
        rows = pictures.bag_rows(dataset, bags.members, anchors, MEMBERS)
        purity, degrees = measured["purity"], measured["in_degree"]
        groups.append({"name": name, "k": bags.k, "purity": purity, "in_degree": degrees, "rows": rows})
    return {"bags": groups, "members": MEMBERS, **bag_chart(members, names)}


def bag_chart(members: dict[str, np.ndarray], names: dict[str, str]) -> BagChart:
    """In-degrees and overlaps of all bag files of the same images; `bag_chance`: the overlap of random bags."""
    count = max((len(bags) for bags in members.values()), default=0)
    same = {key: bags for key, bags in members.items() if len(bags) == count}
    if not same:
        return {"bag_chart": None}
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
        "bag_chart": pictures.bag_chart(degrees, labels, expected, overlaps, alt),
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


def curve(one: Student) -> Curve:
    """Loss and kNN lines of a run against student passes."""
    lines = read_lines(one.record.out / "metrics.jsonl")
    train, evals = ([line for line in lines if line["kind"] == kind] for kind in ("train", "eval"))
    return Curve(
        one.per_step * np.array([line["step"] + 1 for line in train]),
        np.array([line["loss"] for line in train]),
        one.per_step * np.array([line["step"] for line in evals]),
        np.array([line["knn"] for line in evals]),
    )


def smoothing(steps: int) -> int:
    """Steps of the moving average over a loss curve: a fiftieth of the run."""
    return max(1, steps // 50)


def curves_section(run: Run, names: dict[str, str]) -> CurveSection:
    runs = {arm: [curve(s) for s in group] for arm, group in run.arms.items()}
    if not any(len(c.loss) for group in runs.values() for c in group):
        return {"curves": None}
    distilled = next((g[0].record for g in run.arms.values() if g[0].record.kind == "distill"), None)
    teacher = run.teacher_of(distilled) if distilled else None
    windows = sorted({smoothing(s.steps) for group in run.arms.values() for s in group})
    alt = "Training loss and kNN accuracy against student passes, one colour per arm; final values in the table above."
    score = teacher.figures.get("knn") if teacher else None
    return {"curves": pictures.curves(runs, names, smoothing, score, alt), "windows": windows}


def time_section(run: Run) -> TimeSection:
    """Seconds by kind of stage over all seeds; students and teacher are told apart."""
    students = {s.record.name for group in run.arms.values() for s in group}
    groups: dict[str, float] = {}
    for stage in run.stages:
        who = " (students)" if stage.name in students else " (teacher)" if stage.kind == "pretrain" else ""
        groups[stage.kind + who] = groups.get(stage.kind + who, 0.0) + stage.seconds
    total = sum(groups.values())
    alt = "Seconds per kind of stage: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in groups.items())
    return {"times": pictures.times(groups, alt), "total": total, "stages": run.stages}


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
    rows: list[SettingRow] = []
    for name in dict.fromkeys(name for settings in columns.values() for name in settings):
        if name in WHERE or name == "seed":
            continue
        values = ["–" if settings.get(name) is None else str(settings[name]) for settings in columns.values()]
        rows.append({"name": name, "values": values, "differs": len(set(values)) > 1})
    return rows


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name; the student's `model` of a pre-training is called `student`, as in distilling."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            found |= flatten(value, f"{prefix}{name}.")
        else:
            found["student" if prefix + name == "model" else prefix + name] = value
    return found


def render(context: Page) -> str:
    """The page; every text is escaped. `UserError` where jinja2 is missing."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise UserError(MISSING.format(error)) from None
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("report.html.j2").render(context)
