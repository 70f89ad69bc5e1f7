"""A sweep over a whole recipe: a chain for each combination, what is equal once, a limit that holds."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bingo.cli import main
from bingo.errors import UserError
from bingo.identity import input_paths
from bingo.launch.job.spec import JobSpec
from bingo.launch.submit.graph import turns
from bingo.launch.submit.sweep import chains
from bingo.recipes import CHAINS, Group, Recipe, digits
from bingo.stages import Stage
from tests.support.ranks import ROOT
from tests.support.stage_examples import EXAMPLES, Inputs

SITE = ROOT / "tests" / "cluster" / "site.toml"


def parse(words: list[str]) -> Recipe:
    """The digits chain of `--epochs 1 --seeds 2 --out DIR`."""
    given = dict(zip(words[::2], words[1::2], strict=True))
    return digits(Path(given["--out"]), epochs=int(given.get("--epochs", 1)), seeds=int(given.get("--seeds", 1)))


def stages(recipe: Recipe) -> dict[str, Stage]:
    return {stage.name: stage for group in recipe.jobs for stage in group.stages}


def test_what_is_equal_is_made_once(tmp_path: Path) -> None:
    found = chains(["epochs=1,2", "seeds=1,2"], tmp_path, parse)
    assert list(found) == ["epochs-1_seeds-1", "epochs-1_seeds-2", "epochs-2_seeds-1", "epochs-2_seeds-2"]
    jobs = {name: [group.name.removeprefix(f"{name} ") for group in recipe.jobs] for name, recipe in found.items()}
    assert jobs == {
        "epochs-1_seeds-1": ["prepare", "teacher", "bags", "seed 0", "export"],
        "epochs-1_seeds-2": ["seed 1"],
        "epochs-2_seeds-1": ["teacher", "bags", "seed 0", "export"],
        "epochs-2_seeds-2": ["seed 1"],
    }
    whole = {name: stage for recipe in found.values() for name, stage in stages(recipe).items()}
    for name, stage in whole.items():
        run = name.partition(" ")[0]
        assert stage.out.is_relative_to(tmp_path / run), "every chain writes in its own folder only"
        for path in input_paths(stage.config).values():
            assert any(path.is_relative_to(other.out) for other in whole.values()), (name, path)
    later = whole["epochs-2_seeds-2 distill knn 1"].config
    assert later.teacher == tmp_path / "epochs-2_seeds-1" / "teacher"
    assert later.data == tmp_path / "epochs-1_seeds-1" / "train"
    assert whole["epochs-2_seeds-2 distill random 1"].config.bags == tmp_path / "epochs-1_seeds-1" / "bags" / "random"
    assert found["epochs-1_seeds-2"].arms["epochs-1_seeds-2 knn"] == (
        "epochs-1_seeds-1 eval knn 0",
        "epochs-1_seeds-2 eval knn 1",
    )
    assert {name for recipe in found.values() for arm in recipe.arms.values() for name in arm} <= set(whole)


def test_a_combination_that_adds_nothing(tmp_path: Path) -> None:
    found = chains(["seeds=2,1,2"], tmp_path, parse)
    assert [len(recipe.jobs) for recipe in found.values()] == [6, 0, 0]
    assert set(found) == {"seeds-2", "seeds-1", "seeds-2_2"}
    assert found["seeds-1"].arms["seeds-1 label"] == ("seeds-2 eval label 0",)
    with pytest.raises(UserError, match="--set names a setting twice"):
        chains(["seeds=1", "seeds=2"], tmp_path, parse)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_only_equal_settings_and_inputs_are_equal(kind: str, tmp_path: Path) -> None:
    def added(inputs: str = "", variant: str = "0") -> list[int]:
        """Numbers of jobs of two chains of one stage; `{}`: the chain's number."""

        def parse(words: list[str]) -> Recipe:
            number = words[words.index("--seed") + 1]
            read = Inputs(tmp_path / inputs.format(number))
            stage = read.stage(kind, Path(words[-1]), int(variant.format(number)))
            return Recipe((Group("g", (stage,)),), {})

        return [len(recipe.jobs) for recipe in chains(["seed=0,1"], tmp_path, parse).values()]

    assert added() == [1, 0]
    assert added(variant="{}") == [1, 1]
    reads = bool(input_paths(Inputs(tmp_path).stage(kind, tmp_path).config))
    assert added(inputs="{}") == [1, 1 if reads else 0]


def lanes(*words: str) -> list[JobSpec]:
    """`a1 a2 b1`: jobs of the runs a and b, all in lane 1; a capital is a run in lane 2."""
    return [JobSpec(w, ((),), run=w[0], lane=1 + w[0].isupper()) for w in words]


