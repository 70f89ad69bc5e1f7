"""One voice for wrong words on a command line: a parser that refuses them in one sentence and names what is close."""

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bingo.errors import UserError, brief, close_to, did_you_mean
from bingo.paths import as_path

MOST = 10**9  # of anything that is counted
FEW = 8  # so many flags are named where none is close
PHRASES = {
    "the following arguments are required:": "missing:",
    "expected one argument": "needs a value",
    "ignored explicit argument": "takes no value, but got",
}


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Columns wide enough for names such as --augment.brightness."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


class Parser(argparse.ArgumentParser):
    """Flags of one verb; wrong ones are a `UserError` (exit status 2) and not a page of usage.

    sentence: what the verb does; example: one command that works. Flags may be written with `_` in place of `-`, and
    not be cut short. Positional words may stand between flags.
    """

    def __init__(self, prog: str, sentence: str, example: str, usage: str | None = None) -> None:
        text = f"{sentence}\n\nexample: {example}"
        super().__init__(
            prog=prog, description=text, usage=usage, allow_abbrev=False, formatter_class=Formatter, add_help=False
        )
        self.register("type", Path, path)
        self.example, self.short = example, usage is None

    def parse_args(self, words: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        """The values of the flags; `UserError` for the first word that is wrong."""
        words = [_dashed(word) for word in words]
        if {"-h", "--help"} & set(words):
            self.print_help()
            raise SystemExit(0)
        self._refuse_unknown(words)
        options, rest = self.parse_known_args(words)
        if rest:  # perhaps a word between flags
            options, rest = self.parse_known_intermixed_args(words)
        if rest:
            close = close_to(rest[0], self.flags()) if len(rest[0]) > 2 else []
            self.error(f"{brief(rest[0])} is a word too many" + (f"; {did_you_mean(rest[0], close)}" if close else ""))
        return options

    def flags(self) -> dict[str, argparse.Action]:
        """Every flag and what it does, -h left out."""
        return {flag: action for action in self._actions for flag in action.option_strings}

    def leading_choices(self) -> list[str]:
        """What the first word without a flag may be, where only a few words can."""
        words = [action for action in self._actions if not action.option_strings]
        return [str(choice) for choice in words[0].choices or ()] if words else []

    def format_help(self) -> str:
        if self.short:
            self.usage = self._short_usage()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """argparse's finding as one sentence."""
        message = message.removeprefix("argument ")
        for theirs, ours in PHRASES.items():
            message = message.replace(theirs, ours)
        message = re.sub(r"\S{200,}", lambda found: found[0][:97] + "...", message)  # argparse repeats a word whole
        raise UserError(f"{message} (see `{self.prog} --help`)")

    def _refuse_unknown(self, words: Iterable[str]) -> None:
        """argparse would look at missing flags first, and a typo makes a flag missing."""
        flags = self.flags()
        for word in words:
            if word == "--":
                return
            name, _, value = word.partition("=")
            if value == "--":  # argparse would take it for a mark and store an empty list
                self.error(f"{name}: {value!r} is not a value")
            if _is_flag(word) and name not in flags:
                near = close_to(name, flags) or len(flags) <= FEW
                hint = (did_you_mean(name, flags) if near else "") if flags else "there are none here"
                self.error(f"unknown flag {brief(name)}" + (f"; {hint}" if hint else ""))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(action, f"{brief(value)} is not allowed; {did_you_mean(str(value), known)}")

    def _short_usage(self) -> str:
        """The words and the flags that are needed; the rest is below."""
        words = [self.prog]
        for action in self._actions:
            name = str(action.metavar or action.dest.upper())
            if not action.option_strings:
                words.append(name if action.required else f"[{name}]")
            elif action.required:
                words.append(f"{action.option_strings[0]} {name}")
        return " ".join([*words, "[flags]"]).replace("%", "%%")


class Switch(argparse.Action):
    """A setting that is on or off: `--optim.nesterov` and `--optim.no-nesterov`, the first of its two names is on."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **more)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, option_string == self.option_strings[0])


def _dashed(word: str) -> str:
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else word


def _is_flag(word: str) -> bool:
    """As argparse sees it: `-` alone, a negative number and a word with a blank are values."""
    try:
        float(word)
    except ValueError:
        return word.startswith("-") and len(word) > 1 and " " not in word
    return False


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{brief(text)} is not a whole number") from None


def number(text: str) -> float:
    """A number."""
    try:
        return float(text) + 0.0  # which makes -0.0 a plain 0.0
    except ValueError:
        raise argparse.ArgumentTypeError(f"{brief(text)} is not a number") from None


def between(low: int, high: int) -> Callable[[str], int]:
    """A reader of whole numbers in low .. high."""

    def value(text: str) -> int:
        if not low <= whole(text) <= high:
            raise argparse.ArgumentTypeError(f"{brief(text)} is not between {low} and {high}")
        return int(text)

    return value


def path(text: str) -> Path:
    """A path, `~` expanded."""
    try:
        return as_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> float:
    """A number above 0 that is no infinity."""
    if not 0 < number(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{brief(text)} is not above 0 and at most {MOST}")
    return float(text)


def size(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or not 1 <= whole(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{brief(text)} is not a whole number of at least 1, and at most {MOST}")
    return int(text)


def listed(read: Callable[[str], Any], count: int | None = None) -> Callable[[str], tuple[Any, ...]]:
    """Values with commas between them, or the word none; count: so many."""

    def values(text: str) -> tuple[Any, ...]:
        if text == "none" and count is None:
            return ()
        parts = [part.strip() for part in text.split(",")]
        if count not in (None, len(parts)):
            raise argparse.ArgumentTypeError(f"{brief(text)} is not {count} values with commas between them")
        return tuple(read(part) for part in parts)

    return values


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """A reader of one of these words."""

    def word(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{brief(text)} is not allowed; {did_you_mean(text, names)}")
        return text

    return word
