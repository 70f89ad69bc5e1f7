"""Stored texts that are much alike: one whole, of the others what differs."""

from collections.abc import Mapping
from difflib import unified_diff


def compact(texts: Mapping[str, str]) -> str:
    """The first text whole, of each other one what differs from the most alike text before it.

    Two sets of texts have the same compact form only when they are equal to the byte: a hunk names the lines that it
    replaces by their numbers, and those are lines of a text that is stored too.
    """
    first = next(iter(texts))
    stored, before = f"=== {first}\n{texts[first]}", [first]
    for name in list(texts)[1:]:
        changes = {base: changed(texts[base], texts[name]) for base in before}
        base = min(changes, key=lambda base: len(changes[base]))
        stored += f"=== {name}, unlike {base}:\n{''.join(changes[base])}"
        before.append(name)
    return stored


def changed(base: str, text: str) -> list[str]:
    """Hunks of a unified diff without context: which lines of `base` are replaced (`@@ -5,2 +5,3 @@`), and by what."""
    difference = list(unified_diff(base.splitlines(keepends=True), text.splitlines(keepends=True), n=0))
    return [line for line in difference[2:] if not line.startswith("-")]  # without the two lines of file names
