"""The batch script of a job, through submitit's renderer: the same bytes for the same job.

What it rests on, each seen on Slurm 22.05 (two nodes, KillWait 10 s):
- `scancel --signal=USR2`, and USR2 before the time limit, reach the ranks and neither this shell nor srun.
- A requeue by hand, a preemption and a plain `scancel` send SIGCONT and SIGTERM to ranks, srun and this shell at once.
  Ranks then have KillWait to leave. A shell without a trap dies; with one it lives as long to write down what happened.
  At the time limit it is the same, and nobody requeues: this script must, before it is killed together with the ranks.
  A preemption with GraceTime, or with preempt_send_user_signal, reaches only the ranks at first.
- In those cases Slurm has already decided. `scontrol requeue` after a requeue or a preemption fails and does no harm,
  but after a plain `scancel` it succeeds and brings a cancelled job back: so an attempt must know who ended it.
- One task of an array has the array's own number as its SLURM_JOB_ID: a requeue by that number is one of all tasks.
- `scancel --batch --signal=TERM` reaches this shell alone, and the log says "CANCELLED AT" as after a `scancel`. Only
  the job's state tells: it is still RUNNING.
- After `scontrol requeue` this shell gets SIGTERM too, and a job's ExcNodeList can be changed only from then on.
- `--kill-on-bad-exit` sends SIGCONT and SIGTERM to the other ranks, and SIGKILL after KillWait. srun's exit status is
  the largest of its ranks', which may be that of a rank it killed: causes are read from what the ranks wrote.
- On more nodes than it shall use srun wants --nodes and --ntasks; on fewer nodes than --nodes it refuses.
"""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bingo.errors import UserError, escaped
from bingo.launch.cluster.environment import unset_line
from bingo.launch.cluster.site import Site
from bingo.launch.job.attempt import STOP
from bingo.launch.job.causes import SCRIPT_ALONE, SETUP_ENDED, SETUP_FAILED
from bingo.launch.job.spec import JobSpec


def render(site: Site, spec: JobSpec, folder: Path, *, code: Path, python: str) -> str:
    """Text of the script that runs the job in `folder` (absolute) with the snapshot `code` and an interpreter.

    A dependency is not part of it: it is known only when the job is handed over (`sbatch --dependency=afterok:...`).
    """
    from submitit.slurm.slurm import _make_sbatch_string

    text: str = _make_sbatch_string(
        command="\n".join(_command(site, spec, python)),
        folder=folder,
        job_name=spec.name.replace(" ", "-"),
        time=site.time_min,
        nodes=spec.nodes,
        **_per_node(site, spec),
        gpus_per_node=site.gpus_per_node or None,
        gres=site.gres,
        partition=site.partition,
        qos=site.qos,
        account=site.account,
        constraint=site.constraint,
        exclude=site.exclude,
        exclusive=site.exclusive or None,
        mem=f"{int(site.mem_gb * 1024)}M" if site.mem_gb else None,
        map_count=len(spec.tasks) if spec.array else None,
        array_parallelism=spec.limit or len(spec.tasks),
        wckey=None,
        stderr_to_stdout=True,
        setup=_setup(site, spec, folder, code, python),
        teardown=_teardown(site),
        additional_parameters=_more(site, spec, folder),
        use_srun=False,
    )
    return text + "\n"


MOST_BYTES = 3800  # of a job's folder: names of files in it and of the snapshot beside it must fit into PATH_MAX


def check_folder(folder: Path) -> None:
    """`UserError` for a job's folder that would be taken for another: a line of a script ends at a newline, Slurm drops
    backslashes, and a colon ends a path of PYTHONPATH."""
    text = str(folder)
    if not text.isprintable() or "\\" in text or ":" in text:
        raise UserError(
            f"no job can have the folder {escaped(text)}: backslashes, colons, line breaks and other control "
            "characters are not allowed in it; choose another --out"
        )
    if len(os.fsencode(text)) > MOST_BYTES:
        raise UserError(f"a job's folder would have a name of more than {MOST_BYTES} bytes; choose a shorter --out")


def _per_node(site: Site, spec: JobSpec) -> dict[str, int]:
    """Ranks and CPUs of a node. Where fewer nodes will do, a node is one task of the job: told to put one task on each,
    Slurm 22.05 starts `--nodes=1-2` on one node even if two are free."""
    if spec.min_nodes < spec.nodes:
        return {"cpus_per_task": site.cpus_per_rank * spec.ranks_per_node}
    return {"ntasks_per_node": spec.ranks_per_node, "cpus_per_task": site.cpus_per_rank}


def _more(site: Site, spec: JobSpec, folder: Path) -> dict[str, Any]:
    """Parameters that submitit has no name for, or sets otherwise than needed here."""
    return {
        **({"nodes": f"{spec.min_nodes}-{spec.nodes}"} if spec.min_nodes < spec.nodes else {}),
        **({"reservation": site.reservation} if site.reservation else {}),
        "output": f"{str(folder).replace('%', '%%')}/{_id(spec)}_batch.log",  # Slurm replaces %j and the like
        "signal": f"USR2@{site.signal_delay_s}",
        "requeue": True,
        "kill-on-invalid-dep": "yes",
        **{name: _option(value) for name, value in site.sbatch.items() if value is not False},
    }


