"""Settings as JSON and back: unknown keys and wrong values are refused, with what is close."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from bingo.errors import UserError, did_you_mean

C = TypeVar("C")


def to_json(config: Any) -> Any:
    """A dataclass as plain JSON values (paths become strings)."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_json(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, tuple | list):
        return [to_json(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def from_json(cls: type[C], values: Mapping[str, Any], where: str = "config") -> C:
    """Rebuild a dataclass from `to_json`'s form; unknown keys and values are `UserError`s that list what is close."""
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise UserError(f"{where}: unknown key {unknown[0]!r}; {did_you_mean(unknown[0], hints)}")
    return cls(**{name: _coerce(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _coerce(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value, where)
    if origin in (types.UnionType, typing.Union):
        inner = next(arg for arg in args if arg is not type(None))
        return None if value is None else _coerce(inner, value, where)
    if origin is tuple:
        return tuple(_coerce(args[0], item, where) for item in value)
    if origin is Literal:
        if value not in args:
            raise UserError(f"{where}: {value!r} is not allowed; {did_you_mean(str(value), args)}")
        return value
    if hint is Path:
        return Path(value)
    if hint is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UserError(f"{where}: {value!r} is not a {hint.__name__}")
    return value
