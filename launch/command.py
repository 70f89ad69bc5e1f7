"""`bingo run`, `submit`, `sweep`, `repair` and `cancel`: flags in, words out."""

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bingo.arguments import MOST, Parser, between, path, whole
from bingo.errors import UserError, brief
from bingo.files import write_json
from bingo.launch.cluster.site import Cluster, read_site, with_size
from bingo.launch.job.spec import JobSpec
from bingo.launch.local import Chain, Job, run_chain, run_inline
from bingo.launch.submit.graph import jobs_of
from bingo.launch.submit.submission import Submission
from bingo.recipes import CHAINS, Group, Recipe, build
from bingo.stages import KINDS
from bingo.variables import named_gpus

Report = Callable[[list[str]], int]


def run_flags() -> Parser:
    about = "Run a whole recipe on this machine; what is done is skipped."
    parser = Parser("bingo run", about, "bingo run digits --seeds 2")
    parser.add_argument("recipe", choices=list(CHAINS), metavar="RECIPE", help=f"one of: {', '.join(CHAINS)}")
    add_recipe_flags(parser)
    ranks = "processes per job (default: 2, or one per GPU if fewer)"
    parser.add_argument("--ranks", type=whole, metavar="N", help=ranks)
    return parser


def run(argv: list[str], report: Report) -> int:
    """`bingo run RECIPE`: the chain through submitit's local executor, then the report."""
    options = run_flags().parse_args(argv)
    root = options.out or Path("runs") / options.recipe
    device = options.device or "auto"
    return run_here(options.recipe, device, root, recipe_of(options, root), options.ranks, report)


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
    words, flags = _divide(argv)
    options = submit_flags().parse_args(words)
    refuse_elsewhere(options)
    if (flags is not None) != (options.recipe in KINDS):
        wanted = "needs its flags after `--`" if options.recipe in KINDS else "takes no flags after `--`"
        raise UserError(f"{options.recipe} {wanted}: bingo submit distill --cluster FILE -- --data DIR ...")
    root, recipe = _what(options, flags)
    if options.cluster in HERE:
        device, inline = options.device or "auto", options.cluster == "debug"
        return run_here(options.recipe, device, root, recipe, options.ranks_per_node, report, inline=inline)
    cluster, jobs = jobs_for(options, recipe.jobs)
    if send(options, root, options.recipe, cluster, jobs) and recipe.arms:
        write_json(root / "recipe.json", summary(options.recipe, recipe))
    return 0


def _divide(argv: list[str]) -> tuple[list[str], list[str] | None]:
    """The words before `--`, and those after it (None: there is no `--`)."""
    at = argv.index("--") if "--" in argv else None
    return argv[:at], None if at is None else argv[at + 1 :]


def _what(options: Any, flags: list[str] | None) -> tuple[Path, Recipe]:
    """The root and the chain: of a recipe, or of a single verb."""
    if flags is None:
        root = _absolute(options.out or Path("runs") / options.recipe)
        return root, recipe_of(options, root)
    from bingo.flags import stage_of

    for name in RECIPE_SETTINGS:
        if getattr(options, name) is not None:
            raise UserError(f"--{name} is a setting of recipes; {options.recipe} takes its flags after `--`")
    stage = stage_of(options.recipe, flags)
    # Not the stage's own folder: that holds what its content hash covers, and nothing else.
    root = _absolute(options.out or stage.out.with_name(f"{stage.out.name}.jobs"))
    return root, Recipe((Group(stage.name, (stage,), KINDS[stage.kind].distributed),), {})


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def jobs_for(options: Any, groups: Iterable[Group]) -> tuple[Cluster, list[JobSpec]]:
    """The cluster of a site file, and the groups as its jobs."""
    cluster = with_size(read_site(Path(options.cluster)), options.nodes, options.ranks_per_node)
    return cluster, jobs_of(groups, cluster, min_nodes=options.min_nodes, preflight=options.preflight)


def send(options: Any, root: Path, name: str, cluster: Cluster, jobs: list[JobSpec]) -> bool:
    """Send jobs, or say what would be sent; whether something was sent."""
    from bingo.launch.submit.send import dry_run
    from bingo.launch.submit.send import submit as send_all

    if options.dry_run:
        for text in dry_run(root, jobs, cluster):
            print(text)
        return False
    facts = {
        "recipe": name,
        "command": shlex.join(["bingo", *sys.argv[1:]]),
        "cluster": str(_absolute(Path(options.cluster))),
        "overrides": {"nodes": options.nodes, "ranks_per_node": options.ranks_per_node},
    }
    submission = send_all(root, jobs, cluster, facts)
    if submission is None:
        print(f"{root}: everything is done; nothing was sent")
        return False
    for text in _sent(submission):
        print(text)
    return True


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
    yield f"submission {submission.folder}; see `bingo status {submission.root}`"


MOST_RANKS = 1024  # on one machine
HERE = ("local", "debug")


def cluster_name(text: str) -> str:
    """A word of `HERE`, or the path of a site file."""
    return text if text in HERE else str(path(text))


CLUSTER = "site file (docs/cluster.md); local: here; debug: in this process"
RECIPE_SETTINGS = ("seeds", "epochs", "device", "images", "teacher")


def add_cluster_flags(parser: Parser) -> None:
    """Where and how jobs run."""
    parser.add_argument("--dry-run", action="store_true", help="print what would be sent")
    nodes = "nodes of a job on all ranks (default: the site's)"
    parser.add_argument("--nodes", type=whole, metavar="N", help=nodes)
    ranks = "ranks on each node (default: the site's; --cluster local: 2, or one per GPU if fewer)"
    parser.add_argument("--ranks-per-node", type=whole, metavar="N", help=ranks)
    fewer = "go on with as few, with the same global batch (default: all nodes)"
    parser.add_argument("--min-nodes", type=whole, metavar="N", help=fewer)
    parser.add_argument("--preflight", action="store_true", help="test the nodes first and leave slow ones out")


