"""Before a job: is one of its nodes slow? `srun ... python -m bingo.launch.job.preflight JOBDIR` on every rank's place.

Each rank measures its own GPU (or its share of the CPUs) while the others measure theirs; the first rank of a node also
writes and reads a file in the job's folder, asks what is broken about the node's GPUs, and then all-reduces with the
first ranks of other nodes, one at a time.
Rank 0 gathers the figures in a store, so that a node which hangs is only missing, and decides. All ranks exit with 0
(go on), or with 76 and the names of slow nodes in the attempt's `exclude`. A pre-flight that breaks never stops a job.
"""

import contextlib
import faulthandler
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bingo.errors import UserError
from bingo.files import open_file, write_json
from bingo.launch.cluster.slurm import run
from bingo.launch.job.gpu_faults import gpu_faults
from bingo.launch.job.slow_nodes import Decision, Pair, decide, tournament
from bingo.launch.job.spec import JobSpec, rank_variables
from bingo.launch.job.worker import Recorder, end
from bingo.launch.layout import attempt_folder, slurm_id
from bingo.variables import Place, place

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store

AGAIN = 76
MEASURED_S, ROUND_S, ROUNDS, END_S = 30.0, 3.0, 6, 55.0
"""Seconds until figures count as missing, seconds of a round, number of rounds, seconds until a rank ends itself."""
START_S = 3.0
"""Ranks wait this long for each other before each measurement, so that all measure beside the same neighbours."""
FILE_BYTES, CHUNK = 64 << 20, 8 << 20
DISK_S = 6.0
PAIR_BYTES = 16 << 20
NAMES = re.compile(r"[A-Za-z0-9._-]+(,[A-Za-z0-9._-]+)*")
"""A line of `exclude`; the batch script looks at the same characters."""
NONE = "(null)"
"""What Slurm calls nothing."""


def main(folder: Path) -> int:
    """Measure as one rank; the exit status."""
    began = time.monotonic()
    faulthandler.dump_traceback_later(END_S, exit=True)
    try:
        me = place({**os.environ, **rank_variables(shift=1)})
    except UserError as error:  # the job itself says it again, and ends
        print(f"no pre-flight: {error}", file=sys.stderr)
        return 0
    rank, attempt = me.rank, attempt_folder(folder)
    try:
        return preflight(folder, attempt, me, began)
    except Exception as error:
        text = f"pre-flight failed on rank {rank}: {type(error).__name__}: {error}"
        print(text, file=sys.stderr)
        Recorder(attempt, rank).event("preflight", slow={}, excluded=[], why=text)
        return 0


def preflight(folder: Path, attempt: Path, me: Place, began: float) -> int:
    """All phases; rank 0 announces the end of each in the store."""
    import torch.distributed as dist

    rank, size, limit = me.rank, me.size, timedelta(seconds=MEASURED_S)
    store = dist.TCPStore(me.address, me.port, None, rank == 0, limit, wait_for_workers=False)
    device = pick(me)
    first = me.local_rank == 0
    attempt.mkdir(parents=True, exist_ok=True)
    rates = measure(device, attempt if first else None, lambda name: _meet(store, f"start/{name}", size, START_S))
    mine = {"node": node_name(), "rank": rank, **rates, **(_faults() if first else {})}
    store.set(f"figures/{rank}", json.dumps(mine))
    if rank == 0:
        _await(store, [f"figures/{other}" for other in range(size)], began + MEASURED_S)
        known = [f"figures/{other}" for other in range(size) if store.check([f"figures/{other}"])]
        store.set("measured", json.dumps([json.loads(store.get(key)) for key in known]))
    store.wait(["measured"], timedelta(seconds=END_S))
    rows = json.loads(store.get("measured"))
    leaders = {row["node"]: row["rank"] for row in reversed(rows)}
    if leaders.get(mine["node"]) == rank:
        meet_others(store, sorted(leaders), mine["node"], device)
    if rank == 0:
        store.set("status", str(conclude(folder, attempt, rows, size, _pairs(store, sorted(leaders)), began)))
    store.wait(["status"], timedelta(seconds=END_S))
    status = int(store.get("status"))
    _meet(store, "heard", len(rows) if rank == 0 else 0, ROUND_S)  # the store lives in rank 0's process
    return status


def _faults() -> dict[str, Any]:
    """What is broken about this node's GPUs, in words, and how many memory errors they had in their lives."""
    found, lifetime = gpu_faults()
    return {"faults": found, "memory_errors": lifetime}


