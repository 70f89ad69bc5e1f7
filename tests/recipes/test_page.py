"""docs/reproduce.md: every command in it is one that the command line takes."""

import re
import shlex

import pytest

from bingo.cli import parsers
from bingo.flags import DOORS, leading
from bingo.recipes import CARDS
from tests.support.ranks import ROOT

PAGE = (ROOT / "docs" / "reproduce.md").read_text()
COMMANDS = re.findall(r"^bingo .+$", "\n".join(re.findall(r"```\n(.*?)```", PAGE, re.S)).replace("\\\n", " "), re.M)

PARSERS = parsers()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_read(command: str) -> None:
    """By the parser of its verb, whole: flags, values and choices."""
    _, verb, *words = shlex.split(command)
    leading_words = DOORS[verb].words if verb in DOORS else ()
    PARSERS[verb].parse_args(leading(words, leading_words))


def test_the_page_has_commands_of_every_step() -> None:
    verbs = [command.split()[1] for command in COMMANDS]
    assert {"check", "pack", "recipes", "run", "submit", "eval"} <= set(verbs)
    named = {word for command in COMMANDS for word in command.split()} & set(CARDS)
    assert {"resnet18-r50", "moco-resnet18", "resnet18-r50-1pct", "resnet18-r50-10pct"} <= named
