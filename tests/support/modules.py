"""Every source module of the four trees, its dotted name, and what a text imports."""

import ast
import functools
from pathlib import Path

from tests.support.ranks import ROOT

LINKS = ("kernels", "launch", "bench")
# rglob does not follow the three links, so each file is seen once.
SOURCES = sorted(p for folder in ("bingo", *LINKS) for p in (ROOT / folder).rglob("*.py"))


def module(path: Path) -> str:
    """The dotted name under which a file is imported: launch/cluster/site.py is bingo.launch.cluster.site."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "bingo" else ("bingo", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imports(text: str, top_level: bool = False) -> frozenset[str]:
    """Dotted names that a module's text imports, `a.b` for `from a import b`.

    Those inside functions and for type checkers count too; with top_level only those that run at import time.
    """
    tree = ast.parse(text)
    skipped = {node for late in ast.walk(tree) if top_level and _is_late(late) for node in ast.walk(late)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and node not in skipped:
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node not in skipped:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def _is_late(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return True
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
