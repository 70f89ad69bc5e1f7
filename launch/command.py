"""`bingo submit`, `sweep`, `repair` and `cancel`: flags in, words out."""

import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bingo.arguments import MOST, Parser, between
from bingo.errors import UserError
from bingo.identity import inputs_read_once
from bingo.launch.cluster.site import FLAGS, OF_RANKS, Cluster, read_site, with_flags
from bingo.launch.here import Report, run_here
from bingo.launch.job.spec import JobSpec
from bingo.launch.submit.flags import (
    CLUSTER,
    HERE,
    add_cluster_flags,
    add_recipe_flags,
    add_recipe_settings,
    cluster_name,
    combined,
    divided,
    overrides,
    recipe_of,
    refuse_elsewhere,
    refuse_settings,
    tell_of_teacher,
)
from bingo.launch.submit.graph import jobs_of, report_job
from bingo.launch.submit.submission import Submission
from bingo.paths import quoted
from bingo.recipes import CHAINS, RECIPE, Group, Recipe, summary
from bingo.stages import KINDS

if TYPE_CHECKING:
    from bingo.launch.submit.sweep import Sweep


def submit_flags() -> Parser:
    parser = Parser(
        "bingo submit",
        "Send a whole recipe to a cluster, or one stage: bingo submit distill --cluster FILE -- FLAGS.",
        "bingo submit digits --cluster site.toml --out runs/digits --dry-run",
    )
    names = f"one of: {', '.join(CHAINS)}; or a verb, its flags after --: {', '.join(KINDS)}"
    parser.add_argument("recipe", choices=[*CHAINS, *KINDS], metavar="RECIPE|VERB", help=names)
    parser.add_argument("--cluster", type=cluster_name, required=True, metavar="FILE", help=CLUSTER)
    add_recipe_flags(parser)
    add_cluster_flags(parser)
    return parser


def submit(argv: list[str], report: Report) -> int:
    """`bingo submit RECIPE|VERB`: on a cluster as jobs that depend on each other, or here (`local`, `debug`)."""
    words, flags = divided(argv)
    options = submit_flags().parse_args(words)
    refuse_elsewhere(options)
    if flags is None and options.recipe in KINDS:
        raise UserError(
            f"{options.recipe} needs its flags after `--`: bingo submit distill --cluster FILE -- --data DIR ..."
        )
    root, recipe = _what(options, flags)
    if options.cluster in HERE:
        device, inline = options.device or "auto", options.cluster == "debug"
        how = {"inline": inline, "replace": options.replace}
        return run_here(options.recipe, device, root, recipe, options.ranks_per_node, report, **how)
    cluster, jobs = jobs_for(options, recipe.jobs)
    send(options, root, options.recipe, cluster, jobs, summary(options.recipe, recipe) if recipe.arms else None)
    return 0


def _what(options: Any, flags: list[str] | None) -> tuple[Path, Recipe]:
    """The root and the chain: of a recipe, or of a single verb."""
    if options.recipe in CHAINS:
        root = _absolute(options.out or Path("runs") / options.recipe)
        recipe = recipe_of(options, root, flags)
        tell_of_teacher(options, here=options.cluster in HERE)
        return root, recipe
    from bingo.flags import stage_of

    refuse_settings(options, options.recipe)
    stage = stage_of(options.recipe, flags or [])
    # Not the stage's own folder: that holds what its content hash covers, and nothing else.
    root = _absolute(options.out or stage.out.with_name(f"{stage.out.name}.jobs"))
    return root, Recipe((Group(stage.name, (stage,), KINDS[stage.kind].distributed),), {})


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def jobs_for(options: Any, groups: Iterable[Group]) -> tuple[Cluster, list[JobSpec]]:
    """The cluster of a site file, and the groups as its jobs."""
    groups, given = list(groups), overrides(options)
    for key in OF_RANKS if not any(group.parallel for group in groups) else ():
        if given[key] is not None:
            raise UserError(f"{FLAGS[key]} is for jobs on all ranks, and there is none here: leave it out")
    cluster = with_flags(read_site(Path(options.cluster)), given)
    return cluster, jobs_of(groups, cluster, min_nodes=options.min_nodes, preflight=options.preflight)


