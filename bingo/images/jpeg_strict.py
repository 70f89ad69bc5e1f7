"""A child process that decodes images: it reports damage instead of drawing over it, and within limits.

libjpeg repairs damaged data (garbage in the middle, a tail of zeros) and only says so in one line on the C-level
standard error; Pillow throws that line away, torchvision lets it through, neither fails. So torchvision decodes where
standard error is a pipe that is read after each image. A pipe is never missing, nor too full to tell: what it holds
was said, whatever did not fit. Silence counts only once a damaged image was heard of.

No byte of an image file reaches Pillow or libjpeg elsewhere: the child takes the blow when a hostile file crashes a
decoder, needs `MOST_SECONDS` or `MOST_BYTES`. This file is the child's script, and so imports nothing of the package at
module level.
"""

import contextlib
import functools
import importlib.util
import io
import json
import os
import pathlib
import queue
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

if TYPE_CHECKING:
    from bingo.images.headers import Header

MOST_SECONDS = 20.0  # of CPU time, so that a busy machine turns no sound image bad; 89 megapixels take 5 at most
MOST_BYTES = 1 << 30  # of memory, beyond what the process had before
REQUEST = struct.Struct("<8sQ")  # what to do, length of the image
REPLY = struct.Struct("<QQ")  # lengths of what was said and of what was made
PROVE, LOOK, LOAD, DECODE, BASELINE = "prove", "look", "load", "decode", "baseline"
BY_LIBJPEG = (DECODE, BASELINE)
DIED = "the decoder died on it (damaged, or not enough memory)"
NEEDS = "needs more than"
TOO_LONG = f"{NEEDS} {MOST_SECONDS:.0f} s of CPU to decode"
TOO_LARGE = f"{NEEDS} {MOST_BYTES >> 30} GiB of memory to decode"
PIPE = 1 << 16
DECODER_ERROR = re.compile(r"\w+Decode\w*: .*")  # libtiff's "Fax4Decode: Bad code word at line 3 of strip 0 (x 52)."
READY = b"ready\n"


class StrictDecoder:
    """`count` child processes, started when first needed; to be called from as many threads."""

    def __init__(self, count: int) -> None:
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        self._children = [_Child() for _ in range(count)]
        for child in self._children:
            self._idle.put(child)

    def problem(self, data: bytes) -> str:
        """Decode one JPEG; "" when libjpeg has nothing to say about it, otherwise what it said, or a limit."""
        return self._ask(DECODE, data)[0]

    def look(self, data: bytes) -> "Header | str":
        """What the header of an image of another format says, or why there is none."""
        from bingo.images.headers import Header

        said, made = self._ask(LOOK, data)
        return said or Header(**json.loads(made))

    def load_problem(self, data: bytes) -> str:
        """Decode one image of another format with Pillow; "" or what is wrong with it, or a limit."""
        return self._ask(LOAD, data)[0]

    def convert(self, action: str, data: bytes) -> bytes:
        """An image after one of `bingo.images.convert.ACTIONS`; after "baseline" with the same pixels, as checked.

        Raises `ConversionError`.
        """
        from bingo.images.convert import ConversionError

        said, made = self._ask(action, data)
        if not made:
            raise ConversionError(said)
        return made

    def _ask(self, action: str, data: bytes) -> tuple[str, bytes]:
        child = self._idle.get()
        try:
            return child.ask(action, data)
        finally:
            self._idle.put(child)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for child in self._children:
            child.stop()


