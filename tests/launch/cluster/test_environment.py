"""What of the submitting shell's environment goes to Slurm and to jobs."""

import subprocess

import pytest

from bingo.errors import UserError
from bingo.launch.cluster.environment import (
    check_passed,
    clean_environment,
    drops,
    secrets,
    unset_line,
    what_is_dropped,
)
from bingo.variables import RANKS

pytestmark = pytest.mark.quick

CHANGES_A_JOB = (
    *RANKS, "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_USE_AGENT_STORE", "CUDA_VISIBLE_DEVICES",
    "SBATCH_PARTITION", "SBATCH_TIMELIMIT", "SBATCH_NO_REQUEUE", "SBATCH_ARRAY_INX", "SBATCH_EXPORT", "SBATCH_CLUSTERS",
    "SLURM_CLUSTERS", "SLURM_CPU_BIND", "SLURM_EXPORT_ENV", "SLURM_HINT", "SLURM_NTASKS", "SLURM_RESTART_COUNT",
    "SLURMD_NODENAME", "SRUN_EXPORT_ENV", "SRUN_CPUS_PER_TASK", "SCANCEL_STATE", "SCANCEL_INTERACTIVE", "SQUEUE_STATES",
    "SINFO_FORMAT", "SACCT_FORMAT", "SCONTROL_ALL", "SHELLOPTS", "BASHOPTS", "GLOBIGNORE", "POSIXLY_CORRECT",
    "BASH_FUNC_srun%%", "BASH_FUNC_scontrol()",
)  # fmt: skip
STAYS = (
    "PATH", "HOME", "SLURM_CONF", "SLURM_JWT", "PYTHONPATH", "LD_LIBRARY_PATH", "NCCL_DEBUG", "OMP_NUM_THREADS",
    "RANKS", "WANDB_API_KEY", "BASH_ENV", "BASH_FUNC_module%%", "BASH_FUNC_ml%%", "BASH_FUNC__module_raw%%",
    "MODULEPATH",
)  # fmt: skip


def test_what_would_change_a_job_is_dropped_and_the_rest_stays() -> None:
    environ = dict.fromkeys((*CHANGES_A_JOB, *STAYS), "1")
    assert clean_environment(environ) == dict.fromkeys(STAYS, "1")
    assert not [name for name in CHANGES_A_JOB if not drops(name)]


def test_it_says_what_is_dropped() -> None:
    shell = {"PATH": "", "SBATCH_PARTITION": "x", "SLURM_CPU_BIND": "none", "BASH_FUNC_srun%%": "", "SQUEUE_FORMAT": ""}
    assert what_is_dropped(shell) == (
        "not passed to the jobs: SBATCH_PARTITION, SLURM_CPU_BIND, srun() of this shell; the site file says what jobs "
        "are like"
    )
    assert "SLURM" not in what_is_dropped({**shell, "SLURM_JOB_ID": "7"}), "those of the job that sends are no news"
    assert what_is_dropped({"PATH": "", "SLURM_CONF": "x", "SACCT_FORMAT": ""}) == ""


def test_a_variable_that_must_be_passed_on() -> None:
    check_passed(["A_KEY"], {"A_KEY": ""})
    with pytest.raises(UserError, match=r"pass_env names B_KEY, which is not set in this shell; type `export B_KEY="):
        check_passed(["A_KEY", "B_KEY"], {"A_KEY": "secret"})


def test_names_that_sound_like_a_password() -> None:
    found = ["WANDB_API_KEY", "HF_TOKEN", "aws_secret_access_key", "DB_PASSWORD", "TOKEN", "APIKEY", "PGPASSWORD"]
    usual = ["TOKENIZERS_PARALLELISM", "NCCL_SOCKET_IFNAME", "KEYBOARD", "MONKEY", "PATH", "GLOO_SOCKET_IFNAME"]
    assert secrets([*found, *usual]) == found


def test_the_script_forgets_them_too() -> None:
    """Of a script that is sent by hand; what sbatch sets from the script's own options stays."""
    environ = dict.fromkeys([*RANKS, "TORCHELASTIC_RUN_ID", "SRUN_EXPORT_ENV", "SLURM_EXPORT_ENV", "SBATCH_X"], "1")
    command = ["bash", "-uc", f"{unset_line()}\nenv"]
    done = subprocess.run(
        command, env={**environ, "SLURM_HINT": "nomultithread", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    left = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert left - {"PWD", "SHLVL", "_"} == {"SLURM_HINT", "PATH"}
