"""A sequence as bytes: what a store holds of it, and what an operator takes along.

A record stands by itself: it carries a checksum over all of it, the number of its format, the version of the model that it
belongs to, the digest of the weights and the shapes of the state, the sequence's owner and id, its state and the answers that
are kept. So one that was torn, changed or written by somebody else is known as that, and never read as a state.

Integers are little-endian, and arrays are as numpy has them in memory, in rows. Numbers and texts as ids are told apart.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.sequences.policy import StateLayout
from serving.sequences.step import Key
from serving.signature import byte_strings

FORMAT = 1

# Checksum; format, whether it has ended, whether its steps have numbers, whether its id is a text; epoch, steps taken, the
# time of the last one; the lengths of origin, caller, id, nonce, state and how many answers.
_HEAD = struct.Struct("<I4B3Q6I")
_CHECKED_FROM = 4
_ROOM = bytes(_HEAD.size)
_ANSWER = struct.Struct("<Q3I")  # its number, and the lengths of digest, signature and outputs
_OUTPUT = struct.Struct("<3BI")  # the lengths of name and datatype, how many axes, and how many bytes
_TEXT = b"O"  # the datatype of byte strings

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]


class Torn(ValueError):
    """Bytes that are not what was written: cut off, changed, or of another format."""


class Kept(NamedTuple):
    """What was answered to a numbered step: `packed` is all of it, as a record holds it, so that it is packed once."""

    number: int
    digest: bytes
    signature: bytes  # of the outputs
    packed: bytes

    @classmethod
    def of(cls, number: int, digest: bytes, signature: bytes, outputs: bytes) -> Kept:
        """`outputs` are as `pack_outputs` makes them."""
        head = _ANSWER.pack(number, len(digest), len(signature), len(outputs))
        return cls(number, digest, signature, head + digest + signature + outputs)

    @property
    def outputs(self) -> bytes:
        """As `pack_outputs` has made them."""
        return self.packed[_ANSWER.size + len(self.digest) + len(self.signature) :]


class Origin(NamedTuple):
    """What a state means something to: a version of a model, its weights, and the state's names, datatypes and shapes.

    `places` says where each tensor of a state is: its input, its datatype, its shape, and the first byte.
    """

    version: str
    weights_sha256: str
    shapes: Mapping[str, tuple[str, str, tuple[int, ...]]]  # as `StateLayout.shapes`
    places: Sequence[tuple[str, np.dtype[Any], tuple[int, ...], int]]
    bytes_each: int


class Record(NamedTuple):
    """One sequence at one moment. `at_ns` is the time of its last step, or of its end, in nanoseconds since 1970.

    `state` holds one row of each tensor in the order of `origin.shapes`, and is empty where the sequence has ended.
    """

    origin: Origin
    key: Key
    epoch: int
    taken: int
    at_ns: int
    numbered: bool
    ended: bool
    nonce: bytes
    state: bytes
    answers: Sequence[Kept]

    def states(self) -> Mapping[str, Array]:
        """The state by input, without an axis of rows."""
        return {
            name: np.frombuffer(self.state, dtype, math.prod(shape), begin).reshape(shape)
            for name, dtype, shape, begin in self.origin.places
        }


@functools.lru_cache(maxsize=65_536)
def number_of(key: Key) -> int:
    """Where a store keeps a sequence: 63 bits of a digest. The record says whose it is, so one that is met there is known."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little") >> 1


def origin_of(version: str, layout: StateLayout) -> bytes:
    """What the records of a version carry, made once."""
    shapes = {name: [output, dtype, list(shape)] for name, (output, dtype, shape) in layout.shapes.items()}
    return json.dumps({"version": version, "weights_sha256": layout.weights_sha256, "state": shapes}).encode()


def pack(
    origin: bytes,
    key: Key,
    epoch: int,
    taken: int,
    at_ns: int,
    *,
    numbered: bool,
    ended: bool,
    nonce: bytes,
    state: bytes,
    answers: Sequence[Kept],
) -> bytearray:
    """The record of a sequence; `origin` is that of `origin_of`. See `Record`."""
    names, caller, id, text = _names(key)
    record = bytearray(
        b"".join(
            [_ROOM, origin, names, nonce, state, *[each.packed for each in answers]]
        )  # once: it is most of the cost
    )
    sizes = (len(origin), caller, id, len(nonce), len(state), len(answers))
    _HEAD.pack_into(record, 0, 0, FORMAT, ended, numbered, text, epoch, taken, at_ns, *sizes)
    record[:_CHECKED_FROM] = zlib.crc32(memoryview(record)[_CHECKED_FROM:]).to_bytes(4, "little")
    return record


