"""Hints for mistyped words, and what may mend itself told from what may not."""

import errno
import os

import pytest

from bingo.errors import (
    PASSING,
    TransientError,
    UserError,
    close_to,
    denied,
    did_you_mean,
    file_error,
    no_memory,
    remedy,
)

pytestmark = pytest.mark.quick
FLAGS = ("--optim.lr", "--optim.batch", "--student", "--seed")


@pytest.mark.parametrize(
    ("word", "close"),
    [
        ("--lr", ["--optim.lr"]),
        ("--stud", ["--student"]),
        ("--studnet", ["--student"]),
        ("--optim", ["--optim.lr", "--optim.batch"]),
        ("--frobnicate", []),
        ("--", []),
    ],
)
def test_close_names(word: str, close: list[str]) -> None:
    assert close_to(word, FLAGS) == close


def test_at_most_three_are_close() -> None:
    assert len(close_to("seed", [f"seed {n}" for n in range(9)])) == 3


def test_sentences() -> None:
    assert did_you_mean("resnet81", ["tiny", "resnet18"]) == "did you mean 'resnet18'?"
    assert did_you_mean("a", ["ab", "ac"]) == "did you mean 'ab' or 'ac'?"
    assert did_you_mean("x", ["b", "a"]) == "known: a, b"
    many = did_you_mean("x", [f"{n:02d}" for n in range(21)])
    assert many.startswith("known: 00, 01, ")
    assert many.endswith("19, ...")


@pytest.mark.parametrize("number", [*PASSING, errno.EACCES, errno.ENOTDIR])
def test_what_may_mend_itself(number: int) -> None:
    found = file_error(OSError(number, "no"), "a sentence")
    assert type(found) is (TransientError if number in PASSING else UserError)
    assert str(found) == "a sentence"


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EIO", "ESTALE", "ETIMEDOUT", "EHOSTDOWN", "ENOTCONN", "ENOLCK",
                                  "ENXIO", "EREMOTEIO", "ESHUTDOWN"])  # fmt: skip
def test_storage_that_comes_back_is_transient(name: str) -> None:
    number = getattr(errno, name)
    error = OSError(number, os.strerror(number), "/x")
    assert isinstance(file_error(error, "x"), TransientError)
    assert remedy(error) == ("free space" if name in ("ENOSPC", "EDQUOT") else "wait for its disk or file server")
    assert not denied(error)


@pytest.mark.parametrize(("name", "first"), [("EROFS", "have its file system mounted for writing again"),
                                             ("EACCES", "get the right to write there"),
                                             ("EPERM", "get the right to write there")])  # fmt: skip
def test_a_refusal_is_the_user_s_until_more_is_known(name: str, first: str) -> None:
    number = getattr(errno, name)
    error = OSError(number, os.strerror(number), "/x")
    found = file_error(error, f"cannot write /x: {error.strerror}; {remedy(error)}")
    assert not isinstance(found, TransientError)
    assert denied(found), "also where another rank said so, without the error itself"
    assert first in str(found)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("ENOENT", "have its storage mounted"),
        ("EISDIR", "move away what is in its place"),
        ("EEXIST", "move away what is in its place"),
        ("EFBIG", "free space"),
    ],
)
def test_what_to_do_first(name: str, first: str) -> None:
    assert remedy(OSError(getattr(errno, name), "x")) == first


STARVED = [
    MemoryError(),
    OSError(errno.ENOMEM, "x"),
    RuntimeError("unable to mmap: Cannot allocate memory (12)"),
    RuntimeError("CUDA out of memory. Tried"),
    RuntimeError("std::bad_alloc"),
]


@pytest.mark.parametrize("error", STARVED)
def test_no_memory(error: Exception) -> None:
    assert no_memory(error)
    assert not no_memory(RuntimeError("a record that is damaged"))
    assert remedy(OSError(errno.ENOMEM, "x")) == "end other programs on this machine"
