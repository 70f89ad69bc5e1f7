"""A real Slurm on one machine, for tests and for readers without a cluster: several nodes on loopback, with accounting.

python -m tests.cluster.slurm start DIR [--nodes 2] | shell DIR -- COMMAND | stop DIR

Needs root and Debian's packages slurmctld slurmd slurm-client slurmdbd munge mariadb-server-core mariadb-client-core
(`.ci/run` installs them). The daemons live in mount namespaces of their own, one per node: there node names resolve
and a node's memory limits are its own, while the machine's /etc/hosts and other Slurms stay untouched. A node is
therefore exactly the processes of one namespace, which is how it is "switched off". DIR must be new: its job ids start
anew, and an older job's files would be taken for a new one's. Where they start is another number in each cluster that
runs, because the ranks' port follows from the job's id.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.cluster.slurm_conf import MEMORY, Settings, memory_limits, partitions, write_files

PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch", "nsenter")
# On a busy machine everything takes several times as long; how long it takes is not what is tested.
PATIENCE = 5
# `bingo` is beside the interpreter, also where its environment is not active.
SEARCH = f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def missing() -> str | None:
    """Why no cluster can be started here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=SEARCH) is None]
    if absent:
        return f"no Slurm to start: {', '.join(absent)} not installed (see .ci/run)"
    return None if os.geteuid() == 0 else "a test Slurm needs root"


