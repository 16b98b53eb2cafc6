"""The service `lstm_serving.admin.SequenceAdmin`: what an operator asks of sequences, and the files that he takes along.

It is no part of the inference protocol. Whoever may ask may read and end the sequences of every caller.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

from protos import sequence_admin_pb2 as pb
from serving.batching.sequence_admin import SequenceAdmin
from serving.errors import InvalidRequest, UnknownModel
from serving.lifecycle.manager import ModelManager
from serving.protocol.methods import Method
from serving.sequences import export_file, records
from serving.sequences.export_file import Taken
from serving.sequences.live import Look
from serving.sequences.records import Torn

SERVICE = "lstm_serving.admin.SequenceAdmin"
MOST_LISTED = 10_000  # sequences of a version, in one answer: steps wait meanwhile


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class SequenceService:
    """Its methods; `release` is what an exported file says that wrote it, and `now` the time, as it says that."""

    def __init__(self, manager: ModelManager, *, release: str, now: Callable[[], str] = _now) -> None:
        self._manager = manager
        self._release = release
        self._now = now

    def methods(self) -> tuple[Method, ...]:
        """The table of them."""
        return (
            Method("List", pb.ListRequest, self.list),
            Method("Show", pb.OneRequest, self.show),
            Method("Export", pb.OneRequest, self.export),
            Method("Import", pb.ImportRequest, self.put),
            Method("End", pb.EndRequest, self.end),
        )

    def list(self, request: pb.ListRequest) -> pb.ListResponse:
        """The sequences by version, and some one by one."""
        if request.most > MOST_LISTED:
            raise InvalidRequest(f"{request.most} sequences are asked for; at most {MOST_LISTED} are told at once")
        listing = self._admin(request.model).listing(request.most, youngest=request.youngest)
        answer = pb.ListResponse(reading=listing.reads)
        for each in listing.versions:
            answer.versions.add(
                version=each.version,
                live=each.live,
                numbered=each.numbered,
                busy=each.busy,
                tombs=each.tombs,
                state_bytes=each.state_bytes,
                longest_idle_seconds=each.longest_idle_ns / 1e9,
                shortest_idle_seconds=each.shortest_idle_ns / 1e9,
            )
        answer.sequences.extend(_told(seen, busy=busy) for seen, busy in listing.some)
        return answer

    def show(self, request: pb.OneRequest) -> pb.Sequence:
        """One of them."""
        seen, busy = self._admin(request.model).show(*_key(request))
        return _told(seen, busy=busy)

    def export(self, request: pb.OneRequest) -> pb.ExportResponse:
        """One of them as a file, which says what backend has computed its state."""
        copied = self._admin(request.model).export(*_key(request))
        version = copied.seen.version
        backends = [
            each.backend for each in self._manager.entries() if (each.name, each.version) == (request.model, version)
        ]
        backend = next(iter(backends), "")
        file = export_file.pack(Taken(request.model, version, backend, self._now(), self._release, copied.record))
        return pb.ExportResponse(sequence=_told(copied.seen), file=file)

    def put(self, request: pb.ImportRequest) -> pb.Sequence:
        """What such a file holds lives here, with its epoch, so that its client goes on; those of this server begin behind it."""
        try:
            taken = export_file.unpack(request.file)
            record = records.unpack(taken.record)
        except Torn as error:
            raise InvalidRequest(f"the file cannot be used: {error}") from error
        if taken.model != request.model:
            raise InvalidRequest(
                f"the file holds a sequence of model '{taken.model}', and is to be put into '{request.model}'"
            )
        admin = self._admin(request.model)
        seen = admin.put(record, replace=request.replace, any_weights=request.any_weights)
        return _told(seen)

    def end(self, request: pb.EndRequest) -> pb.Sequence:
        """Ends one of them."""
        key = _key(request.one)
        return _told(self._admin(request.one.model).end(*key, epoch=request.epoch, taken=request.steps))

    def _admin(self, model: str) -> SequenceAdmin:
        lanes = self._manager.lanes(model)
        if lanes is not None:
            return SequenceAdmin(lanes, self._manager.exceed)
        if self._manager.known(model) is None:
            raise UnknownModel(f"Request for unknown model: '{model}' is not found")
        raise InvalidRequest(f"model '{model}' keeps no sequences: it is not stateful, or not loaded")


def _key(request: pb.OneRequest) -> tuple[int | str, str | None]:
    kind = request.id.WhichOneof("id")
    id = getattr(request.id, kind) if kind else 0
    if not id:
        raise InvalidRequest("no sequence is named: its id is missing, 0 or empty")
    return id, request.caller if request.HasField("caller") else None


def _told(seen: Look, *, busy: bool = False) -> pb.Sequence:
    caller, id = seen.key
    return pb.Sequence(
        id=pb.Id(number=id) if isinstance(id, int) else pb.Id(text=id),
        caller=caller,
        version=seen.version,
        epoch=seen.epoch,
        steps=seen.taken,
        idle_seconds=seen.idle_ns / 1e9,
        numbered=seen.numbered,
        broken_off=seen.broken_off,
        busy=busy,
        state_bytes=seen.state_bytes,
        answers=seen.answers,
        answer_bytes=seen.answer_bytes,
    )