def send(
    options: Any,
    root: Path,
    name: str,
    cluster: Cluster,
    jobs: list[JobSpec],
    recipe: Mapping[str, Any] | None = None,
) -> None:
    """Send jobs, or say what would be sent. recipe: what recipe.json says; then the last job makes the report."""
    from bingo.launch.submit.send import dry_run
    from bingo.launch.submit.send import submit as send_all

    if recipe is not None:
        jobs = [*jobs, report_job(jobs, root, recipe)]
    if options.dry_run:
        for text in dry_run(root, jobs, cluster, replace=options.replace):
            print(text)
        return
    facts = {
        "recipe": name,
        "command": shlex.join(["bingo", *sys.argv[1:]]),
        "cluster": str(_absolute(Path(options.cluster))),
        "overrides": overrides(options),
    }
    more = {} if recipe is None else {RECIPE: recipe}
    submission = send_all(root, jobs, cluster, facts, more, replace=options.replace)
    if submission is None:
        print(f"{root}: everything is done; nothing was sent")
        return
    for text in _sent(submission):
        print(text)


def _sent(submission: Submission) -> Iterator[str]:
    """What was sent, one line per job or run of a sweep, and where to look."""
    lines = {line.job: line for line in submission.sent()}
    for job in submission.jobs:
        line = lines.get(job.name)
        after = [need for need in job.needs if need in lines]
        waits = f"   after {', '.join(after)}" if after else ""
        yield f"{job.name:28s} {line.slurm_id if line else 'done before':>11s}{waits}"
        for task, (stage, *_) in enumerate(job.tasks if job.array else ()):
            shown = f"{line.slurm_id}_{task}" if line and task in line.tasks else "done before"
            yield f"  {stage.name:26s} {shown:>11s}"
    yield f"submission {submission.folder}; see `bingo status {quoted(submission.root)}`"


def sweep_flags() -> Parser:
    parser = Parser(
        "bingo sweep",
        "Run a recipe, or a verb, with every combination of some settings. What is equal is made once.",
        "bingo sweep distill --cluster site.toml --set optim.lr=0.03,0.06 --set seed=0,1,2 --out runs/lr -- --data ...",
    )
    names = f"one of: {', '.join(CHAINS)}; or a verb, its flags after --: {', '.join(KINDS)}"
    parser.add_argument("verb", choices=[*CHAINS, *KINDS], metavar="RECIPE|VERB", help=names)
    parser.add_argument("--cluster", type=cluster_name, required=True, metavar="FILE", help=CLUSTER)
    setting = "a setting and its values, with commas between them; once for each setting"
    parser.add_argument("--set", action="append", required=True, metavar="NAME=VALUES", help=setting)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for all runs")
    parser.add_argument(
        "--limit", type=between(0, MOST), metavar="N", help="runs at a time (default: 0, as many as fit)"
    )
    add_recipe_settings(parser)
    add_cluster_flags(parser)
    return parser


def sweep(argv: list[str], report: Report) -> int:
    """`bingo sweep VERB --set NAME=VALUE,VALUE --out ROOT -- FLAGS`: a grid as one array of jobs; or of chains."""
    words, flags = divided(argv)
    options = sweep_flags().parse_args(words)
    refuse_elsewhere(options)
    if options.verb in CHAINS:
        return _sweep_chains(options, _absolute(options.out), flags, report)
    refuse_settings(options, options.verb)
    from bingo.flags import flags_of, stage_of
    from bingo.launch.submit.sweep import grid

    root = _absolute(options.out)
    parse = partial(stage_of, parser=flags_of(options.verb), mixed=True)
    # On this machine the stages run within this call, and what they write may be what later ones read.
    with nullcontext() if options.cluster in HERE else inputs_read_once():
        found = grid(options.verb, flags or [], options.set, root, parse)
        return _send_sweep(options, root, found)


