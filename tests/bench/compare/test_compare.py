"""`bingo bench compare`: files and checkouts, the gate, what only one has, and bad input in a sentence each."""

import json
from pathlib import Path
from typing import Any

import pytest

from bingo.bench.compare.main import differences
from bingo.bench.record import SCHEMA, Row, read_result, write_result
from bingo.cli import main

WORKER = """
import json, sys
path = sys.argv[sys.argv.index("--json") + 1]
turn = open({log!r}, "a+")
turn.write({name!r})
turn.seek(0)
seconds = {factor} * (1 + 0.001 * len(turn.read()))
row = dict(case="c", variant="ours", metric="seconds", better="lower", clock="cpu", processes=[[seconds, seconds]])
result = dict(schema={schema!r}, measurement=sys.argv[2], environment=dict(git={name!r}), partial=False,
              rows=[row], detail=None)
json.dump(result, open(path, "w"))
sys.exit({status})
"""


def row(seconds: list[float], **more: Any) -> Row:
    made: Any = {
        "case": "batch 8", "variant": "ours", "metric": "seconds per step", "better": "lower", "clock": "cpu",
        "processes": [[x, x] for x in seconds], **more,
    }  # fmt: skip
    return made


def result(path: Path, *rows: Row, measurement: str = "step", git: str = "aaa") -> str:
    write_result(path, measurement, rows, environment={"git": git, "cpu": "x", "packages": {"torch": "2"}})
    return str(path)


def checkout(folder: Path, name: str, factor: float = 1.0, status: int = 0, schema: str = SCHEMA) -> str:
    """A folder that looks like one of the project, with a measurement of known figures and no clock in it."""
    for part in ("bingo", "bench", "kernels"):
        (folder / name / part).mkdir(parents=True)
        (folder / name / part / "__init__.py").touch()
    (folder / name / "bench" / "command.py").touch()
    worker = WORKER.format(log=str(folder / "log"), name=name, factor=factor, status=status, schema=schema)
    (folder / name / "bingo" / "__main__.py").write_text(worker)
    return str(folder / name)


def test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seconds = [1.0, 1.01, 0.99, 1.02, 0.98]
    peer, wall = row([1.0], variant="peer"), row(seconds, clock="wall")
    a = result(tmp_path / "a.json", row(seconds), peer, wall)
    slower, broken = row([1.2 * x for x in seconds]), row([], variant="broken", error="absent: not installed")
    b = result(tmp_path / "b.json", slower, broken, wall, git="bbb")
    assert main(["bench", "compare", a, b, "--json", str(tmp_path / "c.json")]) == 0
    said = capsys.readouterr().out
    assert "git: aaa -> bbb" in said
    assert "packages" not in said, "only what differs"
    assert "1.200 [" in said
    assert said.count("slower") == 1
    assert "(wall)" not in said, "the processor's clock is there"
    assert "only A has: batch 8, peer, seconds per step (cpu)" in said
    assert "only B has: batch 8, broken" in said
    kept = read_result(tmp_path / "c.json", "compare")
    assert kept["detail"]["verdicts"][0]["word"] == "slower"
    assert kept["rows"][0]["processes"] == [[pytest.approx(1.2)]] * 5
    assert main(["bench", "compare", a, a, "--clock", "wall"]) == 0
    assert "(wall)" in capsys.readouterr().out


def test_only_what_differs_between_environments_is_told() -> None:
    a = {"argv": ["bingo", "--json", "a"], "packages": {"torch": "2", "numpy": "2"}, "driver": None}
    b = {"argv": ["bingo", "--json", "b"], "packages": {"torch": "3", "numpy": "2"}, "gpu": ["H200"]}
    assert differences(a, b) == ["  packages.torch: 2 -> 3", "  driver: None -> -", "  gpu: - -> H200"]