@pytest.mark.parametrize(
    ("jobs", "todo", "running", "waits"),
    [
        ("a1 a2 b1 c1", "a1 a2 b1 c1", "", {"a1": "", "a2": "", "b1": "a1 a2", "c1": "b1"}),
        ("a1 A1 b1 B1", "a1 A1 b1 B1", "", {"a1": "", "A1": "", "b1": "a1", "B1": "A1"}),
        ("a1 a2 b1 c1", "a2 c1", "", {"a2": "", "c1": "a2"}),  # b is done
        ("a1 a2 b1 c1", "a2 c1", "b1", {"a2": "b1", "c1": "a2 b1"}),  # a is repaired while b runs
        ("a1 a2 b1", "a2", "a1", {"a2": ""}),  # its own run's jobs are no others
    ],
)
def test_turns(jobs: str, todo: str, running: str, waits: dict[str, str]) -> None:
    found = turns(lanes(*jobs.split()), todo.split(), running.split())
    assert {name: " ".join(names) for name, names in found.items()} == waits


def test_jobs_without_a_limit_take_no_turns() -> None:
    assert turns([JobSpec("a", ((),)), JobSpec("b", ((),), run="x")], ["a", "b"]) == {}


def test_a_sweep_over_a_chain_as_it_would_be_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "digits", "--cluster", str(SITE), "--out", str(tmp_path / "s"), "--dry-run"]
    assert main([*words, "--set", "epochs=1,2", "--set", "seeds=1", "--limit", "1", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    sent = re.findall(r"^# (.*): sbatch --parsable (.*)$", printed, flags=re.M)
    needs = dict(sent)
    assert len(needs) == 10
    assert "afterany" not in needs["epochs-1_seeds-1 teacher"]
    for job in ("teacher", "bags", "seed 0", "export"):
        assert "afterany:<epochs-1_seeds-1 prepare>:<epochs-1_seeds-1 teacher>:" in needs[f"epochs-2_seeds-1 {job}"]
    assert "afterok:<epochs-1_seeds-1 export>:<epochs-2_seeds-1 export>" in needs["report"]
    assert not (tmp_path / "s").exists()
    assert main([*words, "--set", "epochs=1,2", "--seeds", "1"]) == 0
    assert "afterany" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["digits", "--set", "frob=1"], "unknown flag '--frob'"),
        (["digits", "--set", "epochs=1", "--epochs", "2"], "--epochs is given by --set too: leave one of them out"),
        (["digits", "--set", "epochs=x"], "'x' is not a whole number"),
        (["digits", "--set", "epochs=0"], "--epochs 0 is not allowed"),
        (["digits", "--set", "teacher=x"], "--teacher is no setting of the recipe digits"),
        (["resnet18-r50", "--set", "epochs=1"], "the recipe resnet18-r50 needs --images"),
        (["digits", "--set", "epochs=1", "--", "--seeds", "1"], "digits takes no flags after `--`"),
        (["bags", "--set", "k=1", "--seeds", "1", "--"], "--seeds is a setting of recipes; bags takes its flags after"),
        (["digit", "--set", "epochs=1"], "RECIPE|VERB: 'digit' is not allowed; did you mean 'digits'?"),
    ],
)
def test_wrong_words(words: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--cluster", str(SITE), "--out", str(tmp_path / "s"), "--dry-run"]
    assert main(["sweep", words[0], *flags, *words[1:]]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert len(said.splitlines()) == 1


def test_a_sweep_over_a_chain_here(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bingo.config import BagsConfig

    def small(root: Path, *, seeds: int = 1, epochs: int = 1, device: str = "auto") -> Recipe:
        first = BagsConfig(data=source, out=root / "first", kind="random", k=1, seed=epochs)
        second = BagsConfig(data=source, out=root / "second", kind="label", k=1, seed=seeds, compare=root / "first")
        groups = [Group(name, (Stage(name, "bags", c),)) for name, c in (("first", first), ("second", second))]
        return Recipe(tuple(groups), {})

    monkeypatch.setitem(CHAINS, "digits", small)
    words: list[Any] = ["sweep", "digits", "--cluster", "debug", "--set", "seeds=1,2", "--out", str(tmp_path / "s")]
    assert main(words) == 0
    lines = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["seeds-1 first", "seeds-1 second", "seeds-2 second"]
    record = json.loads((tmp_path / "s" / "seeds-2" / "second" / "stage.json").read_text())
    assert record["inputs"]["compare"]["path"] == str(tmp_path / "s" / "seeds-1" / "first")
    assert main(words) == 0
    assert capsys.readouterr().out.count("done before") == 3
