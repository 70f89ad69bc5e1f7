"""Site files: every wrong key and value is one sentence; the scripts of three kinds of cluster, byte for byte."""

import contextlib
import dataclasses
import os
import re
import sys
from pathlib import Path

import pytest

from bingo.cli import main
from bingo.errors import UserError
from bingo.launch.cluster.site import Site, minutes_of, read_site, with_flags
from tests.support.golden import compact
from tests.support.ranks import ROOT
from tests.support.settings import one_sentence

pytestmark = pytest.mark.quick

WRONG = {
    "nods = 2": r"unknown key nods; did you mean 'nodes'\? keys: partition, qos, account, .*container, cpu$",
    "frobnicate = 2": r"unknown key frobnicate; keys: partition, qos, ",
    'nodes = "2"': r"nodes = '2' is not allowed: it must be a whole number",
    "nodes = 2.0": r"nodes = 2.0 is not allowed: it must be a whole number",
    "nodes = true": r"nodes = true is not allowed: it must be a whole number",
    "nodes = 0": r"nodes = 0 is not allowed: it must be at least 1",
    "partition = 3": r"partition = 3 is not allowed: it must be text",
    "mem_gb = '3'": r"mem_gb = '3' is not allowed: it must be a number",
    "mem_gb = nan": r"mem_gb = nan is not allowed: it must be at least 0",
    "setup = 'module load x'": r"setup = 'module load x' is not allowed: it must be a list of texts",
    "setup = [1]": r"setup\[0\] = 1 is not allowed: it must be text",
    "exclusive = 1": r"exclusive = 1 is not allowed: it must be true or false",
    "gres = 'gpu:1'\ngpus_per_node = 2": r"gres and gpus_per_node exclude each other",
    "signal_delay_s = 70000\ntime_min = 9000": r"signal_delay_s = 70000 .* at most 65535",
    "time_min = 2": r"signal_delay_s = 180 .* at most 119 ",
    "env = {A = 1}": r"env.A = 1 is not allowed: it must be text",
    "env = {'A B' = '1'}": r"env.A B is not allowed: it is no name of an environment variable",
    "sbatch = {time = 3}": r"sbatch.time is not allowed: bingo sets it itself; use the key time_min",
    "sbatch = {export-file = '/x'}": r"sbatch.export-file is not allowed: bingo sets it itself",
    "sbatch = {no_requeue = true}": r"sbatch.no_requeue is not allowed: bingo sets it itself",
    "sbatch = {outp = '/x'}": r"sbatch.outp is not allowed: bingo sets it itself",
    "sbatch = {cpus-per-t = 3}": r"sbatch.cpus-per-t is not allowed: .*; use the key cpus_per_rank",
    "sbatch = {wait = true}": r"sbatch.wait is not allowed",
    'sbatch = {"a=b --time" = 3}': r"sbatch.a=b --time is not allowed: write the long name of an option of sbatch",
    'sbatch = {"a\\n#SBATCH --time" = 3}': r"sbatch.a\\n#SBATCH --time is not allowed",
    'env = {A = "secret\\n"}': r"env.A is not allowed: it must be one line of plain text$",
    "env = {RANK = '3'}": r"env.RANK is not allowed: each rank gets its own",
    "pass_env = 'A'": r"pass_env = 'A' is not allowed: it must be a list of texts",
    "pass_env = ['A=1']": r"pass_env = \['A=1'\] is not allowed: it is no name of an environment variable",
    "pass_env = ['SBATCH_X']": r"pass_env = \['SBATCH_X'\] is not allowed: no job gets it from a shell",
    "pass_env = ['A']\nenv = {A = '1'}": r"pass_env = \['A'\] is not allowed: it is in env too",
    "sbatch = {comment = [1]}": r"sbatch.comment = \[1\] is not allowed: it must be text, a number, or true or false",
    "container = 'x'": r"container = 'x' is not allowed: it must be a table",
    "container = {imag = 'x'}": r"unknown key container.imag; did you mean 'image'\? keys: image, mounts, workdir$",
    "container = {}": r"container.image is missing",
    "cpu = 3": r"cpu = 3 is not allowed: it must be a table",
    "[cpu]\nnodes = 2": r"cpu.nodes is not allowed: jobs of \[cpu\] have one rank",
    "[cpu]\nnotify = 'mail me'": r"cpu.notify is not allowed: it is for whole chains; write it above \[cpu\]",
    "notify = ['mail']": r"notify = \['mail'\] is not allowed: it must be text",
    "[cpu]\nmem_gb = -1": r"cpu.mem_gb = -1.0 is not allowed: it must be at least 0",
    "[cpu]\npartitio = 'x'": r"unknown key cpu.partitio; did you mean 'partition'\?",
    "nodes = ": r"is not TOML: ",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(text + "\n")
    with pytest.raises(UserError, match=WRONG[text]) as raised:
        read_site(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


VALUES = (
    *(
        "1",
        "0",
        "-1",
        "1.5",
        "inf",
        "-inf",
        "nan",
        "true",
        "''",
        "'x'",
        "'~/x'",
        "'~nobody-has-this-name/x'",
        "[]",
        "[1]",
    ),
    *(
        "['a']",
        "{}",
        "{a = 1}",
        "{a = 'b'}",
        "{image = 'x'}",
        "{image = '~/x'}",
        '"a\\u0000b"',
        '"a\\nb"',
        '"\\u001b[2J"',
    ),
    *(str(10**30), "9" * 5000, "'" + "x" * 5000 + "'", "[" * 500 + "]" * 500, "1979-05-27", "[[1], ['a']]"),
)


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Site)])
def test_hostile_values_of_every_key_are_one_sentence_or_fine(key: str, tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    for value in VALUES:
        for text in (f"{key} = {value}\n", f"[cpu]\n{key} = {value}\n"):
            path.write_text(text)
            with contextlib.suppress(UserError), one_sentence((key, value)):
                read_site(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = " + b"[" * 100_000, "nested too deep"),
        (b"nodes = " + b"9" * 5000, "is not TOML"),
        (b"partition = '\xff'", "is not TOML"),
        (b"[container]\nimage = 'a\tb'", "container.image = .* one line of plain text"),
        (b"nodes = 10000000", "nodes = 10000000 is not allowed: it must be at most 1000000"),
        (b"mem_gb = inf", "mem_gb = inf is not allowed: it must be at most"),
    ],
)
def test_hostile_files(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_bytes(content)
    with pytest.raises(UserError, match=message), one_sentence(content[:20]):
        read_site(tmp_path / "site.toml")


def test_the_home_folder_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "site.toml").write_text("python = '~/env/bin/python'\ncontainer = {image = '~/x.sqsh'}\n")
    site = read_site(tmp_path / "site.toml").jobs
    assert site.container is not None
    assert (site.python, site.container.image) == ("/home/me/env/bin/python", "/home/me/x.sqsh")


def test_no_site_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the site file .*nowhere: No such file"):
        read_site(tmp_path / "nowhere")


def test_jobs_of_one_rank_take_the_table_cpu_and_all_else_from_above(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text("""
        partition = "gpu"
        nodes = 4
        ranks_per_node = 8
        gres = "gpu:h100:8"
        account = "vision"
        mem_gb = 500
        setup = ["module load cuda"]
        [cpu]
        partition = "cpu"
        mem_gb = 16
        """)
    cluster = with_flags(read_site(path), {"nodes": 2, "ranks_per_node": None})
    assert (cluster.jobs.nodes, cluster.jobs.ranks_per_node, cluster.jobs.gres) == (2, 8, "gpu:h100:8")
    assert (cluster.cpu.nodes, cluster.cpu.ranks_per_node, cluster.cpu.gres) == (1, 1, None)
    assert (cluster.cpu.partition, cluster.cpu.mem_gb, cluster.cpu.account) == ("cpu", 16, "vision")
    assert cluster.cpu.setup == ("module load cuda",)


SITE = """
partition = "gpu"
qos = "low"
sbatch = {qos = "old", comment = "x"}
[cpu]
partition = "cpu"
"""


def test_flags_replace_the_keys_of_a_site(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    flags = {"partition": "fast", "qos": "high", "time_min": 90, "nodelist": "c[1-2]", "exclude": "c3", "account": None}
    cluster = with_flags(read_site(path), flags)
    jobs, cpu = cluster.jobs, cluster.cpu
    assert (jobs.partition, jobs.qos, jobs.time_min, jobs.exclude) == ("fast", "high", 90, "c3")
    assert (cpu.partition, cpu.qos, cpu.time_min, cpu.exclude) == ("cpu", "high", 90, "c3")
    assert (jobs.sbatch, cpu.sbatch) == ({"comment": "x", "nodelist": "c[1-2]"}, {"comment": "x"}), "no second qos"
    assert cluster.shown("partition", True) == "--partition 'fast'"
    assert cluster.shown("partition", False) == f"{path}: cpu.partition = 'cpu'"
    assert cluster.shown("qos", False) == "--qos 'high'"
    path.write_text(SITE + "sbatch = {qos = 'cheap'}\n")
    assert with_flags(read_site(path), flags).cpu.sbatch == {"qos": "cheap"}
    for values, text in (
        ({"nodes": 0}, r"^--nodes 0 is not allowed: it must be at least 1$"),
        ({"ranks_per_node": 10**7}, r"^--ranks-per-node 10000000 is not allowed: it must be at most 1000000$"),
        ({"time_min": 3}, r"^--time 3 is not allowed: it must be at least 4, for the site's signal_delay_s "),
        ({"time_min": 0}, r"^--time 0 is not allowed: it must be at least 1$"),
    ):
        with pytest.raises(UserError, match=text):
            with_flags(read_site(path), values)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("90:00", 90), ("0:30", 1), ("1:30:00", 90), ("2:00:01", 121), ("1-12", 2160), ("1-12:30", 2190),
     ("1-12:00:00", 2160), ("0-0:5", 5), ("007", 7)],
)  # fmt: skip
def test_time_limits_as_slurm_writes_them(text: str, minutes: int) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize(
    "text", ["", "1h", "-5", "1.5", "1:2:3:4", "1-", "1-2:3:4:5", "UNLIMITED", "٣", "1\n", "1-2-3"]
)
def test_what_is_no_time_limit(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        minutes_of(text)


SITES = [*sorted(f"docs/sites/{path.name}" for path in ROOT.glob("docs/sites/*.toml")), "tests/cluster/site.toml"]


def printed_scripts(site: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What `--dry-run` prints, but for paths and the submission's id; "SITE JOB" -> its script."""
    words = ["submit", "digits", "--cluster", str(ROOT / site), "--seeds", "1", "--min-nodes", "1", "--preflight"]
    assert main([*words, "--out", str(runs), "--dry-run"]) == 0
    printed = capsys.readouterr().out.replace(str(runs), "ROOT").replace(sys.executable, "PYTHON")
    printed = re.sub(r"submissions/[0-9-]+", "submissions/ID", printed)
    assert not runs.exists(), "a dry run writes nothing"
    scripts = re.split(r"^(?=# .*: sbatch )", printed, flags=re.M)
    assert scripts[0] == ""
    return {f"{Path(site).stem} {script[2:].partition(':')[0]}": script for script in scripts[1:]}


def test_the_scripts_of_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Byte for byte, of every site that the documents show and of the tests' own. UPDATE_GOLDEN=1 writes them."""
    scripts: dict[str, str] = {}
    for site in SITES:
        scripts |= printed_scripts(site, tmp_path / "runs", capsys)
    golden = ROOT / "tests" / "launch" / "cluster" / "golden_scripts.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(compact(scripts))
    assert compact(scripts) == golden.read_text()
