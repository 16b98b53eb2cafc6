"""Recorded conversations with changed frames against the edge on nghttp2, in a process of its own.

    python -m tests.support.edge_fuzz --seconds 600

draws a seed for each conversation and prints the seed that fails; `--seed 4711` runs that one again.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import random
import struct
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from tests.support.edge_process import EdgeProcess
from tests.support.edge_recordings import recordings
from tests.support.frames import ACK, PING, SETTINGS, WINDOW_UPDATE, Raw, frame, message, reset
from tests.support.running import until

ROUND = 250  # conversations, after which nothing may be left of them
PATIENCE_SECONDS = 0.05  # for what a server may be silent about: it waits for the rest of a frame
MARK = b"the last"
WARM_ROUNDS = 4
GROWTH_BYTES = 24 * 2**20  # of memory, once every kind of conversation was had
INTERESTING = (0, 1, 2, 5, 9, 0x7F, 0x80, 0xFF, 0x3FFF, 0x4000, 0x4001, 0xFFFF, 0xFFFFFF, 2**31 - 1, 2**31, 2**32 - 1)

Change = Callable[[random.Random, list[bytes]], None]


def header(rng: random.Random, frames: list[bytes]) -> None:
    """Length, kind, flags or stream of a frame."""
    at = rng.randrange(len(frames))
    place, size = rng.choice(((0, 3), (3, 1), (4, 1), (5, 4)))
    value = rng.choice((rng.choice(INTERESTING), rng.randrange(16)))
    changed = (value % 256**size).to_bytes(size, "big")
    frames[at] = frames[at][:place] + changed + frames[at][place + size :]


def content(rng: random.Random, frames: list[bytes]) -> None:
    """Some bytes of a frame, whose length stays what it says."""
    at = rng.randrange(len(frames))
    changed = bytearray(frames[at])
    for _ in range(rng.randint(1, 4)):
        if len(changed) > 9:
            changed[rng.randrange(9, len(changed))] = rng.choice((rng.randrange(256), rng.choice(INTERESTING) % 256))
    frames[at] = bytes(changed)


def shorter(rng: random.Random, frames: list[bytes]) -> None:
    """Less of a frame, which says so."""
    at = rng.randrange(len(frames))
    kept = frames[at][9 : rng.randint(9, max(9, len(frames[at])))]
    frames[at] = len(kept).to_bytes(3, "big") + frames[at][3:9] + kept


def cut(rng: random.Random, frames: list[bytes]) -> None:
    """The end is missing, in the middle of a frame."""
    at = rng.randrange(len(frames))
    frames[at:] = [frames[at][: rng.randint(0, len(frames[at]))]]


def drop(rng: random.Random, frames: list[bytes]) -> None:
    """A frame is missing."""
    del frames[rng.randrange(len(frames))]


def repeat(rng: random.Random, frames: list[bytes]) -> None:
    """A frame comes more than once."""
    at = rng.randrange(len(frames))
    frames[at:at] = [frames[at]] * rng.choice((1, 1, 1, 2, 50))


def swap(rng: random.Random, frames: list[bytes]) -> None:
    """Two frames in the other order."""
    one, other = rng.randrange(len(frames)), rng.randrange(len(frames))
    frames[one], frames[other] = frames[other], frames[one]


def insert(rng: random.Random, frames: list[bytes]) -> None:
    """A frame that was not there: of a stream that is, of another conversation, or of any kind."""
    streams = [int.from_bytes(each[5:9], "big") for each in frames if len(each) >= 9] or [1]
    stream = rng.choice((rng.choice(streams), rng.choice(streams), rng.randrange(64), 0))
    new = rng.choice(
        (
            reset(stream, rng.randrange(16)),
            frame(WINDOW_UPDATE, 0, stream, struct.pack(">L", rng.choice(INTERESTING))),
            frame(SETTINGS, 0, 0, struct.pack(">HL", rng.randrange(10), rng.choice(INTERESTING))),
            frame(rng.randrange(12), rng.randrange(256), stream, rng.randbytes(rng.choice((0, 1, 4, 5, 8, 100)))),
            frame(
                0,
                rng.randrange(2),
                stream,
                message(rng.randbytes(10), rng.randrange(3), rng.choice(INTERESTING) % 2**32),
            ),
            rng.choice(rng.choice(list(recordings().values()))),
        )
    )
    frames.insert(rng.randint(0, len(frames)), new)


CHANGES: tuple[Change, ...] = (header, content, shorter, cut, drop, repeat, swap, insert)


def changed(seed: int) -> tuple[str, list[bytes], random.Random]:
    """A conversation with some changes, its name, and what else is drawn for it."""
    rng = random.Random(seed)
    name, recorded = rng.choice(list(recordings().items()))
    frames = list(recorded)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 5))):
        if frames:
            rng.choice(CHANGES)(rng, frames)
    return name, frames, rng


def converse(port: int, seed: int) -> str:
    """Has one changed conversation, and says how it has ended."""
    _, frames, rng = changed(seed)
    with Raw(port) as client:
        content = b"".join(each for each in frames if each[3:5] != bytes((SETTINGS, ACK)))  # that was said already
        while content:
            piece = rng.choice((len(content), rng.randint(1, len(content))))
            client.send(content[:piece])
            content = content[piece:]
        client.send(frame(PING, 0, 0, MARK))
        if rng.random() < 0.8 and (ended := heard(client)):
            return ended
        if rng.random() < 0.5:
            client.abort()
        return "left by the client"


def heard(client: Raw) -> str:
    """What the server says at the end; "" where it waits for more."""
    with contextlib.suppress(TimeoutError), client.patience(PATIENCE_SECONDS):
        client.read_until(lambda: client.pong == MARK)
        if not client.closed:
            return "went on"
        return "ended by the server" if client.goodbye.code is None else f"ended with code {client.goodbye.code}"
    return ""


def fuzz(seeds: Iterable[int], conversations_a_round: int = ROUND) -> collections.Counter[str]:
    """Has the conversations, and says how many ended how. Raises `AssertionError` where one has hurt the server or another."""
    ended: collections.Counter[str] = collections.Counter()
    with EdgeProcess() as server, Raw(server.port) as other:
        streams = itertools.count(1, 2)
        rounds = 0
        numbers = iter(seeds)
        while some := list(itertools.islice(numbers, conversations_a_round)):
            seed = some[0]
            try:
                for seed in some:
                    ended[converse(server.port, seed)] += 1
                assert other.ask(next(streams)).data == message(b"hello"), "another client is not answered"
                status = settled(server)
            except (AssertionError, OSError, KeyError) as error:
                raise AssertionError(
                    f"seeds {some[0]} to {some[-1]}, of which {seed} was the last: {error!r}"
                ) from error
            rounds += 1
            if rounds <= WARM_ROUNDS:
                warm = status
            grown = status["resident_bytes"] - warm["resident_bytes"]
            assert grown < GROWTH_BYTES, f"up to seed {seed} the memory has grown by {grown} bytes"
            assert status["descriptors"] == warm["descriptors"], f"up to seed {seed}: {warm} {status}"
    return ended


def settled(server: EdgeProcess) -> dict[str, Any]:
    """What the server takes when all its clients but one have gone."""
    nothing = {"connections": 1, "calls": 0, "unfinished": 0, "unsent": 0}
    until(lambda: nothing.items() <= server.status().items())
    status = server.status()
    assert status["closed"]["failure"] == 0
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description="Changed conversations against the edge on nghttp2.")
    parser.add_argument("--seconds", type=float, default=600, help="how long (default 600)")
    parser.add_argument("--seed", type=int, help="the one seed to run again")
    asked = parser.parse_args()
    if asked.seed is not None:
        name, frames, _ = changed(asked.seed)
        print(f"seed {asked.seed}, a change of {name}:", *(each.hex() for each in frames), sep="\n")
        print(fuzz([asked.seed]))
        return 0
    first = random.SystemRandom().randrange(2**32)
    print(f"seeds from {first} on, for {asked.seconds:g} s", flush=True)
    until_then = time.monotonic() + asked.seconds
    ended = fuzz(itertools.takewhile(lambda _: time.monotonic() < until_then, itertools.count(first)))
    print(f"{ended.total()} conversations:", ", ".join(f"{count} {how}" for how, count in ended.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