def refuse_elsewhere(options: Any) -> None:
    """`UserError` for a flag that says something about a cluster, where there is none."""
    names = ["dry_run", "nodes", "min_nodes", "preflight", *(["ranks_per_node"] if options.cluster == "debug" else [])]
    for name in names if options.cluster in HERE else []:
        value = getattr(options, name)
        if value is not None and value is not False:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} is for a cluster, and --cluster {options.cluster} is none: leave it out")


def sweep_flags() -> Parser:
    parser = Parser(
        "bingo sweep",
        "Run a verb with every combination of some settings, as one array of jobs. Equal ones are run once.",
        "bingo sweep distill --cluster site.toml --set optim.lr=0.03,0.06 --set seed=0,1,2 --out runs/lr -- --data ...",
    )
    verbs = f"one of: {', '.join(KINDS)}; its flags follow after --"
    parser.add_argument("verb", choices=list(KINDS), metavar="VERB", help=verbs)
    parser.add_argument("--cluster", type=cluster_name, required=True, metavar="FILE", help=CLUSTER)
    setting = "a setting and its values, with commas between them; once for each setting"
    parser.add_argument("--set", action="append", required=True, metavar="NAME=VALUES", help=setting)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for all runs")
    parser.add_argument(
        "--limit", type=between(0, MOST), metavar="N", help="runs at a time (default: 0, as many as fit)"
    )
    add_cluster_flags(parser)
    return parser


def sweep(argv: list[str]) -> int:
    """`bingo sweep VERB --set NAME=VALUE,VALUE --out ROOT -- FLAGS`: a grid as one array of jobs."""
    words, flags = _divide(argv)
    options = sweep_flags().parse_args(words)
    refuse_elsewhere(options)
    limit = options.limit or 0
    from bingo.flags import stage_of
    from bingo.launch.submit.sweep import grid

    root = _absolute(options.out)
    found = grid(options.verb, flags or [], options.set, root, partial(stage_of, mixed=True))
    for name, same in found.merged:
        print(f"# {name} is the same as {same}")
    groups = tuple(Group(stage.name, (stage,), KINDS[stage.kind].distributed) for stage in found.stages)
    if options.cluster in HERE:
        recipe, ranks, inline = Recipe(groups, {}), options.ranks_per_node, options.cluster == "debug"
        return run_here("sweep", "auto", root, recipe, ranks, lambda _: 0, inline=inline)
    cluster, jobs = jobs_for(options, groups)
    tasks = tuple(job.tasks[0] for job in jobs)
    array = replace(jobs[0], name="sweep", tasks=tasks, array=True, limit=limit)
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
    print(f"go on with `bingo repair {options.root}`" if lines else "nothing to cancel: no job waits or runs")
    return 0


def add_recipe_flags(parser: Parser) -> None:
    """The recipe's folder and its settings; None where the recipe's own value is wanted."""
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for everything (default: runs/RECIPE)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="ImageNet: folder with train and val")
    parser.add_argument("--teacher", type=Path, metavar="PATH", help="ImageNet: run folder or MoCo-v2 checkpoint")
    parser.add_argument("--seeds", type=whole, metavar="N", help="digits: seeds per arm (default: 5)")
    epochs = (
        "epochs of distilled students (default: 30, ImageNet 200; digits: the undistilled one makes twice as many, "
    )
    parser.add_argument("--epochs", type=whole, metavar="N", help=f"{epochs}the teacher five times)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], help="where it runs (default: auto)")


def recipe_of(options: Any, root: Path) -> Recipe:
    """The chain that the flags describe."""
    return build(options.recipe, root, {name: getattr(options, name) for name in RECIPE_SETTINGS})


def run_here(
    name: str, device: str, root: Path, recipe: Recipe, ranks: int | None, report: Report, *, inline: bool = False
) -> int:
    """Run a chain on this machine (inline: in this process, as one rank), then write the report beside it."""
    gpus = visible_gpus(device)
    if ranks is None:
        ranks = min(2, gpus) if gpus else 2
    if not 1 <= ranks <= MOST_RANKS:
        raise UserError(f"--ranks {brief(ranks)} is not allowed: it must be between 1 and {MOST_RANKS}")
    chain = Chain(root, tuple(Job(group.stages, ranks if group.parallel else 1) for group in recipe.jobs))
    records = run_inline(chain) if inline else run_chain(chain, gpus=gpus)
    if recipe.arms:
        _report(name, recipe, root, any(not record["skipped"] for record in records), report)
    return 0


def _report(name: str, recipe: Recipe, root: Path, changed: bool, report: Report) -> None:
    if changed or not (root / "report.html").exists():
        write_json(root / "recipe.json", summary(name, recipe))
        report([str(root)])
    else:
        print(f"{'report':28s} {'done before':>11s}   {root / 'report.html'}")


def summary(name: str, recipe: Recipe) -> dict[str, Any]:
    """What recipe.json says: the stages, and which evaluations belong to which arm."""
    stages = [stage.to_json() for group in recipe.jobs for stage in group.stages]
    return {"recipe": name, "arms": recipe.arms, "stages": stages}


def visible_gpus(device: str) -> int:
    """GPUs that a local job may have, counted without importing torch."""
    if device == "cpu":
        return 0
    named = named_gpus()
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) if named is None else named
