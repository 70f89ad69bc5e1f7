"""The environment record of a run: hardware, versions, git state, scheduler. Every number is reported beside one."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "triton", "nvidia-dali-cuda130", "faiss-gpu", "submitit", "numpy", "pillow")


def environment_record() -> dict[str, Any]:
    """A JSON-ready description of this machine and environment; never fails, absent things are None."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "packages": {name: version(name) for name in PACKAGES},
        "gpu": gpus(),
        "driver": driver(),
        "git": git_state(),
        "slurm": {
            name: value
            for name, value in sorted(os.environ.items())
            if name in ("SLURM_JOB_ID", "SLURM_NNODES", "SLURM_JOB_PARTITION")
        },
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def version(package: str) -> str | None:
    """Installed version, without importing the package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def gpus() -> list[str]:
    """GPU names as torch sees them, without importing torch where it is not loaded yet."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def driver() -> str | None:
    path = Path("/proc/driver/nvidia/version")
    return path.read_text().splitlines()[0].strip() if path.exists() else None


def git_state() -> str | None:
    """`sha` or `sha+dirty` of the checkout the code runs from; None for an installed wheel."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    try:
        sha = subprocess.run(
            ["git", "-C", here, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "-C", here, "status", "--porcelain"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{sha}+dirty" if dirty else sha