def _option(value: Any) -> Any:
    """For sbatch a backslash begins an escape, also between single quotes."""
    return value.replace("\\", "\\\\") if isinstance(value, str) else value


def _id(spec: JobSpec) -> str:
    return "%A_%a" if spec.array else "%j"


def _name(spec: JobSpec) -> str:
    """A job's id, as its script knows it."""
    return '"${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"' if spec.array else '"${SLURM_JOB_ID}"'


MARK = 'echo "bingo: attempt ${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST"'


def _setup(site: Site, spec: JobSpec, folder: Path, code: Path, python: str) -> list[str]:
    helper = shlex.join([*_in_container(site, ["srun", "--ntasks=1", "--nodes=1", "--overlap"]), python])
    return [
        "# What the shell that sends this has exported for other jobs is not meant.",
        unset_line(),
        *(f"# ${name} comes from the shell that sends this (pass_env)" for name in site.pass_env),
        *(_watched(site.setup, spec, folder) if site.setup else []),
        *(f"export {name}={shlex.quote(value)}" for name, value in site.env.items()),
        f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1  # the snapshot, not the folder that the job was sent from",
        f"job={shlex.quote(str(folder))}",
        f"slurm_id={_name(spec)}",
        f'bingo() {{ local verb=$1; shift; {helper} -m "bingo.launch.job.$verb" "$@"; }}',
        'goes_on() { [ "$(timeout 3 squeue -h -j "$slurm_id" -o %T 2> /dev/null)" = RUNNING ]; }',
        "# Slurm ends this attempt with SIGTERM: stay to write down how it went.",
        "told=",
        "trap 'told=TERM' TERM",
        MARK,
        *([f'[ -z "$broken" ] || echo "{SETUP_FAILED}$broken"'] if site.setup else []),
        'bingo attempt begin "$job"',
        f"[ $? != {STOP} ] || exit {STOP}",
    ]


def _watched(setup: Sequence[str], spec: JobSpec, folder: Path) -> list[str]:
    """The lines of `setup`. The first that fails is remembered. One that ends the script leaves the trace of a start,
    and a status that is no success. Options of the shell that they set hold for them alone."""
    attempt = f"{shlex.quote(str(folder))}/attempts/{_name(spec)}-${{SLURM_RESTART_COUNT:-0}}"
    return [
        "broken='' begun=''",
        "trap 'broken=${broken:-$BASH_COMMAND (status $?)}' ERR",
        "no_start() { # 143: Slurm's SIGTERM",
        '  [ -z "$begun" ] && [ $1 != 143 ] || return 0',
        f"  mkdir -p {attempt}; {MARK}",
        f'  echo "{SETUP_ENDED}${{broken:-exit $1}}"',
        "  [ $1 != 0 ] || exit 1",
        "}",
        "trap 'no_start $?' EXIT",
        "trap 'exit 143' TERM",
        *setup,
        "trap - ERR",
        "set +euf +o pipefail",
        "begun=yes",
    ]


def _in_container(site: Site, srun: list[str]) -> list[str]:
    """Words that start a program in the site's container, or none where there is no container."""
    return [*srun, *_container(site)] if site.container else []


def _container(site: Site) -> list[str]:
    box = site.container
    if box is None:
        return []
    return [
        f"--container-image={box.image}",
        *([f"--container-mounts={','.join(box.mounts)}"] if box.mounts else []),
        *([f"--container-workdir={box.workdir}"] if box.workdir else []),
    ]


def _command(site: Site, spec: JobSpec, python: str) -> list[str]:
    per_node = spec.ranks_per_node
    words = [
        "--kill-on-bad-exit=1",
        "--wait=20",
        f"--cpus-per-task={site.cpus_per_rank}",
        *_container(site),
        *site.srun_args,
    ]
    start = f"srun --nodes=$nodes --ntasks=$((nodes * {per_node})) {shlex.join(words)}"
    log = '"${job//%/%%}"/' + f"{_id(spec)}_%t_log.out"
    worker = f'{start} --unbuffered --output={log} {shlex.quote(python)} -u -m bingo.launch.job.worker "$job" &'
    lines = [f"nodes={spec.nodes}"]
    if spec.min_nodes < spec.nodes:
        lines = [
            f"# the most nodes here among which {spec.nodes} nodes' worth of ranks divides evenly",
            "nodes=$SLURM_JOB_NUM_NODES",
            f"while [ $(({spec.nodes} % nodes)) -ne 0 ]; do nodes=$((nodes - 1)); done",
        ]
    wait = _shell("wait.sh").replace("SCRIPT_ALONE", SCRIPT_ALONE).splitlines()
    if not spec.preflight:
        return [*lines, worker, *wait]
    preflight = f'{start} {shlex.quote(python)} -u -m bingo.launch.job.preflight "$job"'
    return [*lines, preflight, "rc=$?", "if [ $rc = 0 ]; then", worker, *wait, "fi"]


def _teardown(site: Site) -> list[str]:
    exclude = f"{shlex.quote(site.exclude)}," if site.exclude else ""
    return _shell("teardown.sh").replace("EXCLUDE", exclude).splitlines()


def _shell(name: str) -> str:
    """The commands of a shell file beside this one, without its head, which ends at the first empty line."""
    return (Path(__file__).parent / name).read_text().partition("\n\n")[2].rstrip()
