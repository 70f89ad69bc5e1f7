"""A function in a fresh interpreter: the command that calls it, and the environment that finds this very package."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def command(function: Callable[..., object], arguments: Sequence[Any]) -> list[str]:
    """The command that calls a function of a module with JSON values."""
    module, name = function.__module__, function.__qualname__
    code = f"import sys, json; from {module} import {name}; {name}(*json.loads(sys.argv[1]))"
    return [sys.executable, "-c", code, json.dumps(list(arguments))]


def environment() -> dict[str, str]:
    """This process's, with the package's parent first on the path: a checkout runs itself and not an installed copy."""
    paths = [str(Path(sys.modules["bingo"].__path__[0]).parent), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
