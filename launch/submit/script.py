"""The batch script of a job, through submitit's renderer: the same bytes for the same job.

What it rests on, each seen on Slurm 22.05 (two nodes, KillWait 10 s):
- `scancel --signal=USR2`, and USR2 before the time limit, reach the ranks and neither this shell nor srun.
- A requeue by hand, a preemption and a plain `scancel` send SIGCONT and SIGTERM to ranks, srun and this shell at once.
  Ranks then have KillWait to leave. A shell without a trap dies; with one it lives as long to write down what happened.
  At the time limit it is the same, and nobody requeues: this script must, before it is killed together with the ranks.
  A preemption with GraceTime, or with preempt_send_user_signal, reaches only the ranks at first.
- In those cases Slurm has already decided. `scontrol requeue` after a requeue or a preemption fails and does no harm,
  but after a plain `scancel` it succeeds and brings a cancelled job back: so an attempt must know who ended it.
- After `scontrol requeue` this shell gets SIGTERM too, and a job's ExcNodeList can be changed only from then on.
- `--kill-on-bad-exit` sends SIGCONT and SIGTERM to the other ranks, and SIGKILL after KillWait. srun's exit status is
  the largest of its ranks', which may be that of a rank it killed: causes are read from what the ranks wrote.
- On more nodes than it shall use srun wants --nodes and --ntasks; on fewer nodes than --nodes it refuses.
"""

import shlex
from pathlib import Path
from typing import Any

from bingo.launch.cluster.site import Site
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
        setup=_setup(site, folder, code, python),
        teardown=_teardown(site, spec),
        additional_parameters=_more(site, spec, folder),
        use_srun=False,
    )
    return text + "\n"


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
        "output": str(folder / f"{_id(spec)}_batch.log"),
        "signal": f"USR2@{site.signal_delay_s}",
        "requeue": True,
        "kill-on-invalid-dep": "yes",
        **site.sbatch,
    }


def _id(spec: JobSpec) -> str:
    return "%A_%a" if spec.array else "%j"


def _setup(site: Site, folder: Path, code: Path, python: str) -> list[str]:
    helper = shlex.join([*_in_container(site, ["srun", "--ntasks=1", "--nodes=1", "--overlap"]), python])
    return [
        *site.setup,
        *(f"export {name}={shlex.quote(value)}" for name, value in site.env.items()),
        f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1  # the snapshot, not the folder that the job was sent from",
        f"job={shlex.quote(str(folder))}",
        f'bingo() {{ local verb=$1; shift; {helper} -m "bingo.launch.job.$verb" "$@"; }}',
        "# Slurm ends this attempt with SIGTERM: stay to write down how it went.",
        "told=",
        "trap 'told=TERM' TERM",
        'echo "bingo: attempt ${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST"',
        'bingo attempt begin "$job"',
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
    log = '"$job"/' + f"{_id(spec)}_%t_log.out"
    worker = f'{start} --unbuffered --output={log} {shlex.quote(python)} -u -m bingo.launch.job.worker "$job" &'
    lines = [f"nodes={spec.nodes}"]
    if spec.min_nodes < spec.nodes:
        lines = [
            f"# the most nodes here among which {spec.nodes} nodes' worth of ranks divides evenly",
            "nodes=$SLURM_JOB_NUM_NODES",
            f"while [ $(({spec.nodes} % nodes)) -ne 0 ]; do nodes=$((nodes - 1)); done",
        ]
    wait = _shell("wait.sh").splitlines()
    if not spec.preflight:
        return [*lines, worker, *wait]
    preflight = f'{start} {shlex.quote(python)} -u -m bingo.launch.job.preflight "$job"'
    return [*lines, preflight, "rc=$?", "if [ $rc = 0 ]; then", worker, *wait, "fi"]


def _teardown(site: Site, spec: JobSpec) -> list[str]:
    exclude = f"{shlex.quote(site.exclude)}," if site.exclude else ""
    name = "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" if spec.array else "${SLURM_JOB_ID}"
    text = _shell("teardown.sh").replace("EXCLUDE", exclude).replace("ATTEMPTS", f'"{name}"')
    return text.replace("LOG", f'"$job/{name}_batch.log"').splitlines()


def _shell(name: str) -> str:
    """The commands of a shell file beside this one, without its head, which ends at the first empty line."""
    return (Path(__file__).parent / name).read_text().partition("\n\n")[2].rstrip()
