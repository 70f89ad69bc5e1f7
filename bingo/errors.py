"""The one exception that means "the user can fix this"."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """One sentence: what is wrong, where, what is allowed, what to type next. The CLI prints it and exits with 2."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint such as `did you mean 'resnet18'?`, or the valid names when nothing is close."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=3)
    if close:
        return "did you mean " + " or ".join(repr(name) for name in close) + "?"
    return "known: " + ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
