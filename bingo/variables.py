"""Variables of the environment: whoever is told something by them is told here, checked, and without torch.

The ranks' are those of torch.distributed, which torchrun sets and `bingo.launch` sets for its jobs.
"""

import getpass
import os
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from bingo.errors import UserError

RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
AGENT = "TORCHELASTIC_USE_AGENT_STORE"
"""torchrun sets it where its own process, and not rank 0, listens at MASTER_ADDR:MASTER_PORT."""
REMEDY = f"start the ranks with torchrun, which sets all of these, or type `unset {' '.join(RANKS)}` for one process"


@dataclass(frozen=True)
class Place:
    """This process among the ranks: its number of all, its number on this node, and where rank 0 is found.

    agent: somebody else listens there, also for rank 0; start: how often torchrun started the ranks again.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    address: str = "127.0.0.1"
    port: int = 0
    agent: bool = False
    start: int = 0


def place(environ: Mapping[str, str] = os.environ) -> Place:
    """What the variables of the ranks say; one process where they are not set.

    `UserError` for the first that is no number, out of range, missing, or does not fit the others.
    """
    size, rank = (whole(environ, name) for name in ("WORLD_SIZE", "RANK"))
    if size is None and rank:
        raise UserError(f"RANK={rank} is set, but WORLD_SIZE is not; {REMEDY}")
    if size == 0:
        raise UserError(f"WORLD_SIZE=0 is not allowed: it must be at least 1; {REMEDY}")
    size = size or 1
    if rank is None and size > 1:
        raise UserError(f"WORLD_SIZE={size} is set, but RANK is not; {REMEDY}")
    rank = rank or 0
    if rank >= size:
        raise UserError(f"RANK={rank} is not allowed: it must be below WORLD_SIZE={size}, ranks count from 0; {REMEDY}")
    local_size = whole(environ, "LOCAL_WORLD_SIZE")
    local_size = size if local_size is None else local_size
    if not 1 <= local_size <= size:
        raise UserError(
            f"LOCAL_WORLD_SIZE={local_size} is not allowed: it must be between 1 and WORLD_SIZE={size}; {REMEDY}"
        )
    local_rank = whole(environ, "LOCAL_RANK") or 0
    if local_rank >= local_size:
        raise UserError(
            f"LOCAL_RANK={local_rank} is not allowed: it must be below {local_size}, the number of ranks on this node; "
            f"{REMEDY}"
        )
    if size == 1:
        return Place(rank, size, local_rank, local_size)
    address, port = environ.get("MASTER_ADDR", ""), whole(environ, "MASTER_PORT")
    if not address.strip():
        state = "empty" if "MASTER_ADDR" in environ else "not set"
        raise UserError(
            f"MASTER_ADDR is {state}: it must be the host name or address of RANK=0, 127.0.0.1 on one machine; {REMEDY}"
        )
    if port is None or not 1 <= port <= 65535:
        state = "is not set" if port is None else f"={port} is not allowed"
        raise UserError(
            f"MASTER_PORT{'' if port is not None else ' '}{state}: it must be a port between 1 and 65535 that is free "
            f"on the machine of RANK=0, such as 29500; {REMEDY}"
        )
    start = whole(environ, "TORCHELASTIC_RESTART_COUNT") or 0
    return Place(rank, size, local_rank, local_size, address, port, environ.get(AGENT) == "True", start)


def whole(environ: Mapping[str, str], name: str) -> int | None:
    """A variable's whole number of 0 or more, None where it is not set; `UserError` if it is something else."""
    text = environ.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        state = f"{name}={text!r} is not a whole number of 0 or more" if text else f"{name} is empty"
        raise UserError(f"{state}; {REMEDY if name in RANKS else f'type `unset {name}`'}")
    return int(text)


def needed(environ: Mapping[str, str], name: str) -> int:
    """As `whole`, where the variable must be set."""
    number = whole(environ, name)
    if number is None:
        raise UserError(f"{name} is not set, but other variables of Slurm's are; start the ranks with srun")
    return number


def for_ranks(name: str) -> bool:
    """Whether a variable tells a rank of torch.distributed its place."""
    return name in RANKS or name.startswith("TORCHELASTIC_")


def forget_ranks(environ: MutableMapping[str, str] = os.environ) -> list[str]:
    """Take the variables of the ranks out of the environment; those that spoke of several, as `RANK=1`."""
    found = {name: environ.pop(name) for name in list(environ) if for_ranks(name)}
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    return [f"{name}={found[name]}" for name in alone if found.get(name, alone[name]) != alone[name]]


def node(environ: Mapping[str, str] = os.environ) -> str:
    """The name of this machine, as Slurm calls it where it runs here."""
    return environ.get("SLURMD_NODENAME") or socket.gethostname()


def named_gpus() -> int | None:
    """How many GPUs CUDA_VISIBLE_DEVICES names, as CUDA reads it (nothing counts from -1 on); None: it is not set."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return None
    devices = [device.strip() for device in named.split(",")]
    ends = [at for at, device in enumerate(devices) if device.startswith("-") or device in ("", "NoDevFiles")]
    return min(ends, default=len(devices))


def user() -> str:
    """The name of the user; the number where the system knows no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def cache_folder() -> Path | None:
    """The folder for what can be made again, which exists then: $XDG_CACHE_HOME/bingo or ~/.cache/bingo.

    None where there is no home directory or the folder cannot be written: go on without.
    """
    base, home = os.environ.get("XDG_CACHE_HOME", ""), os.environ.get("HOME")
    try:
        if not os.path.isabs(base):  # as its standard says: others are ignored
            if home is not None and not os.path.isabs(home):
                return None
            base = str(Path.home() / ".cache")
        folder = Path(base) / "bingo"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: nobody knows a home directory
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None
