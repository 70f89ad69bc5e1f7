"""What a job remembers of its inputs from the moment when it was sent."""

from pathlib import Path

import pytest

from bingo.config import BagsConfig
from bingo.errors import UserError
from bingo.launch.job.sent import FILE, known_to_start, read_sent, sent_of, write_sent
from bingo.stages import Stage


def bags(source: Path, out: Path, compare: Path | None = None) -> Stage:
    return Stage("bags", "bags", BagsConfig(data=source, out=out, kind="random", k=1, compare=compare))


def test_inputs_that_are_there_are_recorded(source: Path, tmp_path: Path) -> None:
    """Not those that the submission makes, not those that are missing; nothing is known of an old submission."""
    first, second = bags(source, tmp_path / "a"), bags(source, tmp_path / "b", compare=tmp_path / "a" / "bags.npz")
    assert read_sent(tmp_path) == {"inputs": {}, "any_version": False}
    write_sent(tmp_path, [first, second], {tmp_path / "a"})
    sent = read_sent(tmp_path)
    assert {out: set(inputs) for out, inputs in sent["inputs"].items()} == {
        str(s.out): {"data"} for s in (first, second)
    }
    assert sent_of(sent, first)["inputs"]["data"]["path"] == str(source)
    assert sent_of(sent, bags(source, tmp_path / "c")) == {"inputs": {}, "any_version": False}
    (source / "class0" / "0.png").touch()
    write_sent(tmp_path, [second], set(), any_version=True)
    again = read_sent(tmp_path)
    assert again["any_version"], "the newest hand-over counts"
    assert again["inputs"][str(first.out)] == sent["inputs"][str(first.out)], "what is not sent again stays"
    assert again["inputs"][str(second.out)] != sent["inputs"][str(second.out)]
    write_sent(tmp_path, [second], set())
    assert read_sent(tmp_path)["any_version"], "its work may be of two versions from now on"


@pytest.mark.parametrize("text", ["", "\0" * 90, "[]", '{"inputs": {"x": 3}, "any_version": true}', '{"inputs": {}}'])
def test_damaged(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A start goes on, and says what it does not know; the next hand-over writes it anew."""
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match="send the job again with `bingo repair`"):
        read_sent(tmp_path)
    assert known_to_start(tmp_path) == {"inputs": {}, "any_version": False}
    assert "this start cannot say whether an input has changed since" in capsys.readouterr().err
    write_sent(tmp_path, [], set())
    assert read_sent(tmp_path) == {"inputs": {}, "any_version": False}