def _sweep_chains(options: Any, root: Path, flags: list[str] | None, report: Report) -> int:
    """A recipe with every combination: all chains as one, and a report that compares them."""
    from bingo.launch.submit.sweep import chains

    found = chains(options.set, root, partial(combined, options, flags))
    for name in [name for name, recipe in found.items() if not recipe.jobs]:
        print(f"# {name} adds nothing: its stages are those of others")
    runs = {name: recipe for name, recipe in found.items() if recipe.jobs}
    groups = tuple(group for recipe in runs.values() for group in recipe.jobs)
    arms = {arm: names for recipe in found.values() for arm, names in recipe.arms.items()}
    whole, name = Recipe(groups, arms, root), f"sweep {options.verb}"
    if options.cluster in HERE:
        device, inline = options.device or "auto", options.cluster == "debug"
        how = {"inline": inline, "replace": options.replace}
        return run_here(name, device, root, whole, options.ranks_per_node, report, **how)
    cluster, jobs = jobs_for(options, groups)
    places = [
        (run, at % options.limit + 1 if options.limit else 0) for at, run in enumerate(runs) for _ in runs[run].jobs
    ]
    jobs = [replace(job, run=run, lane=lane) for job, (run, lane) in zip(jobs, places, strict=True)]
    send(options, root, name, cluster, jobs, summary(name, whole) if arms else None)
    return 0


def _send_sweep(options: Any, root: Path, found: "Sweep") -> int:
    for name, same in found.merged:
        print(f"# {name} is the same as {same}")
    groups = tuple(Group(stage.name, (stage,), KINDS[stage.kind].distributed) for stage in found.stages)
    if options.cluster in HERE:
        recipe, ranks, inline = Recipe(groups, {}), options.ranks_per_node, options.cluster == "debug"
        how = {"inline": inline, "replace": options.replace}
        return run_here("sweep", "auto", root, recipe, ranks, lambda _: 0, **how)
    cluster, jobs = jobs_for(options, groups)
    tasks = tuple(job.tasks[0] for job in jobs)
    array = replace(jobs[0], name="sweep", tasks=tasks, array=True, limit=options.limit or 0)
    send(options, root, f"sweep {options.verb}", cluster, [array])
    return 0


def repair_flags() -> Parser:
    parser = Parser(
        "bingo repair",
        "Send again what failed, was cancelled or never sent, with what depends on it; what is done stays.",
        "bingo repair runs/digits",
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="the folder given to `bingo submit --out`")
    parser.add_argument("--new-code", action="store_true", help="run the package as it is now, not the first snapshot")
    return parser


def repair(argv: list[str]) -> int:
    """`bingo repair ROOT`: send again what failed, was cancelled or never sent."""
    options = repair_flags().parse_args(argv)
    from bingo.launch.submit.repair import repair as send_again

    for text in send_again(_absolute(options.root), new_code=options.new_code):
        print(text)
    return 0


def cancel_flags() -> Parser:
    about = "End the jobs of a submission that wait or run, or some and what needs them."
    parser = Parser("bingo cancel", about, "bingo cancel runs/digits teacher")
    parser.add_argument("root", type=Path, metavar="ROOT", help="the folder given to `bingo submit --out`")
    parser.add_argument("jobs", nargs="*", default=[], metavar="JOB", help="names of jobs (default: all)")
    return parser


def cancel(argv: list[str]) -> int:
    """`bingo cancel ROOT [JOB...]`: end what waits or runs."""
    options = cancel_flags().parse_args(argv)
    from bingo.launch.submit.repair import cancel as end

    lines = end(_absolute(options.root), options.jobs)
    for text in lines:
        print(text)
    print(f"go on with `bingo repair {quoted(options.root)}`" if lines else "nothing to cancel: no job waits or runs")
    return 0
