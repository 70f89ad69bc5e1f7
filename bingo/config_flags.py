"""Settings as flags and back: every field of a config class, nested ones too, its docstring as the help."""

import argparse
import ast
import dataclasses
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from bingo.arguments import Parser, Switch, listed, number, one_of, path, whole
from bingo.config_json import type_hints
from bingo.paths import as_text

C = TypeVar("C")
MISSING = dataclasses.MISSING


class Setting(NamedTuple):
    """A field: its dotted name (`optim.lr`), type, default (or MISSING), description, and the class that has it."""

    name: str
    type: Any
    default: Any
    text: str
    owner: type

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"


def settings(cls: type, prefix: str = "") -> Iterator[Setting]:
    """All settings of a config class, in its order."""
    hints, texts = type_hints(cls), descriptions(cls)
    values = defaults(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from settings(typing.cast(type, hint), f"{prefix}{field.name}.")
        else:
            yield Setting(prefix + field.name, hint, values[field.name], texts.get(field.name, ""), cls)


def descriptions(cls: type) -> dict[str, str]:
    """Field -> the docstring below it, in a dataclass or in one of its bases."""
    found = {}
    for base in reversed(cls.__mro__[:-1]):
        tree = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for pair in itertools.pairwise(tree.body):
            match pair:
                case (ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text)))):
                    found[name] = " ".join(text.split())
    return found


def defaults(cls: type) -> dict[str, Any]:
    """Dotted name -> default value, MISSING for what has none."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        make = field.default_factory
        found[field.name] = field.default if make is dataclasses.MISSING else make()
    return _flat(found)


def values_of(config: Any) -> dict[str, Any]:
    """Dotted name -> value of a config."""
    return _flat({field.name: getattr(config, field.name) for field in dataclasses.fields(config)})


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        nested = dataclasses.is_dataclass(value)
        found |= {f"{name}.{key}": inner for key, inner in values_of(value).items()} if nested else {name: value}
    return found


def build(cls: type[C], values: Mapping[str, Any], prefix: str = "") -> C:
    """The config with these values by dotted name; its class refuses wrong ones with a `UserError`."""
    hints = type_hints(cls)  # type: ignore[arg-type]
    found = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        name = prefix + field.name
        nested = dataclasses.is_dataclass(hints[field.name])
        found[field.name] = build(hints[field.name], values, f"{name}.") if nested else values[name]
    return cls(**found)


def add_setting(group: "Parser | argparse._ArgumentGroup", setting: Setting, usual: str = "") -> None:
    """The setting as a flag; without it the parser's result has no such name. usual: its default in words."""
    flags = [setting.flag]
    if setting.type in (bool, bool | None):
        parent, dot, leaf = setting.flag[2:].rpartition(".")
        flags.append(f"--{parent}{dot}no-{leaf}")
    end = "required" if setting.default is MISSING and not usual else f"default: {usual or shown(setting.default)}"
    text = f"{setting.text} ({end})".replace("%", "%%")
    group.add_argument(*flags, dest=setting.name, default=argparse.SUPPRESS, help=text, **reading(setting.type))


def shown(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else as_text(value) if isinstance(value, Path) else str(value)


def reading(hint: Any) -> dict[str, Any]:
    """How argparse reads a value of this type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in (bool, bool | None):
        return {"action": Switch}
    if origin in (types.UnionType, typing.Union):
        how = reading(args[0])
        return {**how, "type": _or_none(how["type"])}
    if origin is Literal:
        return {"choices": args}
    if origin is tuple and typing.get_origin(args[0]) is Literal:
        return {"type": listed(one_of(typing.get_args(args[0]))), "metavar": "NAME,..."}
    if origin is tuple and args[-1] is Ellipsis:
        return {"type": listed(reading(args[0])["type"]), "metavar": f"{reading(args[0])['metavar']},..."}
    if origin is tuple:
        return {"type": listed(number, len(args)), "metavar": ",".join("X" * len(args))}
    return {
        int: {"type": whole, "metavar": "N"},
        float: {"type": number, "metavar": "X"},
        Path: {"type": path, "metavar": "PATH"},
        str: {"type": str, "metavar": "NAME"},
    }[hint]


def _or_none(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """`None` as a word takes back what a config file sets."""
    return lambda text: None if text == "None" else read(text)
