"""The exception that means "the user can fix this", and its kind that time may fix too."""

import difflib
import errno
from collections.abc import Iterable


class UserError(ValueError):
    """One sentence: what is wrong, where, what is allowed, what to type next. The CLI prints it and exits with 2."""


class TransientError(UserError):
    """What may mend itself: a full disk, a file server that fails, a busy folder. `launch` tries such a job again."""


class PeerError(TransientError):
    """Another rank is not there, or no longer: what there is to say about this one is another's fault."""


PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)


def of_process(error: Exception) -> bool:
    """Whether a limit of this process is the reason, so that nothing is wrong with the file that it wanted to open."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


LIMITS = {
    errno.EMFILE: "too many files are open for the limit of this shell; raise it: ulimit -n 4096",
    errno.ENFILE: "too many files are open on this machine; end other programs",
    errno.EAGAIN: "no more processes or threads may be started; end others, or raise the limit: ulimit -u",
    errno.ENOMEM: "the memory of this machine is used up; end other programs, or use fewer --workers",
}
"""What the system gives no more of, and what to do."""
REFUSALS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EIO,
    errno.ESTALE,
)


def refusal(error: OSError) -> str:
    """The sentence about what the system does not give or allow; "" for an error that is no user's."""
    if error.filename and error.errno in REFUSALS:
        return f"{error.filename} cannot be used: {error.strerror}; name another path, or get the right to this one"
    return LIMITS.get(error.errno or 0, "")


def file_error(error: OSError, sentence: str) -> UserError:
    """The sentence about a file that could not be read or written, as an error that says whether it may mend itself."""
    return (TransientError if error.errno in PASSING else UserError)(sentence)


def brief(value: object) -> str:
    """A value as a message shows it: its repr, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits, lists in lists in lists
        text = f"a {type(value).__name__} of no end"
    return text if len(text) <= 100 else text[:97] + "..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint such as `did you mean 'resnet18'?`, or the valid names when nothing is close."""
    names = sorted(known)
    if close := close_to(word, names):
        return "did you mean " + " or ".join(repr(name) for name in close) + "?"
    return "known: " + ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def close_to(word: str, names: Iterable[str]) -> list[str]:
    """At most three: names that begin with `word`, names that end in it after a dot, names with other letters."""
    plain = {name.lstrip("-"): name for name in names}
    word = word.lstrip("-")
    whole = [name for name in plain if word and (name.startswith(word) or name.endswith(f".{word}"))]
    found = dict.fromkeys([*whole, *difflib.get_close_matches(word, plain, n=3)])
    return [plain[name] for name in found][:3]


def escaped(text: str) -> str:
    """A text in which whatever is no visible character or plain space is written as `\\x1b`, `\\u202e`, ..."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
