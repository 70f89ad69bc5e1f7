"""What the shell that submits has exported, and names of folders: on a real Slurm a job is what its dry run shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bingo.launch.submit.submission import newest
from tests.cluster.slurm import Cluster
from tests.support.ranks import ROOT

pytestmark = pytest.mark.slurm

SETUP = """setup = ["env > \\"$HOSTLOG\\"", "srun --overlap --ntasks=1 --nodes=1 env > \\"$HOSTLOG.rank\\""]
pass_env = ["A_KEY"]
"""
HOSTILE = {
    "SBATCH_PARTITION": "high", "SBATCH_TIMELIMIT": "3", "SBATCH_NO_REQUEUE": "1", "SBATCH_ARRAY_INX": "0-2",
    "SBATCH_EXPORT": "NONE", "SBATCH_JOB_NAME": "other", "SBATCH_OUTPUT": "/nowhere", "SBATCH_HINT": "nomultithread",
    "SLURM_CLUSTERS": "other", "SLURM_EXPORT_ENV": "NONE", "SLURM_CPU_BIND": "none", "SLURM_NTASKS": "7",
    "SLURM_RESTART_COUNT": "3", "SRUN_EXPORT_ENV": "NONE", "SRUN_CPUS_PER_TASK": "7", "SQUEUE_STATES": "FAILED",
    "SCANCEL_STATE": "PENDING", "SINFO_PARTITION": "high", "SACCT_FORMAT": "User", "SHELLOPTS": "errexit",
    "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "nowhere",
    "MASTER_PORT": "1", "TORCHELASTIC_RESTART_COUNT": "5", "BASH_FUNC_srun%%": "() { exit 9; }",
    "BASH_FUNC_module%%": "() { echo module; }",
}  # fmt: skip


def test_a_job_is_what_its_dry_run_shows(cluster: Cluster, source: Path, tmp_path: Path) -> None:
    root = tmp_path / "50%j it's" / "root"
    site = tmp_path / "site.toml"
    text = (ROOT / "tests" / "cluster" / "site.toml").read_text().replace("nodes = 2", "nodes = 1")
    site.write_text(SETUP.replace("$HOSTLOG", str(tmp_path / "env")) + text)
    site.chmod(0o600)
    flags = ["--data", source, "--kind", "random", "--k", "1", "--out", root / "bags"]
    environ = {**cluster.environment, **HOSTILE, "A_KEY": "s3cr3t"}

    def bingo(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bingo", *map(str, words)],
            cwd=ROOT, env={**environ, **more}, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip

    words = ["submit", "bags", "--cluster", site, "--out", root]
    shown = bingo(*words, "--dry-run", "--", *flags)
    sent = bingo(*words, "--", *flags)
    assert sent.returncode == 0, sent.stderr
    assert "not passed to the jobs: SBATCH_ARRAY_INX, " in sent.stderr
    made = newest(root)
    assert made is not None
    (line,) = made.sent()
    script = made.job_folder("bags") / "script.sh"
    assert script.read_text() in re.sub(r"submissions/[0-9-]+", f"submissions/{made.id}", shown.stdout)
    assert script.stat().st_mode & 0o777 == 0o600
    found = cluster.run("scontrol", "-o", "show", "job", line.slurm_id).stdout
    for part in (" Requeue=1 ", " Partition=debug ", " TimeLimit=00:30:00 ", " JobName=bags ", " CPUs/Task=1 "):
        assert part in found.replace(f"JobId={line.slurm_id} JobName", " JobName"), (part, found)
    assert "ArrayJobId" not in found
    cluster.wait_job(line.slurm_id, ["COMPLETED"])
    folder = made.job_folder("bags")
    assert {path.name for path in folder.glob("*.*") if "log" in path.name} == {
        f"{line.slurm_id}_batch.log", f"{line.slurm_id}_0_log.out"
    }  # fmt: skip
    for name in ("env", "env.rank"):
        had = dict(line.split("=", 1) for line in (tmp_path / name).read_text().splitlines() if "=" in line)
        assert had["A_KEY"] == "s3cr3t"
        same = {key for key, value in HOSTILE.items() if had.get(key) == value}
        assert same <= {"BASH_FUNC_module%%"}, same
        assert had.get("SLURM_NTASKS", "1") == "1"
    assert not [path for path in root.rglob("*") if path.is_file() and b"s3cr3t" in path.read_bytes()]
    assert "bags" in bingo("status", root).stdout
    assert (root / "bags" / "bags.npz").exists()