def test_the_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seconds = [1.0, 1.01, 0.99, 1.02, 0.98]
    a, equal = result(tmp_path / "a.json", row(seconds)), result(tmp_path / "e.json", row(seconds))
    slower = result(tmp_path / "b.json", row([1.2 * x for x in seconds]))
    broken = result(tmp_path / "d.json", row(seconds, variant="peer"), row([], error="RuntimeError: no"))
    both = result(tmp_path / "both.json", row(seconds, variant="peer"), row(seconds))
    assert main(["bench", "compare", a, equal, "--gate", "3%"]) == 0
    assert "missed by 0 of 1 row(s); 1 row(s) too noisy to rule it out" in capsys.readouterr().out
    assert main(["bench", "compare", a, equal, "--gate", "20%"]) == 0
    assert "too noisy" not in capsys.readouterr().out
    assert main(["bench", "compare", a, slower, "--gate", "3%"]) == 1
    assert "gate 3.0%: missed by 1 of 1 row(s)" in capsys.readouterr().out
    assert main(["bench", "compare", slower, a, "--gate", "3%"]) == 0, "faster is no offence"
    assert main(["bench", "compare", both, broken, "--gate", "3%"]) == 1
    said = capsys.readouterr().out
    assert "B has no figures: batch 8, ours: RuntimeError: no" in said
    assert "missed by 1 of 2" in said
    one = result(tmp_path / "one.json", row([1.0]))
    assert main(["bench", "compare", one, one, "--gate", "3%"]) == 2
    assert "no row has processes enough to be judged" in capsys.readouterr().err


def test_checkouts_take_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = checkout(tmp_path, "a"), checkout(tmp_path, "b", 1.1)
    words = ["bench", "compare", a, b, "--processes", "8", "--gate", "3%", "--json", str(tmp_path / "c.json")]
    assert main([*words, "--", "step", "--batch", "8"]) == 1
    assert (tmp_path / "log").read_text() == "abba" * 4
    said = capsys.readouterr()
    assert "slower" in said.out
    assert "git: a -> b" in said.out
    assert "fresh processes in turns" in said.out
    assert "turn 8 of 8" in said.err
    verdict = read_result(tmp_path / "c.json")["detail"]["verdicts"][0]
    assert (verdict["n"], len(verdict["a"])) == (8, 8)
    assert main(["bench", "compare", a, a, "--processes", "8", "--gate", "3%", "--", "step"]) == 0


def test_bad_input_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = result(tmp_path / "a.json", row([1.0]))
    other = result(tmp_path / "o.json", row([1.0], case="batch 9"))
    empty = result(tmp_path / "n.json", row([], error="absent"))
    loader = result(tmp_path / "l.json", row([1.0]), measurement="loader")
    cut, old = tmp_path / "cut.json", tmp_path / "old.json"
    cut.write_bytes(Path(a).read_bytes()[:-9])
    old.write_text(json.dumps({"environment": {}, "kernels": {}}))
    folder, broken = checkout(tmp_path, "a"), checkout(tmp_path, "broken", status=3)
    earlier = checkout(tmp_path, "earlier", schema="bingo-bench-0")
    for words, sentence in [
        ([a, str(old)], "old.json names no schema, this release reads bingo-bench-1"),
        ([a, str(cut)], "cut.json is not valid JSON"),
        ([a, other], "A and B have no case in common"),
        ([a, empty], "no case that A and B have in common has samples in both"),
        ([a, a, "--clock", "cuda"], "has samples of the cuda clock in both"),
        ([a, loader], "A is a result of 'step', B of 'loader'"),
        ([a, str(tmp_path / "none")], "none does not exist"),
        ([a, folder], "one is a file, the other a folder"),
        ([str(tmp_path), folder, "--", "step"], "is no checkout of the project"),
        ([folder, folder], "two checkouts need a measurement to run: add --"),
        ([a, a, "--", "step"], "-- step is about checkouts"),
        ([a, a, "--processes", "3"], "--processes is about checkouts"),
        ([folder, broken, "--", "step"], "`bingo bench step` in"),
        ([folder, earlier, "--", "step"], "wrote what cannot be read here"),
        ([a, a, "--gate", "often"], "--gate: 'often' is not a percentage"),
        ([a, a, "--gate", "0%"], "--gate: '0%' is not a percentage"),
        ([a], "missing: B"),
    ]:
        assert main(["bench", "compare", *words]) == 2, sentence
        error = capsys.readouterr().err.splitlines()[-1]
        assert sentence in error
