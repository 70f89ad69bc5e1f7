"""What of the submitting shell's environment Slurm's commands and a job may see, so that a job is what its script says.

sbatch hands the environment that it is given on to the job, and Slurm's commands take options from it that win over
those of a script. Dropped are therefore the variables that they, the batch script's bash and the ranks would obey. The
rest stays: PATH, HOME, proxies, what modules set, functions of module systems (for `setup`), and NCCL_* and the like,
over which the site's `env` wins.
"""

import os
import re
from collections.abc import Iterable, Mapping

from bingo.errors import UserError
from bingo.variables import RANKS, for_ranks

KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
"""Where the cluster is, and who asks."""
ASKING = ("SACCT_", "SCANCEL_", "SCONTROL_", "SINFO_", "SPRIO_", "SQUEUE_", "SSTAT_", "SLURM_TIME_FORMAT")
"""What shapes questions and answers, often set for good in a shell's own files."""
OTHER_JOB = ("SLURM", "SUBMITIT_", "PMI_", "PMIX_")
"""What a job or session that this process runs in has of its own; set by hand, they change a new job too."""
SENDING = ("SALLOC_", "SBATCH_", "SRUN_", *OTHER_JOB)
SHELL = ("BASHOPTS", "GLOBIGNORE", "POSIXLY_CORRECT", "SHELLOPTS", "CUDA_VISIBLE_DEVICES")
"""What changes how the batch script is read, and the GPUs of the machine that submits."""
FUNCTION = re.compile(r"BASH_FUNC_(\w+)")
MODULES = re.compile(r"_*(module|ml|lmod|conda|mamba|micromamba|spack)", re.IGNORECASE)
SECRET = re.compile(r"(^|_)(API_?)?(KEY|TOKEN|PAT)$|SECRET|PASSW(OR)?D|PASSPHRASE", re.IGNORECASE)


def clean_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment (default: this process's) without what would change a job or an answer of Slurm's."""
    return {name: value for name, value in _given(environ).items() if not drops(name)}


def drops(name: str) -> bool:
    """Whether a variable of this name is left out."""
    if name in KEPT:
        return False
    function = FUNCTION.match(name)
    own = function is not None and not MODULES.match(function[1])
    return own or name in SHELL or for_ranks(name) or name.startswith((*ASKING, *SENDING))


def what_is_dropped(environ: Mapping[str, str] | None = None) -> str:
    """A sentence that names what somebody may have set on purpose, and that a job does not get; "" for nothing."""
    given = _given(environ)
    usual = (*ASKING, *OTHER_JOB) if "SLURM_JOB_ID" in given else ASKING
    found = sorted(
        FUNCTION.sub(r"\1()", name).rstrip("%") for name in given if drops(name) and not name.startswith(usual)
    )
    if not found:
        return ""
    return f"not passed to the jobs: {', '.join(found)} of this shell; the site file says what jobs are like"


def check_passed(names: Iterable[str], environ: Mapping[str, str] | None = None) -> None:
    """`UserError` for the first variable of `pass_env` that this shell does not export."""
    given = _given(environ)
    for name in names:
        if name not in given:
            raise UserError(
                f"the site's pass_env names {name}, which is not set in this shell; type `export {name}=...`, or take "
                "it out of pass_env"
            )


def secrets(names: Iterable[str]) -> list[str]:
    """Those names that sound like a password's."""
    return [name for name in names if SECRET.search(name)]


def in_scripts(names: Iterable[str]) -> str:
    """What to do about secrets in a site's `env`."""
    return (
        f"values of env ({', '.join(names)}) are written into every script and copy of the site file; if they are "
        "secret, name them in pass_env in place of env, and export them in the shell that sends"
    )


def unset_line() -> str:
    """The line of a batch script that forgets what srun, scontrol and the ranks would obey, also if a script is sent by
    hand. What sbatch sets from the script's own options (SLURM_HINT, ...) stays."""
    prefixes = ("TORCHELASTIC_", "SBATCH_", "SRUN_", "SCONTROL_")
    return " ".join(["unset", *RANKS, "SLURM_CLUSTERS", "SLURM_EXPORT_ENV", *(f'"${{!{name}@}}"' for name in prefixes)])


def _given(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if environ is None else environ
