"""The sequences of versions that come and go: who goes on with them, and who waits for their end.

State belongs to the entry of a version, not to what computes it: a swap, a failover or a reload of the same weights finds
it there. When a version goes, its sequences do what the operator has said (`sequence_on_removal`), and nothing else.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable

from serving.batching.commits import Commits
from serving.batching.lanes import Lanes
from serving.batching.model import Model
from serving.clock import SYSTEM, Clock
from serving.errors import ServingError
from serving.lifecycle.versions import ModelEntry, VersionEntry
from serving.sequences.epochs import Epochs
from serving.sequences.live import Sequences
from serving.sequences.policy import DRAIN, StateLayout, carries

log = logging.getLogger(__name__)


class Keeping:
    """Gives versions their sequences, and sees the sequences of versions out. Epochs are the server's.

    With a store, `commits` writes them, and no epoch is given out that it may have seen.
    """

    def __init__(self, clock: Clock = SYSTEM, commits: Commits | None = None) -> None:
        self._clock = clock
        self._commits = commits
        self._epochs = Epochs(after=commits.first_epoch if commits else 0)

    def exceed(self, epoch: int) -> None:
        """Every epoch that is given out from now on is higher than this one."""
        self._epochs.exceed(epoch)

    def adopt(self, model: ModelEntry, entry: VersionEntry, live: Model) -> Sequences | None:
        """What is installed goes on with the sequences of its version, if its state is the same; under the manager's lock.

        Returns those that it does not go on with, which are to be seen out.
        """
        layout, policy, before = live.state_layout, live.sequence_policy, entry.sequences
        if layout is None or policy is None:
            entry.sequences = None
            return before
        if (
            before is not None
            and _alike(before.layout, layout)
            and _room(before)
            == (
                policy.max_sequences,
                policy.max_state_bytes,
            )
        ):
            assert model.lanes is not None
            model.lanes.follow(before, policy)
        else:
            model.lanes = model.lanes or Lanes(model.name, self._epochs, self._clock, self._commits)
            entry.sequences = model.lanes.open(live.version, live.title, layout, policy, entry.sequence_counts)
        live.sequences = entry.sequences
        if live.sequences is not None:
            live.sequences.signature = _signature(live)
            if self._commits:
                self._commits.later(
                    functools.partial(self._commits.disk.note, _writer(live.name, live.version), live.backend)
                )
        return before if before is not entry.sequences else None

    def wrote(self, name: str, version: str) -> str:
        """The backend that a version was computed by when its sequences were last written; empty if that is not known."""
        assert self._commits
        try:
            return self._commits.ask(lambda disk: disk.noted(_writer(name, version))) or ""
        except ServingError as error:
            log.error("the store cannot say which backend has computed model '%s' version %s: %s", name, version, error)
            return ""

    def see_out(
        self, model: ModelEntry, home: Sequences, old: Model, to: Sequences | None, then: Callable[[], None]
    ) -> None:
        """Sequences of a version that goes drain, end, or are carried over `to` another one; then its model does what is left.

        Until then `old` answers for them. Called without any lock.
        """
        lanes = model.lanes
        assert lanes is not None
        rule = home.policy.on_removal
        carried = to is not None and may_carry(home, to, rule)
        told = {"model": model.name, "version": home.version, "sequences": home.live, "rule": rule}
        if home.live:
            log.info(
                "its sequences are carried over" if carried else "its sequences are seen out", extra={"fields": told}
            )

        def see() -> None:
            try:
                if carried and to is not None:
                    lanes.carry(home, to)
                lanes.drain(home, home.policy.drain_ns / 1e9 if carried or rule == DRAIN else 0)
            finally:
                with model.lock:
                    model.leaving.pop(home, None)
                then()

        with model.lock:
            model.leaving[home] = old
        self._clock.start(see, f"sequences of {model.name}")


def _writer(name: str, version: str) -> str:
    return f"backend of version {version} of {name}"


def _signature(live: Model) -> bytes:
    """A digest of what its answers look like."""
    outputs = [(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in live.spec.outputs]
    labels = sorted((name, list(names)) for name, names in live.labels.items())
    return hashlib.blake2b(repr((outputs, labels)).encode(), digest_size=8).digest()


def may_carry(home: Sequences, to: Sequences, rule: str) -> bool:
    """Whether sequences may go on in another version: with the same weights of the same number, else as the operator has said."""
    if home.layout.shapes != to.layout.shapes:
        return False
    same_weights = bool(home.layout.weights_sha256) and home.layout.weights_sha256 == to.layout.weights_sha256
    if home.version == to.version and same_weights:
        return True
    return carries(rule, same_weights=same_weights)


def _alike(one: StateLayout, other: StateLayout) -> bool:
    """Whether a state of the one means the same to the other."""
    return one.shapes == other.shapes and bool(one.weights_sha256) and one.weights_sha256 == other.weights_sha256


def _room(home: Sequences) -> tuple[int, int]:
    return home.policy.max_sequences, home.policy.max_state_bytes