@functools.lru_cache(maxsize=65_536)
def _names(key: Key) -> tuple[bytes, int, int, bool]:
    """Owner and id as they are written, one behind the other, how long each is, and whether the id is a text."""
    caller, id = key[0].encode(), str(key[1]).encode("utf-8", "surrogatepass")
    return caller + id, len(caller), len(id), isinstance(key[1], str)


def unpack(record: bytes | bytearray) -> Record:
    """What `pack` was given. Raises `Torn`, saying what is wrong."""
    if len(record) < _HEAD.size:
        raise Torn(f"it has {len(record)} bytes, and the head alone takes {_HEAD.size}")
    checksum, format, ended, numbered, text, epoch, taken, at_ns, *sizes = _HEAD.unpack_from(record)
    if zlib.crc32(memoryview(record)[_CHECKED_FROM:]) != checksum:
        raise Torn("its checksum is wrong: it was cut off or changed after it was written")
    if format != FORMAT:
        raise Torn(
            f"its format is {format}, and {FORMAT} is read here: it was written by another release of lstm-serving"
        )
    *lengths, count = sizes
    read = _Reader(bytes(record), _HEAD.size)
    origin, caller, id, nonce, state = [read.take(length) for length in lengths]
    answers = []
    for _ in range(count):
        number, *parts = read.struct(_ANSWER)
        digest, signature, outputs = (read.take(length) for length in parts)
        answers.append(Kept.of(number, digest, signature, outputs))
    read.end()
    name = id.decode("utf-8", "surrogatepass")
    key = caller.decode(), name if text else int(name)
    made_of = _origin(origin)
    if len(state) != (0 if ended else made_of.bytes_each):
        raise Torn(f"its state has {len(state)} bytes, and its shapes take {made_of.bytes_each}")
    return Record(made_of, key, epoch, taken, at_ns, bool(numbered), bool(ended), nonce, state, tuple(answers))


def pack_outputs(outputs: Outputs) -> bytes:
    """Answered outputs, to be kept."""
    parts: list[bytes] = []
    for name, array in outputs.items():
        if array.dtype == object:
            content = byte_strings.pack(array.ravel().tolist())
            parts += (_output_head(name, _TEXT, array.shape, len(content)), content)
        else:
            parts += (_output_head(name, array.dtype.str.encode(), array.shape, array.nbytes), array.tobytes())
    return b"".join(parts)


def unpack_outputs(outputs: bytes) -> Outputs:
    """What `pack_outputs` was given. Raises `Torn`."""
    read = _Reader(outputs, 0)
    arrays: dict[str, Array] = {}
    while read.left:
        name_length, dtype_length, axes, size = read.struct(_OUTPUT)
        name, dtype = read.take(name_length).decode(), read.take(dtype_length)
        shape = read.struct(struct.Struct(f"<{axes}Q"))
        content = read.take(size)
        if dtype == _TEXT:
            array = np.empty(shape, object)
            array.reshape(-1)[:] = byte_strings.unpack(content, array.size)
        else:
            array = np.frombuffer(content, np.dtype(dtype.decode())).reshape(shape)
        arrays[name] = array
    return arrays


@functools.lru_cache(maxsize=4096)
def _output_head(name: str, dtype: bytes, shape: tuple[int, ...], size: int) -> bytes:
    called = name.encode()
    return (
        _OUTPUT.pack(len(called), len(dtype), len(shape), size)
        + called
        + dtype
        + struct.pack(f"<{len(shape)}Q", *shape)
    )


@functools.lru_cache(maxsize=64)
def _origin(origin: bytes) -> Origin:
    said = json.loads(origin)
    shapes = {name: (output, dtype, tuple(shape)) for name, (output, dtype, shape) in said["state"].items()}
    places, begin = [], 0
    for name, (_, dtype, shape) in shapes.items():
        places.append((name, np.dtype(dtype), shape, begin))
        begin += np.dtype(dtype).itemsize * math.prod(shape)
    return Origin(said["version"], said["weights_sha256"], shapes, places, begin)


class _Reader:
    """Takes bytes from the front. Raises `Torn` where there are fewer than a length says, or more."""

    def __init__(self, content: bytes, place: int) -> None:
        self._content = content
        self._place = place

    @property
    def left(self) -> int:
        return len(self._content) - self._place

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise Torn(f"a part of {length} bytes is said to follow, and {self.left} do")
        begin, self._place = self._place, self._place + length
        return self._content[begin : self._place]

    def struct(self, fields: struct.Struct) -> tuple[Any, ...]:
        return fields.unpack(self.take(fields.size))

    def end(self) -> None:
        if self.left:
            raise Torn(f"{self.left} bytes follow its end")
