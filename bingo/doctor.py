"""`bingo doctor`: what is installed, what hardware and scheduler there is, and what would not work."""

import importlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bingo import __version__
from bingo.environment import environment_record, version
from bingo.errors import UserError
from bingo.variables import cache_folder, place

# Import name -> (distribution, what is lost without it). torch comes first: faiss must be imported after it.
NEEDS = {
    "torch": ("torch", "nothing but `check`, `doctor` and finished chains works"),
    "torchvision": ("torchvision", "strict image checks and every model but `tiny` are missing"),
    "triton": ("triton", "the fused GPU kernels are missing; the chunked PyTorch path works"),
    "nvidia.dali": (
        "nvidia-dali-cuda130",
        "no images can be decoded: pretrain, features, distill and eval stop with a sentence",
    ),
    "faiss": ("faiss-gpu", "kNN and k-means bags cannot be built; label and random bags can"),
    "submitit": ("submitit", "`bingo run` cannot start jobs; the single verbs work, also under torchrun"),
    "rich": ("rich", "no progress bars"),
    "matplotlib": ("matplotlib", "`bingo report` is missing: pip install 'bingo-distill[report]'"),
    "jinja2": ("jinja2", "`bingo report` is missing: pip install 'bingo-distill[report]'"),
    "timm": (
        "timm",
        "vision transformers, `timm:NAME` and `bingo export --format safetensors` are missing: "
        "pip install 'bingo-distill[teachers]'",
    ),
    "safetensors": (
        "safetensors",
        "safetensors files cannot be read, nor written by `bingo export`: pip install 'bingo-distill[teachers]'",
    ),
    "onnx": ("onnx", "`bingo export --format onnx` is missing: pip install 'bingo-distill[export]'"),
    "onnxscript": ("onnxscript", "`bingo export --format onnx` is missing: pip install 'bingo-distill[export]'"),
    "onnxruntime": ("onnxruntime", "`bingo export --format onnx` is missing: pip install 'bingo-distill[export]'"),
    "sklearn": ("scikit-learn", "`bingo demo-data` is missing: pip install 'bingo-distill[demo]'"),
}


def examine() -> dict[str, Any]:
    """All findings as JSON-ready values; `problems` lists what would not work, one sentence each."""
    packages, problems = {}, []
    for module, (distribution, loss) in NEEDS.items():
        error = import_error(module)
        packages[distribution] = version(distribution) if error is None else None
        if error:
            problems.append(f"{distribution} does not import ({error}): {loss}")
    record = environment_record()
    problems += [*environment_problems(), *hardware_problems(record)]
    return {
        "bingo": __version__,
        "where": str(Path(__file__).resolve().parent),
        **record,
        "packages": packages,
        "slurm": slurm(),
        "disk_free_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "problems": problems,
    }


def environment_problems() -> list[str]:
    """What the variables would break or slow down."""
    problems = []
    try:
        place()
    except UserError as error:
        problems.append(f"no stage would start: {error}")
    if cache_folder() is None:
        problems.append(
            "no folder for caches can be written: every start reads the headers of an image folder again; "
            "set XDG_CACHE_HOME to an absolute path"
        )
    return problems


def import_error(module: str) -> str | None:
    """Why a module does not import, in a few words; None when it does."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken binary package raises anything from ImportError to OSError
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return None


def hardware_problems(record: dict[str, Any]) -> list[str]:
    problems = []
    torch = sys.modules.get("torch")
    if not record["gpu"]:
        reason = (
            "no NVIDIA driver is loaded"
            if record["driver"] is None
            else "torch cannot use the driver; it may be older than torch's CUDA"
        )
        problems.append(
            f"no GPU ({reason}): everything runs on the CPU; the Triton kernels run only in their interpreter"
        )
    elif torch is not None and torch.cuda.get_device_capability()[0] < 8:
        problems.append(
            "this GPU is older than compute capability 8.0: the Triton kernels need 8.0; set --runtime.impl chunked"
        )
    libc, release = platform.libc_ver()
    if libc == "glibc" and tuple(int(x) for x in release.split(".")[:2]) < (2, 28):
        problems.append(f"glibc {release} is older than 2.28: the wheels of torch and DALI need a newer system")
    if not os.access(".", os.W_OK):
        problems.append("the current folder cannot be written: give --out elsewhere")
    return problems


def slurm() -> str | None:
    """Slurm's version line, or None without `sinfo`."""
    if shutil.which("sinfo") is None:
        return None
    try:
        done = subprocess.run(["sinfo", "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"Slurm's commands do not run ({type(error).__name__})"
    return done.stdout.strip() if done.returncode == 0 else "Slurm's commands without a configuration"


def scheduler_line(slurm: str | None) -> str:
    return f"{slurm}; see `bingo doctor --cluster`" if slurm else "no Slurm; local jobs only"


def show(findings: dict[str, Any]) -> str:
    """The findings for people."""
    rows = [
        ("bingo", f"{findings['bingo']} in {findings['where']}"),
        ("git", findings["git"] or "not a checkout"),
        ("python", f"{findings['python']} on {findings['system']}"),
        ("cpu", f"{findings['cores']} cores, {findings['memory_gib']} GiB, {findings['cpu']}"),
        ("gpu", ", ".join(findings["gpu"]) or "none"),
        ("scheduler", scheduler_line(findings["slurm"])),
        ("disk", f"{findings['disk_free_gb']} GB free here"),
    ]
    rows += [(name, found or "MISSING") for name, found in findings["packages"].items()]
    lines = [f"{name:20s} {value}" for name, value in rows]
    if findings["problems"]:
        return "\n".join([*lines, "", "what would not work here:", *(f"- {p}" for p in findings["problems"])])
    return "\n".join([*lines, "", "everything would work here"])
