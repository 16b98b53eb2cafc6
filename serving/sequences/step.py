"""One step-message of a sequence: what its client has said of it, and where it stands while it is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy.typing as npt

# Whose sequence it is (empty where callers are not told apart), and the id that the caller has given it: a number or a text,
# which are never the same.
Key = tuple[str, int | str]


class States(Protocol):
    """Where the states of sequences lie; `states` gives those in some slots, by the state's input."""

    def states(self, name: str, slots: Sequence[int]) -> npt.NDArray[Any]: ...


class Step:
    """A step-message.

    `number` counts from 0 in a numbered sequence and is None in others; `digest` is that of everything that an answer depends
    on, empty where it has no number, and `nonce` that of the START. `epoch_said` is the epoch that the client believes in, 0 for
    any; `stream` is the stream on which it has come, 0 where it has come alone. What follows belongs to `serving.sequences.live`
    from its turn to its end: its `home`, the `slot` and the `epoch` of its sequence, `new`, the new state of the whole batch by
    output, of which `row` is its own, and the `outputs`
    that were answered, as `records.pack_outputs` makes them.
    """

    __slots__ = (
        "digest", "end", "epoch", "epoch_said", "home", "key", "new", "nonce", "number", "outputs", "row", "slot", "start",
        "stream",
    )  # fmt: skip

    def __init__(
        self,
        key: Key,
        *,
        start: bool = False,
        end: bool = False,
        number: int | None = None,
        digest: bytes = b"",
        nonce: bytes = b"",
        epoch_said: int = 0,
        stream: int = 0,
    ) -> None:
        self.key = key
        self.start = start
        self.end = end
        self.number = number
        self.digest = digest
        self.nonce = nonce
        self.epoch_said = epoch_said
        self.stream = stream
        self.home: States | None = None
        self.slot = -1
        self.epoch = 0
        self.new: Mapping[str, npt.NDArray[Any]] = {}
        self.row = 0
        self.outputs = b""

    def __str__(self) -> str:
        """How sentences call it."""
        what = "START" if self.start else "step"
        return f"{what} {self.number}" if self.number is not None else what
