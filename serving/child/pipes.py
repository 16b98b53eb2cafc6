"""What goes over the pipes between a process and its child, and the child's side of it. Needs Python and NumPy alone.

This file is run by its path (`python -P pipes.py PROGRAM`), so the child need not be able to import anything of ours. PROGRAM is
the path of a Python file, or `-m` and the name of a module that can be imported; it has

    def answer(header, arrays, tell): ...

which is called once for each request, one after the other, on the main thread, and returns a header or a pair of a header
and arrays. `tell(header, arrays)` sends something before the answer, and is a sign of life. What it raises, and `sys.exit`,
is told to whoever asked. `tell` may be called from any thread. The process ends when its pipe closes, whatever it is doing.

A message is

    8 bytes    MAGIC
    8 bytes    how many bytes the header has, then how many the arrays have together: two unsigned numbers of 4 and 8 bytes,
    + 4          little-endian
    header     JSON in UTF-8: {"header": whatever was sent, "arrays": [[name, dtype, shape], ...]}
    arrays     the bytes of each, in that order, in C order; of an array of strings each element's length (4 bytes,
               little-endian) and the element

The dtype is that of the header of an `.npy` file, and "bytes" for an object array of `bytes`. Nothing is pickled. Bytes in
front of a message are no message: what an interpreter prints while it starts comes before the pipe is taken away from it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import select
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MAGIC = b"\x93lstm\r\n\x01"
_LENGTHS = struct.Struct("<IQ")
_START = len(MAGIC) + _LENGTHS.size
_SMALL = 32 * 1024  # bytes that are written at once rather than copied never
MOST_HEADER_BYTES = 64 * 1024 * 1024
MOST_BYTES = 8 * 1024**3
STRINGS = "bytes"
TOLD, RAISED, LEFT = "told", "raised", "left"  # the kinds of messages beside an answer

Arrays = Mapping[str, npt.NDArray[Any]]
Tell = Callable[..., None]


class Message(NamedTuple):
    """What was sent: a header (whatever JSON holds) and arrays by name. `kind` is "" for a request and its answer."""

    header: Any
    arrays: dict[str, npt.NDArray[Any]]
    kind: str = ""


def packed(header: Any, arrays: Arrays | None = None, kind: str = "") -> list[bytes | memoryview]:
    """The bytes of a message, in pieces. Raises `TypeError` and `ValueError` for what cannot be sent."""
    described: list[tuple[str, Any, Sequence[int]]] = []
    pieces: list[bytes | memoryview] = []
    for name, array in (arrays or {}).items():
        if array.dtype.kind == "O":
            described.append((name, STRINGS, array.shape))
            pieces += [part for one in array.flat for part in (struct.pack("<I", len(one)), bytes(one))]
            continue
        if array.dtype.hasobject:
            raise TypeError(f"{name} is of {array.dtype}, which is not sent")
        described.append((name, np.lib.format.dtype_to_descr(array.dtype), array.shape))
        if array.size:
            flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            pieces.append(memoryview(flat))  # type: ignore[arg-type]
    fields = {"header": header, "arrays": described, **({"kind": kind} if kind else {})}
    text = json.dumps(fields).encode()
    whole = [MAGIC + _LENGTHS.pack(len(text), sum(map(len, pieces))) + text, *pieces]
    return [b"".join(whole)] if sum(map(len, pieces)) <= _SMALL else whole


class Reader:
    """Makes messages of what comes through a pipe, in whatever portions. Raises `ValueError` for what is no message."""

    def __init__(self, noise: Callable[[bytes], None] = lambda said: None) -> None:
        self._bytes = bytearray()
        self._noise = noise

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are whole now; what is in front of one is `noise`."""
        self._bytes += data
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> Message | None:
        held = self._bytes
        begin = held.find(MAGIC)
        if begin != 0:
            cut = begin if begin > 0 else max(0, len(held) - len(MAGIC) + 1)
            if cut:
                self._noise(bytes(held[:cut]))
                del held[:cut]
        if len(held) < _START or not held.startswith(MAGIC):
            return None
        of_header, of_arrays = _LENGTHS.unpack_from(held, len(MAGIC))
        if of_header > MOST_HEADER_BYTES or of_arrays > MOST_BYTES:
            raise ValueError(f"a message of {of_header} and {of_arrays} bytes is not read")
        if len(held) < _START + of_header + of_arrays:
            return None
        fields = json.loads(held[_START : _START + of_header].decode())
        body = bytes(held[_START + of_header : _START + of_header + of_arrays])
        del held[: _START + of_header + of_arrays]
        return Message(fields["header"], _unpacked(fields["arrays"], body), fields.get("kind", ""))


