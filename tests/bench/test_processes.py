"""`--processes N`: fresh processes whose rows become one, and what a kill leaves."""

from pathlib import Path

import pytest

from bingo.bench import keeper, processes
from bingo.bench.keeper import Keeper
from bingo.bench.record import Result, Row, read_result
from bingo.bench.summary import figures, table
from bingo.cli import main
from bingo.errors import UserError


def row(*samples: float, **more: str) -> Row:
    made: Row = {
        "case": "c", "variant": "ours", "metric": "seconds", "better": "lower", "clock": "cpu",
        "processes": [list(samples)],
    }  # fmt: skip
    return {**made, **more}  # type: ignore[typeddict-item]


def result(*rows: Row) -> Result:
    return {
        "schema": "", "measurement": "step", "environment": {}, "partial": False, "rows": list(rows), "detail": None,
    }  # fmt: skip


def test_rows_of_processes_become_one() -> None:
    found = processes.merged([result(row(1.0, 2.0)), result(row(3.0)), result(row(error="out of memory"))])
    assert [(each["processes"], each["notes"]) for each in found] == [
        ([[1.0, 2.0], [3.0]], ["in 1 of 3 processes: out of memory"])
    ]
    failed = processes.merged([result(row(error="absent"))])
    assert (failed[0]["processes"], failed[0]["error"]) == ([], "absent")
    assert table(failed) == ["c", f"  {'ours':44} {'seconds (cpu)':34} absent"]
    assert "3 x 2  between processes 1.0 %" in figures({**row(), "processes": [[0.99] * 2, [1.0] * 2, [1.01] * 2]})


def test_a_command_line_for_a_process() -> None:
    words = ["--batch", "8", "--processes", "3", "--json=x", "--impl", "--processes=3", "--json", "y", "z"]
    assert processes.without(words, processes.OWN) == ["--batch", "8", "--impl", "z"]


def test_two_real_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "env.json"
    assert main(["bench", "env", "--processes", "2", "--json", str(path)]) == 0
    found = read_result(path, "env")
    assert [detail["cpu"] for detail in found["detail"]] == [found["environment"]["cpu"]] * 2
    assert "process 2 of 2" in capsys.readouterr().err


def test_a_process_that_fails_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r"`bingo bench bags --k 0`: .*--k: '0' is not a whole number"):
        processes.one(["bags", "--k", "0"])


def test_a_kill_leaves_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    monkeypatch.setattr(keeper, "SAVE_SECONDS", -1.0)
    kept = Keeper(path, "step")
    kept.keep([], "nothing yet")
    assert not path.exists()
    kept.keep([row(1.0)], "half")
    assert read_result(path)["partial"]
    assert kept.finish([row(1.0, 2.0)], "all") == 0
    assert (read_result(path)["partial"], read_result(path)["detail"]) == (False, "all")
    Keeper(None, "step").finish([row(1.0)], "nowhere")