class Cluster:
    """A running or stopped cluster below `base`; nodes are called c1, c2, ...

    Partitions: `debug` (default), `low` (preempted by requeueing), `high` (preempts).
    """

    def __init__(self, base: Path, settings: Settings | None = None) -> None:
        self.base, self.settings = base.resolve(), settings or Settings()

    @property
    def nodes(self) -> list[str]:
        return [f"c{i + 1}" for i in range(self.settings.nodes)]

    @property
    def environment(self) -> dict[str, str]:
        """For commands of Slurm and of the suite; without an outer job's variables."""
        outer = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        return {**outer, "SLURM_CONF": str(self.base / "slurm.conf"), "PATH": SEARCH}

    def start(self) -> "Cluster":
        """Start all daemons and wait until every node is idle; about ten seconds."""
        if (self.base / "slurm.conf").exists():
            raise SystemExit(f"{self.base} holds a cluster already; choose a new folder (job ids start anew)")
        for name in ("state", "log", "spool", "run"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        ports = free_ports(3 + self.settings.nodes)
        write_files(self.base, self.settings, ports)
        try:
            self._hold("base", ["unshare", "-m", "--propagation", "private"], "mount --make-rshared / && "
                       f"mount --bind '{self.base}/hosts' /etc/hosts")  # fmt: skip
            self._start_munge()
            if self.settings.accounting:
                self._start_accounting(ports)
            self.start_controller()
            for node in self.nodes:
                self._hold_node(node)
                self.start_node(node)
            self.wait_idle()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End every process of the cluster's namespaces: daemons, steps, and what runs inside; files stay."""
        for name in [*self._held(), "base"]:
            holder = self._holder(name)
            if holder is not None:
                self._kill_all(namespace(holder), spare=None)
                wait_for(lambda pid=holder: not alive(pid), 20, f"the end of {name}")  # type: ignore[misc]
        shutil.rmtree(self.base / "db", ignore_errors=True)  # large, and of no use to a reader
        for folder in [*sorted(self._cgroup.rglob("*"), reverse=True), self._cgroup]:
            if folder.is_dir():
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def __enter__(self) -> "Cluster":
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    # Commands

    def command(self, *words: object, cwd: Path | None = None, node: str = "base") -> list[str]:
        """A command line that runs `words` where node names resolve (on `node`, with its mounts)."""
        holder = self._holder(node)
        assert holder is not None, f"the cluster in {self.base} is not running"
        inside = ["nsenter", "-m", "-t", str(holder), "--", "env", "-C", str(cwd or Path.cwd())]
        return [*inside, *map(str, words)]

    def run(
        self, *words: object, check: bool = True, timeout: float = 120, node: str = "base", **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the cluster to its end; extra: more environment variables."""
        done = subprocess.run(
            self.command(*words, node=node), env={**self.environment, **extra}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=PATIENCE * timeout, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def sbatch(self, *words: object, **extra: str) -> str:
        """Submit; returns the job's id."""
        return self.run("sbatch", "--parsable", *words, **extra).stdout.strip().split(";")[0]

    def show(self, job: str) -> dict[str, str]:
        """A job's fields from `scontrol show job`: JobState, Reason, Restarts, NodeList, ...; {} once forgotten."""
        text = self.run("scontrol", "-o", "show", "job", job, check=False).stdout
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def state(self, job: str) -> str:
        return self.show(job).get("JobState", "")

    def attempts(self, job: str) -> list[dict[str, str]]:
        """Every start of a job as accounting has it (`sacct -D`); lags by a second."""
        names = ("JobID", "State", "ExitCode", "Start", "End", "NodeList")
        lines = self.run("sacct", "-nPXD", "-j", job, "-o", ",".join(names)).stdout.splitlines()
        return [dict(zip(names, line.split("|"), strict=True)) for line in lines]

    def node_states(self) -> dict[str, str]:
        lines = self.run("sinfo", "-hN", "-o", "%N %T").stdout.splitlines()
        return dict(sorted({tuple(line.split()) for line in lines}))  # type: ignore[arg-type]

    def wait_idle(self, nodes: Sequence[str] = (), timeout: float = 60) -> None:
        """Until these nodes (all) are idle and answer."""
        wanted = nodes or self.nodes
        wait_for(lambda: all(self.node_states().get(n) == "idle" for n in wanted), timeout, f"idle {wanted}", 0.2)

    def wait_job(self, job: str, states: Sequence[str], timeout: float = 120) -> str:
        """Until a job is in one of these states; at once an error when it ends in another."""
        ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL")
        wait_for(lambda: self.state(job) in (*states, *ends), timeout, f"job {job} in {states}", 0.3)
        state = self.state(job)
        assert state in states, f"job {job} is {state}, not in {states}"
        return state

    # Faults

    def kill_slurmd(self, node: str) -> None:
        """SIGKILL the daemon alone: what it started goes on."""
        os.kill(int((self.base / "run" / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)

    def start_controller(self) -> None:
        """Start (again) slurmctld, and wait until it listens."""
        port = next(line for line in (self.base / "slurm.conf").read_text().splitlines() if "SlurmctldPort" in line)
        self.run("slurmctld", "-f", self.base / "slurm.conf")
        wait_for(lambda: listens(int(port.split("=")[1])), 30, "slurmctld")

    def stop_controller(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End slurmctld, and wait until it is gone."""
        pid = int((self.base / "run" / "slurmctld.pid").read_text())
        os.kill(pid, number)
        wait_for(lambda: not alive(pid), 30, "the end of slurmctld")

    def kill_node(self, node: str) -> None:
        """SIGKILL all that runs on a node at once, as a power cut does."""
        holder = self._holder(node)
        assert holder is not None
        self._kill_all(namespace(holder), spare=holder)

    def start_node(self, node: str) -> None:
        """Start (again) the daemon of a node."""
        (self.base / "spool" / node).mkdir(exist_ok=True)
        self.run("slurmd", "-f", self.base / "slurm.conf", "-N", node, node=node)

    def processes(self, node: str) -> list[int]:
        """Ids of all processes on a node."""
        holder = self._holder(node)
        assert holder is not None
        return [pid for pid in processes_in(namespace(holder)) if pid != holder]

    def preempt(self, nodes: Sequence[str], seconds: int = 5) -> str:
        """Put a job of the partition `high` on these nodes; returns its id."""
        script = f"#!/bin/sh\nsleep {seconds}\n"
        path = self.base / "preempt.sh"
        path.write_text(script)
        where = ["-p", "high", "-N", len(nodes), "-w", ",".join(nodes), "-o", "/dev/null", "--exclusive"]
        return self.sbatch(*where, "-J", "preempt", path)

    def reconfigure(self, **changes: object) -> None:
        """Change settings that slurmctld reads again while it runs (`grace_s`, `user_signal`)."""
        self.settings = Settings(**{**vars(self.settings), **changes})  # type: ignore[arg-type]
        text = (self.base / "slurm.conf").read_text()
        kept = [line for line in text.splitlines() if not line.startswith(("PartitionName=", "SlurmctldParameters="))]
        (self.base / "slurm.conf").write_text("\n".join([*kept, partitions(self.settings)]))
        self.run("scontrol", "reconfigure")

    def mount_tmpfs(self, folder: Path, size: str) -> None:
        """A small disk at `folder`, seen inside the cluster only (`run("df", ...)`)."""
        folder.mkdir(parents=True, exist_ok=True)
        self.run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)

    @contextlib.contextmanager
    def covered(self, folder: Path, by: Path, node: str = "base") -> Iterator[None]:
        """Another folder is seen at `folder`, on every node or on one alone; files that are open stay as they are."""
        self.run("mount", "--bind", by, folder, node=node)
        try:
            yield
        finally:
            self.run("umount", "-l", folder, node=node)

    @contextlib.contextmanager
    def read_only(self, folder: Path) -> Iterator[None]:
        """Nothing below `folder` can be opened for writing, on every node; what is open already can be written."""
        bare = self.base / "run" / f"read-only-{time.time_ns()}"
        bare.mkdir()
        with self.covered(bare, folder):
            self.run("mount", "-o", "remount,bind,ro", bare)  # a bind of it is read-only from its first moment
            with self.covered(folder, bare):
                yield

    def outside(self, path: Path) -> Path:
        """Where a file of the cluster, which may lie on a small disk of its own, is found by other processes."""
        return Path(f"/proc/{self._holder('base')}/root{path}")

    # Starting

    @property
    def _cgroup(self) -> Path:
        return MEMORY / ("bingo" + str(self.base).replace("/", "-"))

    def _start_munge(self) -> None:
        run = self.base / "run"
        (run / "munge.key").write_bytes(os.urandom(128))
        (run / "munge.key").chmod(0o400)
        files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid", "seed-file": "munge.seed"}
        options = [f"--{option}={run / name}" for option, name in files.items()]
        self.run("munged", "--force", *options, f"--log-file={self.base}/log/munged.log")

    def _start_accounting(self, ports: list[int]) -> None:
        log, data, own_socket = self.base / "log", self.base / "db", self.base / "run" / "my.sock"
        plain = ["--no-defaults", f"--datadir={data}", "--innodb-log-file-size=8M", "--innodb-buffer-pool-size=64M"]
        self.run("mariadb-install-db", *plain, "--user=root", "--auth-root-authentication-method=normal",
                 "--skip-test-db")  # fmt: skip
        with open(log / "mariadb.log", "wb") as out:
            subprocess.Popen(
                self.command("mariadbd", *plain, "--user=root", f"--socket={own_socket}", f"--port={ports[2]}",
                             "--bind-address=127.0.0.1", "--innodb-lock-wait-timeout=900",
                             f"--pid-file={self.base}/run/mariadb.pid"),
                env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        wait_for(lambda: listens(ports[2]), 60, "mariadbd")
        grants = "".join(
            f"CREATE USER 'slurm'@'{host}' IDENTIFIED BY 'slurm'; GRANT ALL ON slurm_acct_db.* TO 'slurm'@'{host}';"
            for host in ("localhost", "127.0.0.1")
        )
        self.run("mariadb", "--no-defaults", "-S", own_socket, "-e", "CREATE DATABASE slurm_acct_db;" + grants)
        self.run("slurmdbd")
        wait_for(
            lambda: self.run("sacctmgr", "-n", "list", "cluster", check=False).returncode == 0, 60, "slurmdbd", 0.2
        )
        self.run(
            "sacctmgr", "-i", "add", "cluster", "bingo"
        )  # slurmctld refuses a cluster that accounting does not know

    def _hold_node(self, node: str) -> None:
        """A namespace that receives the cluster's mounts and shows the node a memory controller of its own."""
        own = self._cgroup / node
        limits = f"mount --bind '{own}' '{MEMORY}'" if memory_limits() else "true"
        if memory_limits():
            own.mkdir(parents=True, exist_ok=True)
        self._hold(node, self.command("unshare", "-m", "--propagation", "slave"), limits)

    def _hold(self, name: str, unshare: list[str], prepare: str) -> None:
        """Start a process that does nothing but keep a namespace; its title names the cluster and the node."""
        ready = self.base / "run" / f"{name}.ready"
        script = f"{prepare} && touch '{ready}' && exec -a '{self._title(name)}' sleep infinity"
        with open(self.base / "log" / "namespaces.log", "ab") as out:
            process = subprocess.Popen(
                [*unshare, "bash", "-c", script], env=self.environment, stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        (self.base / "run" / f"{name}.holder").write_text(str(process.pid))
        wait_for(lambda: self._holder(name) is not None or process.poll() is not None, 10, f"namespace {name}")
        assert process.poll() is None, (self.base / "log" / "namespaces.log").read_text()

    def _title(self, name: str) -> str:
        return f"slurm-namespace {self.base} {name}"

    def _held(self) -> list[str]:
        return [path.stem for path in (self.base / "run").glob("*.holder") if path.stem != "base"]

    def _holder(self, name: str) -> int | None:
        """Process id of a namespace's holder; None unless a process of exactly this title lives."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.base / "run" / f"{name}.holder").read_text())
            if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode() == self._title(name):
                return pid
        return None

    def _kill_all(self, space: str, spare: int | None) -> None:
        assert space != namespace(os.getpid())
        for _ in range(5):  # again, because a process may start another while it is being found
            found = [pid for pid in processes_in(space) if pid != spare]
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not found:
                break
            time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """TCP ports that are free on loopback, below those that the system or `rank_variables` hands out."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(10_000, 15_360), 500):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise SystemExit("no free ports between 10000 and 15360")


def slowness() -> float:
    """How many processes share a core now, at least 1: so many times longer may anything take."""
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(holds: Callable[[], bool], timeout: float, what: str, pause: float = 0.05) -> None:
    """timeout: seconds that are plenty on an idle machine; `PATIENCE` times as long is waited."""
    deadline = time.monotonic() + PATIENCE * timeout
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE * timeout:.0f} s in vain for {what}")
        time.sleep(pause)


def namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/mnt")


def processes_in(space: str) -> Iterator[int]:
    """Processes in a mount namespace; zombies, which have left it, are not among them."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if namespace(int(entry)) == space:
                    yield int(entry)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.slurm", description=__doc__)
    parser.add_argument("verb", choices=("start", "stop", "shell"))
    parser.add_argument("dir", type=Path)
    parser.add_argument("--nodes", type=int, default=2)
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    given = parser.parse_args(words[:split])
    if given.verb != "stop" and (reason := missing()):
        parser.error(reason)
    cluster = Cluster(given.dir, Settings(nodes=given.nodes))
    if given.verb == "shell":
        return subprocess.run(cluster.command(*(words[split + 1 :] or ["bash"])), env=cluster.environment).returncode
    if given.verb == "stop":
        cluster.stop()
        return 0
    cluster.start()
    print(f"{given.nodes} nodes are up; python -m tests.cluster.slurm shell {given.dir} -- sinfo")
    return 0


if __name__ == "__main__":
    sys.exit(main())