def _unpacked(described: Sequence[Any], body: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays, read-only but for those of strings. Raises `ValueError` where bytes and description do not fit."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    at = 0
    for name, kind, shape in described:
        if not all(isinstance(size, int) and size >= 0 for size in shape):
            raise ValueError(f"{name} has the shape {shape}")
        count = int(np.prod(shape, dtype=object))
        if kind == STRINGS:
            arrays[name], at = _strings(body, at, count, shape)
            continue
        described_dtype: Any = kind if isinstance(kind, str) else [tuple(field) for field in kind]
        dtype = np.lib.format.descr_to_dtype(described_dtype)
        if dtype.hasobject or at + count * dtype.itemsize > len(body):
            raise ValueError(f"{name} of {dtype} and shape {shape} does not fit what was sent")
        arrays[name] = np.frombuffer(body, dtype, count, at).reshape(shape) if count else np.empty(shape, dtype)
        at += count * dtype.itemsize
    if at != len(body):
        raise ValueError(f"{len(body) - at} bytes belong to no array")
    return arrays


def _strings(body: bytes, at: int, count: int, shape: Sequence[int]) -> tuple[npt.NDArray[Any], int]:
    if count > len(body):
        raise ValueError(f"{count} strings do not fit what was sent")
    made = np.empty(count, object)
    for number in range(count):
        (length,) = struct.unpack_from("<I", body, at)
        at += 4
        if at + length > len(body):
            raise ValueError("a string is longer than what was sent")
        made[number] = body[at : at + length]
        at += length
    return made.reshape(shape), at


# The child's side.


def serve(loaded: Callable[[], Callable[..., Any]], requests: int, answers: int) -> None:
    """Answers what comes from the file descriptor `requests` until it closes; `loaded()` gives the program's `answer`."""

    def watch() -> None:
        pipe = select.poll()
        pipe.register(requests, 0)  # that it has been closed is said unasked
        while not (events := pipe.poll()):
            pass
        if events[0][1] != select.POLLNVAL:  # which would be the program's own doing
            os._exit(0)  # whoever asked has gone: nobody wants what is being computed

    one_at_a_time = threading.Lock()
    asked = os.getpid()

    def send(header: Any, arrays: Arrays | None = None, kind: str = "") -> None:
        if os.getpid() != asked:
            os._exit(0)  # a copy that the program has made of itself: two answers to one question
        pieces = packed(header, arrays, kind)
        with one_at_a_time:
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    view = view[os.write(answers, view) :]

    def tell(header: Any = None, arrays: Arrays | None = None) -> None:
        send(header, arrays, TOLD)

    if hasattr(select, "poll"):
        threading.Thread(target=watch, name="pipe", daemon=True).start()
    answer: Callable[..., Any] | None = None
    for message in _received(requests):
        try:
            answer = answer or loaded()
            made = answer(message.header, message.arrays, tell)
            header, arrays = made if isinstance(made, tuple) else (made, None)
            send(header, arrays)
        except SystemExit as left:
            send({"code": left.code if isinstance(left.code, int) else str(left.code or "")}, kind=LEFT)
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - told to whoever asked, whatever it is
            send({"type": type(error).__name__, "said": _said(error), "trace": traceback.format_exc()}, kind=RAISED)


def _received(requests: int) -> Iterator[Message]:
    reader = Reader()
    while data := os.read(requests, 1024 * 1024):
        yield from reader.feed(data)


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an error of somebody else's code may not even have words
        return ""


def taken_over() -> tuple[int, int]:
    """File descriptors of the pipes. From now on nothing else reads standard input or writes to the pipe of the answers."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def _program(words: Sequence[str]) -> Callable[..., Any]:
    """`answer` of a file, or with -m of a module."""
    if words[0] == "-m":
        return importlib.import_module(words[1]).answer  # type: ignore[no-any-return]
    # It has a name that it can be found by: TorchScript and pickle look their classes up.
    spec = importlib.util.spec_from_file_location("child_program", words[0])
    if spec is None or spec.loader is None:
        raise ImportError(f"{words[0]} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.answer  # type: ignore[no-any-return]


def _main() -> None:
    pipes = taken_over()
    with contextlib.suppress(ImportError):  # another system
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is expected here; nobody wants gigabytes on the disk
    words = sys.argv[1:]
    sys.argv[:] = words[1:] if words[0] == "-m" else words
    serve(lambda: _program(words), *pipes)


if __name__ == "__main__":
    _main()
