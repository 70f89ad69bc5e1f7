"""A JPEG decoder that reports damage instead of drawing over it; `check.py` decides what that means.

libjpeg repairs damaged data (garbage in the middle, a tail of zeros) and only says so in one line on the C-level
standard error; Pillow throws that line away, torchvision lets it through, neither fails. So torchvision decodes in a
child process whose standard error is a file that is read after each image. The child also takes the blow when a hostile
file crashes the decoder, and therefore does the conversions (`bingo.images.convert`) too. This file is the child's
script, and so imports nothing of the package at module level.
"""

import functools
import importlib.util
import io
import os
import pathlib
import queue
import re
import struct
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, BinaryIO, Self

REQUEST = struct.Struct("<8sQ")  # what to do, length of the image
REPLY = struct.Struct("<QQ")  # lengths of what was said and of the image made
DECODE = "decode"
DIED = "the JPEG decoder died on it (damaged, or not enough memory)"
READY = b"ready\n"


class StrictDecoder:
    """`count` child processes, started when first needed; to be called from as many threads."""

    def __init__(self, count: int) -> None:
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        self._children = [_Child() for _ in range(count)]
        for child in self._children:
            self._idle.put(child)

    def problem(self, data: bytes) -> str:
        """Decode one JPEG; "" when libjpeg has nothing to say about it, otherwise what it said."""
        return self._ask(DECODE, data)[0]

    def load_problem(self, data: bytes) -> str:
        """Decode one image of another format with Pillow; "" or what is wrong with it."""
        return self._ask("load", data)[0]

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

    def ask(self, action: str, data: bytes) -> tuple[str, bytes]:
        requests, replies = self._pipes()
        try:
            requests.write(REQUEST.pack(action.encode(), len(data)))
            requests.write(data)
            requests.flush()
            said, made = REPLY.unpack(replies.read(REPLY.size))
            return replies.read(said).decode(errors="replace"), replies.read(made)
        except (BrokenPipeError, struct.error):
            self.stop()
            return DIED, b""

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _pipes(self) -> tuple[BinaryIO, BinaryIO]:
        if self._process is None:
            self._process = _start()
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        return process.stdin, process.stdout  # type: ignore[return-value]


def _start() -> "subprocess.Popen[bytes]":
    # -P: without it this file's folder would lead the path, and with it the names kernels, launch and bench.
    process = subprocess.Popen(
        [sys.executable, "-P", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if line != READY:
        from bingo.errors import UserError

        process.kill()
        process.communicate()
        said = line.decode(errors="replace").strip() or "it ended at once"
        raise UserError(
            f"the strict JPEG decoder (torchvision.io.decode_jpeg) does not start: {said}; reinstall torchvision"
        )
    return process


def _serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """The child: answer until the parent closes its end, which a killed parent does too."""
    warnings.simplefilter("ignore")  # a Python warning on standard error must not pass for one of libjpeg's
    try:
        decode = _decoder()
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        replies.write(f"{_one_line(error)}\n".encode())
        return
    with tempfile.TemporaryFile() as complaints:
        os.dup2(complaints.fileno(), 2)
        replies.write(READY)
        replies.flush()
        while head := requests.read(REQUEST.size):
            action, length = REQUEST.unpack(head)
            said, made = _answer(decode, action.rstrip(b"\0").decode(), requests.read(length))
            # A decoder's warning is damage; what libtiff and others say about metadata while converting is not.
            warned = _take(complaints.fileno())
            said = (warned if action.startswith(DECODE.encode()) else "") or said
            replies.write(REPLY.pack(len(said.encode()), len(made)) + said.encode() + made)
            replies.flush()


def _decoder() -> Callable[[bytes], Any]:
    """torchvision's decoder, tried on a sound image: a build without libjpeg must not make every file look damaged."""
    import torch
    from PIL import Image
    from torchvision.io import ImageReadMode, decode_jpeg

    def decode(data: bytes) -> Any:
        return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.UNCHANGED)

    sound = io.BytesIO()
    Image.new("RGB", (8, 8)).save(sound, "JPEG")
    decode(sound.getvalue())
    return decode


def _answer(decode: Callable[[bytes], Any], action: str, data: bytes) -> tuple[str, bytes]:
    """What there is to say, and the image made if one was asked for."""
    try:
        if action == DECODE:
            decode(data)
            return "", b""
        made = _actions()[action](data) or b""
        if action == "baseline" and not decode(data).equal(decode(made)):
            return "its pixels would change", b""
    except Exception as error:  # Pillow lets anything out on hostile bytes: struct.error, SyntaxError, ValueError, ...
        return _one_line(error) or "cannot be decoded", b""
    return "", made


@functools.cache
def _actions() -> dict[str, Callable[[bytes], Any]]:
    """`ACTIONS` of convert.py, from the file beside this one: the name `bingo` may lead to another installation."""
    spec = importlib.util.spec_from_file_location("conversions", pathlib.Path(__file__).with_name("convert.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ACTIONS


def _take(descriptor: int) -> str:
    """Read and empty the file behind standard error."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    text = os.read(descriptor, 4096).decode(errors="replace")
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return _one_line(text)


def _one_line(text: object) -> str:
    """Drop the C++ source location that torchvision puts first, and every line after the first."""
    first = str(text).strip().partition("\n")[0]
    return re.sub(r"^.*\.cpp:\d+[,:]?\s*", "", first)


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