def node_name() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def pick(me: Place) -> "torch.device":
    """This rank's GPU, or the CPU with its share of the cores."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(me.local_rank % torch.cuda.device_count())
        return torch.device("cuda", torch.cuda.current_device())
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // me.local_size))
    return torch.device("cpu")


def measure(device: "torch.device", folder: Path | None, together: Callable[[str], None]) -> dict[str, Any]:
    """Rates of one rank by name (see `UNITS`), and what failed; a measurement that fails counts as a rate of zero.

    folder: where to write a file (None: not at all); together: called before each measurement.
    """
    import torch

    cuda = device.type == "cuda"
    side = 8192 if cuda else 1024
    work: dict[str, Callable[[], float]] = {"matmul": lambda: matmul(device, side), "memory": lambda: memory(device)}
    if cuda:
        work["copy"] = lambda: copy(device)
    rates: dict[str, Any] = {"device": torch.cuda.get_device_name(device) if cuda else "cpu", "errors": []}
    for name, rate in work.items():
        together(name)
        try:
            rates[name] = rate()
        except Exception as error:  # a broken GPU raises anything
            rates[name] = 0.0
            rates["errors"].append(f"{name}: {error}")
    if folder is not None:
        rates["write"], rates["read"], wrong = disk(folder)
        rates["errors"] += wrong
    return rates


def matmul(device: "torch.device", side: int) -> float:
    """TFLOP/s of side x side products, bf16 on a GPU and fp32 on a CPU: the best of a second."""
    import torch

    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return 2e-12 * side**3 / best(lambda: torch.mm(a, b), device)


def memory(device: "torch.device") -> float:
    """GB/s read plus written by a copy within the device's memory."""
    import torch

    source = torch.ones(256 << 20 if device.type == "cuda" else 64 << 20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2e-9 * source.numel() / best(lambda: target.copy_(source), device)


def copy(device: "torch.device") -> float:
    """GB/s from pinned host memory to the GPU."""
    import torch

    source = torch.ones(256 << 20, dtype=torch.uint8).pin_memory()
    target = torch.empty_like(source, device=device)
    return 1e-9 * source.numel() / best(lambda: target.copy_(source, non_blocking=True), device)


def best(run: Callable[[], object], device: "torch.device", seconds: float = 1.0) -> float:
    """The shortest time of a call, in seconds: other work on the node only ever adds to it."""
    import torch

    def once() -> float:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    for _ in range(2):
        once()
    times, over = [once()], time.perf_counter() + seconds
    while time.perf_counter() < over:
        times.append(once())
    return min(times)


def disk(folder: Path) -> tuple[float, float, list[str]]:
    """GB/s of writing (to the disk) and reading (past the page cache) up to 64 MiB in `folder`, and what failed."""
    path = folder / f".preflight-{node_name()}"
    chunk = os.urandom(CHUNK)
    try:
        with open(path, "wb", buffering=0) as file:
            start, written = time.perf_counter(), 0
            while written < FILE_BYTES and time.perf_counter() - start < DISK_S / 2:
                written += file.write(chunk)
            os.fsync(file.fileno())
            write = 1e-9 * written / (time.perf_counter() - start)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with open(path, "rb", buffering=0) as file:
            start, done = time.perf_counter(), 0
            while (part := len(file.read(CHUNK))) and time.perf_counter() - start < DISK_S / 2:
                done += part
            return write, 1e-9 * done / (time.perf_counter() - start), []
    except OSError as error:
        return 0.0, 0.0, [f"disk: {error.strerror}"]
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def meet_others(store: "Store", nodes: list[str], me: str, device: "torch.device") -> None:
    """All-reduce with one other node per round; all nodes begin a round together, or when the last one is over time."""
    for at, pairs in enumerate(tournament(nodes)[:ROUNDS]):
        over = time.monotonic() + ROUND_S + 1
        pair = next((pair for pair in pairs if me in pair), None)
        if pair is not None:
            try:
                rate = all_reduce(store, f"{at}", pair, pair.index(me), device)
            except Exception as error:  # the other one is gone, or the network between the two is
                print(f"pre-flight: {me} could not all-reduce with {pair}: {error}", file=sys.stderr)
                rate = 0.0
            if pair[0] == me:
                store.set(f"pair/{pair[0]}/{pair[1]}", str(rate))
        _meet(store, f"round/{at}", len(nodes), over - time.monotonic())


def all_reduce(store: "Store", name: str, pair: Pair, place: int, device: "torch.device") -> float:
    """GB/s of the best of five all-reduces of 16 MiB between two nodes."""
    import torch
    import torch.distributed as dist

    os.environ["TORCH_NCCL_BLOCKING_WAIT"] = "1"  # a time-out raises instead of ending the process
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore(f"{name}/{'/'.join(pair)}", store),
        rank=place,
        world_size=2,
        timeout=timedelta(seconds=ROUND_S),
    )
    try:
        values = torch.ones(PAIR_BYTES // 4, device=device)
        times = []
        for _ in range(6):
            start = time.perf_counter()
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
            float(values[0])  # waits for a GPU
            times.append(time.perf_counter() - start)
        return 1e-9 * PAIR_BYTES / min(times[1:])
    finally:
        dist.destroy_process_group()


def _pairs(store: "Store", nodes: list[str]) -> dict[Pair, float]:
    met = [pair for pairs in tournament(nodes)[:ROUNDS] for pair in pairs]
    return {(a, b): float(store.get(f"pair/{a}/{b}")) for a, b in met if store.check([f"pair/{a}/{b}"])}


def _meet(store: "Store", name: str, count: int, seconds: float) -> None:
    """Wait until `count` ranks have come here, or for so long."""
    over = time.monotonic() + seconds
    store.add(name, 1)
    while store.add(name, 0) < count and time.monotonic() < over:
        time.sleep(0.01)


def _await(store: "Store", keys: list[str], over: float) -> None:
    while not store.check(keys) and time.monotonic() < over:
        time.sleep(0.02)


def conclude(
    folder: Path, attempt: Path, rows: list[dict[str, Any]], size: int, pairs: dict[Pair, float], began: float
) -> int:
    """Rank 0: decide, write preflight.json, the event and perhaps `exclude`; the exit status of all ranks."""
    figures = by_node(rows)
    silent = tuple(sorted(set(job_nodes()) - set(figures)))
    earlier = earlier_excluded(attempt)
    spec, job = JobSpec.read(folder), job_row()
    decision = decide(
        figures,
        pairs,
        silent=silent,
        faults={row["node"]: row["faults"] for row in rows if row.get("faults")},
        kept=_listed(job.get("ReqNodeList", NONE)),
        earlier=earlier,
        min_nodes=spec.min_nodes,
        idle=len(idle_nodes(job, earlier)),
    )
    write_json(
        attempt / "preflight.json",
        {
            "time": time.time(),
            "seconds": round(time.monotonic() - began, 2),
            "nodes": figures,
            "ranks": rows,
            "missing_ranks": size - len(rows),
            "pairs": [{"nodes": pair, "gb_s": rate} for pair, rate in pairs.items()],
            "slow": decision.slow,
            "excluded": decision.exclude,
            "why": decision.why,
        },
    )
    tell(decision, Recorder(attempt, 0))
    if decision.exclude:
        (attempt / "exclude").write_text(",".join(decision.exclude) + "\n")
    return AGAIN if decision.exclude else 0


def tell(decision: Decision, recorder: Recorder) -> None:
    """The event for the ledger and a line for the log."""
    recorder.event("preflight", slow=decision.slow, excluded=list(decision.exclude), why=decision.why)
    told = "; ".join(f"{node}: {', '.join(why)}" for node, why in decision.slow.items())
    print(f"pre-flight: {decision.why}" + (f" ({told})" if told else ""))


def by_node(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """A node is as fast as the slowest of its ranks."""
    nodes: dict[str, dict[str, float]] = {}
    for row in rows:
        known = nodes.setdefault(row["node"], {})
        for name, value in row.items():
            if isinstance(value, float):
                known[name] = min(value, known.get(name, value))
    return nodes


def job_nodes() -> list[str]:
    """The nodes of this step, asked from Slurm; none where it does not answer."""
    nodelist = os.environ.get("SLURM_STEP_NODELIST")
    return _words("scontrol", "show", "hostnames", nodelist) if nodelist else []


def earlier_excluded(attempt: Path) -> tuple[str, ...]:
    """Nodes that earlier attempts of this job excluded; what is damaged excludes none."""
    job = attempt.name.rpartition("-")[0]
    found: set[str] = set()
    for path in attempt.parent.glob(f"{job}-*/exclude"):
        with contextlib.suppress(OSError), open_file(path) as file:
            lines = file.read(1 << 20).decode(errors="replace").splitlines()
            found.update(node for line in lines if NAMES.fullmatch(line) for node in line.split(","))
    return tuple(sorted(found))


def job_row() -> dict[str, str]:
    """What Slurm knows of this job, by its own names; nothing where it does not answer."""
    job = slurm_id()
    words = _words("scontrol", "show", "job", "-o", job) if job != "local" else []
    return dict(re.findall(r"(\S+?)=(\S*)", " ".join(words)))


def idle_nodes(row: dict[str, str], earlier: tuple[str, ...]) -> list[str]:
    """Other nodes that are free for this job; none where that is not certain (constraints, reservations, no Slurm)."""
    partition = os.environ.get("SLURM_JOB_PARTITION")
    if partition is None or not row or row.get("Features", NONE) != NONE or row.get("Reservation", NONE) != NONE:
        return []
    never = {*earlier, *_listed(row.get("ExcNodeList", NONE))}
    return [
        node for node in _words("sinfo", "-h", "-N", "-t", "idle", "-o", "%N", "-p", partition) if node not in never
    ]


def _listed(nodes: str) -> list[str]:
    """Names of the nodes in a list of Slurm's."""
    return _words("scontrol", "show", "hostnames", nodes) if nodes != NONE else []


def _words(*command: str) -> list[str]:
    """What a Slurm command prints, as words; none if it fails (in a container there may be no Slurm)."""
    with contextlib.suppress(UserError):
        return run(list(command), timeout=10).split()
    return []


if __name__ == "__main__":
    end(main(Path(sys.argv[1])))
