"""Settings as JSON and back: unknown keys and wrong values are refused, with what is close."""

import dataclasses
import functools
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from bingo.errors import UserError, brief, did_you_mean
from bingo.paths import as_path, as_text

C = TypeVar("C")
MOST_TEXT = 200
"""Characters of a name."""
WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@functools.cache
def type_hints(cls: type) -> dict[str, Any]:
    """`typing.get_type_hints` of a config class, which takes longer than all the rest of reading one."""
    return typing.get_type_hints(cls)


def to_json(config: Any) -> Any:
    """A dataclass as plain JSON values (paths become strings)."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_json(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, tuple | list):
        return [to_json(value) for value in config]
    return as_text(config) if isinstance(config, Path) else config


def to_record(kind: str, config: Any) -> dict[str, Any]:
    """What config.json says of a stage: its kind, its settings as they were typed, and where relative paths begin."""
    try:
        here = {"cwd": os.getcwd()}
    except OSError:  # the folder was deleted: then only absolute paths lead anywhere
        here = {}
    return {"kind": kind, **here, **to_json(config)}


def from_record(cls: type[C], record: Mapping[str, Any], where: str) -> C:
    """The settings in a config.json, or in a file written by hand; `UserError` as for `from_json`.

    Relative paths begin in the folder `cwd`, if the file names one: so they stay those of the run, wherever it is read.
    """
    config = from_json(cls, values_in(cls, record), where)
    return _below(config, _coerce(Path, record["cwd"], f"{where}.cwd")) if "cwd" in record else config


def values_in(cls: type, record: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a record, as they were typed. Bags have a `kind` of their own in place of the stage's."""
    known = {field.name for field in dataclasses.fields(cls)}
    return {name: value for name, value in record.items() if name in known or name not in ("kind", "cwd")}


def _below(config: C, folder: Path) -> C:
    """The same settings with all relative paths below a folder."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _below(value, folder)
        elif isinstance(value, Path):
            changes[field.name] = folder / value
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def from_json(cls: type[C], values: Any, where: str = "config") -> C:
    """Rebuild a dataclass from `to_json`'s form.

    `UserError`, which begins with `where`: no object, an unknown or a missing key, a wrong type, a value that the class
    refuses.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: {brief(values)} is not allowed: it must be an object of settings")
    hints = type_hints(cls)  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(hints)):
        raise UserError(f"{where}: unknown key {brief(unknown[0])}; {did_you_mean(unknown[0], hints)}")
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise UserError(f"{where}: {field.name!r} is missing")
    found = {name: _coerce(hints[name], value, f"{where}.{name}") for name, value in values.items()}
    try:
        return cls(**found)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _coerce(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value, where)
    if origin in (types.UnionType, typing.Union):
        inner = next(arg for arg in args if arg is not type(None))
        return None if value is None else _coerce(inner, value, where)
    if origin is tuple:
        return _coerce_tuple(args, value, where)
    if origin is Literal:
        if value not in args:
            known = did_you_mean(value if isinstance(value, str) else "", args)
            raise UserError(f"{where}: {brief(value)} is not allowed; {known}")
        return value
    if hint is Path:
        try:
            return as_path(value)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    if type(value) is not hint and not (hint is float and type(value) is int):
        raise UserError(f"{where}: {brief(value)} is not allowed: it must be {WORDS[hint]}")
    if hint is str and not (value.isprintable() and len(value) <= MOST_TEXT):
        raise UserError(f"{where}: {brief(value)} is not allowed: it must be a name")
    if hint is not float:
        return value
    try:
        return float(value) + 0.0  # which makes -0.0 a plain 0.0
    except OverflowError:
        raise UserError(f"{where}: {brief(value)} is not allowed: it is too large") from None


def _coerce_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    many = args[-1] is Ellipsis
    if many and not isinstance(value, list | tuple | Mapping | type(None)):
        value = [value]  # so earlier releases wrote settings that take several values now
    if not isinstance(value, list | tuple) or not (many or len(value) == len(args)):
        count = "" if many else f" of {len(args)} values"
        raise UserError(f"{where}: {brief(value)} is not allowed: it must be a list{count}")
    return tuple(_coerce(args[0], item, f"{where}[{at}]") for at, item in enumerate(value))
