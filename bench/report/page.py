"""`bingo report`: runs, benchmarks and jobs as one self-contained HTML page that opens offline."""

from collections.abc import Sequence
from pathlib import Path

from bingo.bench.drawing import MISSING
from bingo.bench.report import jobs, measured, recipe, runs
from bingo.bench.report.contents import Page, Part
from bingo.bench.report.inputs import Inputs, read_inputs
from bingo.bench.report.results import Run, load
from bingo.bench.report.summary import summary_lines
from bingo.errors import UserError
from bingo.files import atomic_write, hash_json
from bingo.recipes import PAGE, RECIPE

OURS = b'<meta name="color-scheme" content="light dark">'
"""In the head of every page since the first release."""
MOST_BYTES = 5_000_000


def write_report(root: Path, out: Path) -> list[str]:
    """Write the page about the recipe in `root` to `out` and return a few lines of text that say the same.

    `UserError`: no recipe.json, stages that are not finished or do not belong together, matplotlib or jinja2 missing.
    """
    run = load(root)
    check(out)
    save({"title": f"Distillation report: {run.name}", "results": run.results, "parts": [recipe_part(run)]}, out)
    return [*summary_lines(run), f"report: {out}"]


def write_reports(paths: Sequence[Path], out: Path | None) -> list[str]:
    """Write one page about everything that is given, and return lines that say the same.

    out: None for the usual place, see `place`. `UserError`: see `read_inputs` and `write_report`.
    """
    found, to = read_inputs(paths), out or place(paths)
    check(to)
    if len(paths) == 1 and found == Inputs(recipes=[paths[0]]):
        return write_report(paths[0], to)
    parts, lines, hashes = list[Part](), list[str](), list[str]()
    for root in found.recipes:
        run = load(root)
        parts.append(recipe_part(run))
        lines += [f"{root}:", *summary_lines(run)]
        hashes.append(run.results)
    if found.trainings:
        shown = runs.content([runs.read_training(folder) for folder in found.trainings])
        parts.append({"title": "Trainings", "template": "runs.html.j2", "content": shown})
        lines += runs.told(shown)
    results = [result for _, result in found.results]
    for path, result in found.results:
        shows = measured.content(result, results)
        title = f"{result['measurement']}: {path.name}"
        parts.append({"title": title, "template": "measured.html.j2", "content": shows})
        lines.append(f"{path}: {len(result['rows'])} rows of {result['measurement']}")
    for folder in found.submissions:
        ledger = jobs.content(folder)
        parts.append({"title": f"Jobs: {folder.name}", "template": "jobs.html.j2", "content": ledger})
        lines.append(f"{folder}: {len(ledger['starts'])} starts")
    title = parts[0]["title"] if len(parts) == 1 else "Report"
    save({"title": title, "results": hash_json([hashes, lines]), "parts": parts}, to)
    return [*lines, f"report: {to}"]


def recipe_part(run: Run) -> Part:
    return {"title": f"Recipe: {run.name}", "template": "recipe.html.j2", "content": recipe.content(run)}


def place(paths: Sequence[Path]) -> Path:
    """report.html in the folder of the one recipe or submission that is given; otherwise here."""
    only = paths[0]
    inside = len(paths) == 1 and ((only / RECIPE).exists() or (only / "submissions").is_dir())
    return only / PAGE if inside else Path(PAGE)


def check(out: Path) -> None:
    """Before anything is measured or drawn: `UserError` for what is missing, and for what the page would overwrite."""
    try:
        import jinja2  # noqa: F401
        import matplotlib as mpl  # noqa: F401
    except ImportError as error:
        raise UserError(MISSING.format(error)) from None
    if out.exists() and OURS not in out.read_bytes():
        raise UserError(
            f"{out} is there and is no page of bingo; move it, or name another file: bingo report --out FILE"
        )


def save(page: Page, out: Path) -> None:
    """Write a page, whole or not at all; `UserError` where it is too large."""
    html = render(page).encode()
    if len(html) > MOST_BYTES:
        raise UserError(
            f"the page would have {len(html) / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}: give fewer paths"
        )
    with atomic_write(out) as file:
        file.write(html)


def render(page: Page) -> str:
    """The page; every text is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("report.html.j2").render(page)
