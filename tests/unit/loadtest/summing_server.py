"""A server of sequences that is no server: it sums what it is sent, keeps the rules of step numbers, and fails as it is told."""

from __future__ import annotations

import dataclasses
import queue
from collections.abc import Callable, Sequence

import numpy as np

from loadtest.calls import Answer
from loadtest.errors import LoadTestError
from loadtest.streams import STREAM_ERROR
from protos import grpc_service_pb2 as pb

OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, UNAVAILABLE = 0, 3, 4, 14


@dataclasses.dataclass
class Kept:
    """What is kept of one: its sum, the number that is expected, and the last answer."""

    epoch: int
    total: float = 0.0
    number: int = 0
    answer: bytes = b""


class SummingServer:
    """`fault` says of the n-th message (from 1) what is done to it: "refused" (not computed), "lost" (computed, not answered),
    "ignored" (neither; never answered), "bad" (refused for good), "busy" and "gone" (refused on a stream, which tells no code,
    the latter for good), or "" for nothing. One that is not `exact` computes repeats again.
    """

    def __init__(self, fault: Callable[[int], str] = lambda number: "", *, exact: bool = True) -> None:
        self.fatal: LoadTestError | None = None
        self.requests: list[pb.ModelInferRequest] = []
        self.keys: list[int] = []
        self.finished = self.closed = False
        self.woken = 0
        self.after: Callable[[int], None] = lambda number: None  # called with how many have come
        self.events: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._fault = fault
        self._exact = exact
        self._sequences: dict[int, Kept] = {}

    def send(self, payload: bytes, started_ns: int) -> None:
        if self.closed:
            raise ValueError("closed")
        request = pb.ModelInferRequest.FromString(payload)
        self.requests.append(
            pb.ModelInferRequest.FromString(payload)
        )  # as a look at a parameter that is not there makes one
        self.keys.append(started_ns)
        fault = self._fault(len(self.requests))
        codes = {"refused": UNAVAILABLE, "lost": DEADLINE_EXCEEDED, "bad": INVALID_ARGUMENT}
        codes |= {"busy": STREAM_ERROR, "gone": STREAM_ERROR}
        answer = self._computed(request) if fault in ("", "lost") else None
        if fault in codes:
            details = "it must specify the START flag on the first request" if fault == "gone" else fault
            self.events.put(Answer(started_ns, codes[fault], details, None))
        elif answer is not None:
            self.events.put(Answer(started_ns, OK, "", answer))
        self.after(len(self.requests))

    def receive(self) -> Sequence[Answer] | None:
        answer = self.events.get(timeout=30)
        self.woken += answer is None
        return None if answer is None else (answer,)

    def wake(self) -> None:
        self.events.put(None)

    def finish(self) -> None:
        self.finished = True

    def close(self) -> None:
        self.closed = True

    def _computed(self, request: pb.ModelInferRequest) -> bytes:
        said = request.parameters
        name, number = said["sequence_id"].int64_param, said["sequence_step"].int64_param
        if said["sequence_start"].bool_param and (name not in self._sequences or not self._exact):
            self._sequences[name] = Kept(len(self._sequences) + 1)
        kept = self._sequences[name]
        if "sequence_epoch" in said:
            assert said["sequence_epoch"].int64_param == kept.epoch
        if number < kept.number and self._exact:
            assert number == kept.number - 1
            return kept.answer
        kept.total += float(np.frombuffer(request.raw_input_contents[0], "<f4").sum())
        kept.number = number + 1
        response = pb.ModelInferResponse(model_name="m", model_version="1")
        response.parameters["sequence_epoch"].int64_param = kept.epoch
        for output in request.outputs:
            response.outputs.add(name=output.name, datatype="FP32", shape=[1, 1])
            response.raw_output_contents.append(np.float32(kept.total).tobytes())
        kept.answer = response.SerializeToString()
        return kept.answer