class _Child:
    """One decoding process: what to do and an image in, one line of text and perhaps an image out."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._proven = False

    def ask(self, action: str, data: bytes) -> tuple[str, bytes]:
        if self._process is None:
            self._process, self._proven = _start(), False
        if action in BY_LIBJPEG and not self._proven:
            from bingo.errors import UserError

            if said := self._exchange(PROVE, b"")[0]:
                raise UserError(
                    f"the strict JPEG decoder (torchvision.io.decode_jpeg) does not start: {said}; "
                    "reinstall torchvision"
                )
            self._proven = True
        return self._exchange(action, data)

    def _exchange(self, action: str, data: bytes) -> tuple[str, bytes]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(REQUEST.pack(action.encode(), len(data)))
            process.stdin.write(data)
            process.stdin.flush()
            said, made = REPLY.unpack(_exactly(process.stdout, REPLY.size))
            return _exactly(process.stdout, said).decode(errors="replace"), _exactly(process.stdout, made)
        except (BrokenPipeError, EOFError):
            self.stop()
            return (TOO_LONG if process.returncode == -signal.SIGPROF else DIED), b""

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _exactly(stream: Any, size: int) -> bytes:
    """`size` bytes: fewer, of a child that died while it answered, must not pass for an answer."""
    data: bytes = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


def _start() -> "subprocess.Popen[bytes]":
    from bingo.errors import TransientError, UserError

    # -P: without it this file's folder would lead the path, and with it the names kernels, launch and bench.
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # until the child is ready; what stopped it stands in the last line
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    except OSError as error:  # which pack would take for one of the disk
        raise TransientError(
            f"the decoding process ({sys.executable}) does not start: {error.strerror}; "
            "free memory and processes, and repeat the command"
        ) from error
    assert process.stdout is not None
    said = "it ended at once"
    for line in process.stdout:
        if line == READY:
            return process
        said = line.decode(errors="replace").strip() or said
    process.kill()
    process.communicate()
    raise UserError(f"the decoding process (Python with Pillow and numpy) does not start: {said}; reinstall pillow")


def _serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """The child: answer until the parent closes its end, which a killed parent does too."""
    warnings.simplefilter("ignore")  # a Python warning on standard error must not pass for one of libjpeg's
    tempfile.tempdir = "/tmp"  # torch looks for a folder that can be written as it is imported; here none is needed
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends the process: the parent may have ignored it
    _modules()
    _memory()
    heard, complaints = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for stream in (1, 2):  # nothing that a library prints may stand between two replies
        os.dup2(complaints, stream)
    replies.write(READY)
    replies.flush()
    while head := requests.read(REQUEST.size):
        action, length = REQUEST.unpack(head)
        said, made = _answer(action.rstrip(b"\0").decode(), requests.read(length), heard)
        replies.write(REPLY.pack(len(said.encode()), len(made)) + said.encode() + made)
        replies.flush()


def _answer(action: str, data: bytes, heard: int) -> tuple[str, bytes]:
    """What there is to say, and what was made if something was asked for."""
    headers, conversions = _modules()
    try:
        if action == PROVE:
            _prove(heard)
            return "", b""
        with _limits(MOST_BYTES * (4 if action == LOOK else 1)):  # WebP reserves its frames, but does not fill them yet
            if action == LOOK:
                made = json.dumps(headers.look(data)._asdict()).encode()
            elif action == DECODE:
                made = b""
                _decode(data)
            else:
                made = conversions.ACTIONS[action](data) or b""
                if action == BASELINE and not _decode(data).equal(_decode(made)):
                    return "its pixels would change", b""
    except Exception as error:  # Pillow lets anything out on hostile bytes: struct.error, SyntaxError, ValueError, ...
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            return TOO_LARGE if _is_unlimited() else DIED, b""
        reason = headers.unidentified(data[:16], error) if action == LOOK else ""
        return reason or _one_line(error) or "cannot be decoded", b""
    finally:
        warned = _take(heard)
    if action == DECODE:
        return (_one_line(warned) or "the decoder complained") if warned else "", made
    # A decoder's error is damage, where Pillow goes on too (fax); what libtiff says about metadata is not.
    found = DECODER_ERROR.search(warned) if action == LOAD else None
    return _one_line(found[0]) if found else "", made


@contextlib.contextmanager
def _limits(most_bytes: int) -> Iterator[None]:
    """What one image may take: memory ends in an error, time in the end of the process (SIGPROF)."""
    now = int(os.pread(_memory(), 200, 0).split()[5]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = [now + most_bytes, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(wanted), hard))
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _is_unlimited() -> bool:
    """Whether memory ends where this file says; else (`ulimit -v`, `-d`) its end says nothing about an image."""
    kinds = resource.RLIMIT_AS, resource.RLIMIT_DATA
    return all(resource.getrlimit(kind)[0] == resource.RLIM_INFINITY for kind in kinds)


@functools.cache
def _memory() -> int:
    """Where Linux tells how much memory this process has, in pages."""
    return os.open("/proc/self/statm", os.O_RDONLY)


def _decode(data: bytes) -> Any:
    """The pixels of a JPEG, by torchvision."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.UNCHANGED)


def _prove(heard: int) -> None:
    """Raise unless a sound JPEG decodes in silence and a damaged one is heard of.

    A build without libjpeg must not make every file look damaged, nor one that says nothing every file look sound.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.linear_gradient("L").save(file, "JPEG")
    sound = file.getvalue()
    _decode(sound)
    if said := _take(heard):
        raise RuntimeError(f"it complains of a sound image ({_one_line(said)})")
    _decode(sound[: len(sound) // 2] + bytes(len(sound) // 2) + sound[-2:])
    if not _take(heard):
        raise RuntimeError("it does not complain of a damaged image")


@functools.cache
def _modules() -> tuple[ModuleType, ModuleType]:
    """headers.py and convert.py, from beside this file: the name `bingo` may lead to another installation."""
    return _module("headers"), _module("convert")


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, pathlib.Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _take(heard: int) -> str:
    """Empty the pipe behind standard error: what it held, "" for nothing. Of very much only the beginning fits in."""
    text = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            text += os.read(heard, PIPE)
    return text.decode(errors="replace")


def _one_line(text: object) -> str:
    """Drop the C++ source location that torchvision puts first, and every line after the first."""
    first = str(text).strip().partition("\n")[0]
    return re.sub(r"^.*\.cpp:\d+[,:]?\s*", "", first)


if __name__ == "__main__":
    _serve(sys.stdin.buffer, open(os.dup(1), "wb"))  # noqa: SIM115  for the life of the process
