"""The exception that means "the user can fix this", and its kind that time may fix too."""

import difflib
import errno
import os
import re
from collections.abc import Iterable


class UserError(ValueError):
    """One sentence: what is wrong, where, what is allowed, what to type next. The CLI prints it and exits with 2."""


class TransientError(UserError):
    """What may mend itself: a full disk, a file server that fails, a busy folder. `launch` tries such a job again."""


class PeerError(TransientError):
    """Another rank is not there, or no longer: what there is to say about this one is another's fault."""


FULL = (errno.ENOSPC, errno.EDQUOT)
AWAY = (
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN, errno.ESHUTDOWN,
    errno.ECONNRESET, errno.ENOLCK, errno.ENXIO, errno.ENODEV, errno.EREMOTEIO,
)  # fmt: skip
"""What a file server that fails or is away answers."""
SCARCE = (errno.ENOMEM, errno.ENFILE)
"""What a machine answers that has no more memory or open files to give; others may end."""
PASSING = (*FULL, *AWAY, *SCARCE)
"""What mends itself, whatever was to be read or written."""
DENIED = (errno.EROFS, errno.EACCES, errno.EPERM)
"""What a wrong path gives, and a file server that comes back wrong: only who could write there before knows."""


def denied(error: BaseException) -> bool:
    """Whether the system refuses to read or write, as the sentence says: it may have come from another rank."""
    return any(os.strerror(number) in str(error) for number in DENIED)


def gone(error: BaseException) -> bool:
    """Whether a file or folder is not there, as the sentence says in the system's own words."""
    return os.strerror(errno.ENOENT) in str(error)


def remedy(error: OSError) -> str:
    """What to do first about a file that cannot be written."""
    if error.errno == errno.EROFS:
        return "have its file system mounted for writing again"
    if error.errno in AWAY:
        return "wait for its disk or file server"
    if error.errno in SCARCE:
        return "end other programs on this machine"
    if error.errno == errno.ENOENT:
        return "have its storage mounted"
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
        return "move away what is in its place"
    return "get the right to write there" if error.errno in DENIED else "free space"


def of_process(error: Exception) -> bool:
    """Whether a limit of this process is the reason, so that nothing is wrong with the file that it wanted to open."""
    limits = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in limits)


# What torch and DALI say; torch.load of a mapped file: "unable to mmap ...: Cannot allocate memory (12)".
NO_MEMORY = re.compile(
    r"(?i)can(?:.?t|not) allocate memory|not enough memory|out of memory|memory of this machine is used up|"
    r"bad_?alloc|\bMemoryError\b"
)


def no_memory(error: BaseException) -> bool:
    """Whether memory is the reason, so that nothing is wrong with what was to be read or computed."""
    scarce = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return scarce or isinstance(error, MemoryError) or bool(NO_MEMORY.search(str(error)))


# What torch, gloo and NCCL say when another rank is gone or does not answer.
PEER = re.compile(
    r"(?i)connection (?:was )?(?:closed|reset|refused|aborted)|closed by (?:peer|remote)|pair closure|broken pipe|"
    r"timed? ?out|socket|remote process exited|ncclRemoteError|NCCL (?:error|communicator)|gloo|0 bytes"
)


def of_peer(error: BaseException) -> bool:
    """Whether torch says that another rank is gone or does not answer."""
    distributed = type(error).__name__.startswith("Dist") or type(error) is RuntimeError
    return distributed and bool(PEER.search(str(error)))


LIMITS = {
    errno.EMFILE: "too many files are open for the limit of this shell; raise it: ulimit -n 4096",
    errno.ENFILE: "too many files are open on this machine; end other programs",
    errno.EAGAIN: "no more processes or threads may be started; end others, or raise the limit: ulimit -u",
    errno.ENOMEM: "the memory of this machine is used up; end other programs, or use fewer --workers",
}
"""What the system gives no more of, and what to do."""
REFUSALS = (*DENIED, *AWAY, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)


def refusal(error: OSError | MemoryError) -> str:
    """The sentence about what the system does not give or allow; "" for an error that is no user's."""
    if isinstance(error, MemoryError):
        return LIMITS[errno.ENOMEM]
    if error.filename and error.errno in AWAY:
        return f"{error.filename} cannot be used: {error.strerror}; wait for its disk or file server, and repeat this"
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
