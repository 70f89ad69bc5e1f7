"""`bingo completion`: what a shell completes with the script."""

import os
import subprocess
from pathlib import Path

import pytest

from bingo.cli import main
from bingo.objectives import OBJECTIVES
from bingo.recipes import CHAINS

pytestmark = pytest.mark.quick


def test_completion_in_a_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    typed = {
        "dist": "distill",
        "distill --stud": "--student --student-ema",
        "distill --data d --objective ": " ".join(OBJECTIVES),
        "distill --data ": "",
        "bench st": "step",
        "bench step --comp": "--compile",
        "eval ": "linear knn fewshot finetune transfer",
        "run ": " ".join(CHAINS),
    }
    program = [
        '. "$1"',
        "complete -p bingo",
        "t() { COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _bingo; echo ${COMPREPLY[*]}; }",
    ]
    program += [f"COMP_WORDS=(bingo {line if not line.endswith(' ') else line + repr('')}); t" for line in typed]
    command = ["bash", "--norc", "-c", "\n".join(program), "bash", str(tmp_path / "script")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]})
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["complete -o default -F _bingo bingo", *typed.values()]
    assert main(["completion", "zsh"]) == 0
    assert "bashcompinit" in capsys.readouterr().out.splitlines()[0]
