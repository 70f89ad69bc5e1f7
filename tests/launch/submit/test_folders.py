"""What stands in the folders of a chain: refused before anything runs; moved aside on request, with what follows."""

from dataclasses import replace
from pathlib import Path

import pytest

from bingo import identity
from bingo.config import BagsConfig
from bingo.errors import UserError
from bingo.launch.submit.folders import find_other_work, replaced
from bingo.stages import Stage, run_stage


@pytest.fixture
def chain(source: Path, tmp_path: Path) -> list[Stage]:
    """first <- second <- third; other reads none of them. All done."""
    made: list[Stage] = []
    for name, reads in (("first", None), ("second", "first"), ("third", "second"), ("other", None)):
        compare = tmp_path / reads if reads else None
        config = BagsConfig(data=source, out=tmp_path / name, kind="random", k=1, compare=compare)
        made.append(Stage(name, "bags", config))
        run_stage(made[-1])
    return made


def seed(stage: Stage, value: int) -> Stage:
    return replace(stage, config=replace(stage.config, seed=value))


def test_what_is_done_or_begun_is_in_no_way(chain: list[Stage], tmp_path: Path) -> None:
    new = replace(chain[0], config=replace(chain[0].config, out=tmp_path / "new"))
    assert find_other_work([*chain, new]) == []
    (tmp_path / "second" / "bags.npz").unlink()
    assert find_other_work(chain) == [], "third reads what is made again, perhaps to the same bits"


def test_other_settings_are_refused_and_what_hangs_on_them_goes_too(chain: list[Stage], tmp_path: Path) -> None:
    wanted = [seed(chain[0], 1), *chain[1:]]
    with pytest.raises(UserError, match=r"first holds bags made with seed=0, not 1; choose another --out, or .*--repl"):
        find_other_work(wanted)
    assert [stage.name for stage in find_other_work(wanted, replace=True)] == ["first", "second", "third"]
    (tmp_path / "first" / "bags.npz").unlink()
    with pytest.raises(UserError, match=r"third holds bags made with seed=0, not 2"):
        find_other_work([chain[0], chain[1], seed(chain[2], 2)])  # whatever second will be


def test_a_changed_input_is_refused_as_such(chain: list[Stage], source: Path) -> None:
    (source / "class0" / "0.png").touch()
    with pytest.raises(
        UserError, match=r"another content of data \S+source; choose another --out, restore that input, o"
    ):
        find_other_work(chain)
    assert len(find_other_work(chain, replace=True)) == 4


def test_a_folder_of_others_is_never_replaced(chain: list[Stage], tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years")
    stage = replace(chain[0], config=replace(chain[0].config, out=tmp_path / "thesis"))
    for asked in (False, True):
        with pytest.raises(UserError, match=r"thesis holds 'thesis.tex' and no stage of bingo; choose a new or empty"):
            find_other_work([stage], replace=asked)


def test_a_damaged_record_is_refused_or_replaced(chain: list[Stage], tmp_path: Path) -> None:
    for text, said in (("[1", r"other/stage.json is not valid JSON"), ("\0" * 100, r"its stage.json is empty")):
        (tmp_path / "other" / "stage.json").write_text(text)
        with pytest.raises(UserError, match=said):
            find_other_work(chain)
        assert find_other_work(chain, replace=True) == [chain[3]]


def test_another_version_alone(chain: list[Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by submit, gone on with by `repair --new-code`; a plain repair runs the code that began it."""
    monkeypatch.setattr(identity, "__version__", "99.0")
    with pytest.raises(UserError, match=r"first holds bags made with version \S+ of bingo, not 99.0; choose"):
        find_other_work(chain)
    assert find_other_work(chain, versions="begun") == []
    with pytest.raises(UserError, match=r"version \S+ of bingo, not 99.0; seed=0, not 1; choose"):
        find_other_work([seed(chain[0], 1)], versions="begun")
    assert find_other_work([seed(chain[0], 1)], versions="any") == []


def test_a_refusal_moves_back(chain: list[Stage], tmp_path: Path) -> None:
    said: list[str] = []

    def refused() -> None:
        with replaced(chain[:2], said.append):
            assert not (tmp_path / "first" / "stage.json").exists()
            raise UserError("no")

    with pytest.raises(UserError, match=r"no; \S+second is as it was; \S+first is as it was"):
        refused()
    assert [text.split(": what was there is in ")[0] for text in said] == [str(stage.out) for stage in chain[:2]]
    assert find_other_work(chain) == []
    assert all(run_stage(stage)["skipped"] for stage in chain)
    assert not list(tmp_path.glob("*.replaced-*"))
    with replaced(chain[:2], said.append):
        pass
    assert len(list(tmp_path.glob("*.replaced-*"))) == 2
