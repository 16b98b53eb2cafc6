"""The edge of lstm-serve alone, on nghttp2: it answers every method with bytes from a file, as `floor.cc` does.

    python -m benchmarks.peers.edge_server PORT FOLDER MODEL      FOLDER/METHOD holds the answer of each method

Nothing is computed, and of a request its id alone is read and sent back: without it perf_analyzer never ends. ModelStatistics
counts, for perf_analyzer and for whoever divides. Limits and deadlines are those of a server.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.message import Message

from protos import grpc_service_pb2 as pb
from serving.edge.health import HealthState
from serving.edge.nghttp2_server import Nghttp2Server
from serving.edge.traffic import Limits
from serving.protocol.call import Call, reply_all
from serving.protocol.methods import INFER, Method

MESSAGE_BYTES = 128 * 1024 * 1024
ID, NAMES = 0x1A, (0x0A, 0x12)  # tags: the id's in requests and answers, and those of the names that come before it
STAGES = ("success", "queue", "compute_input", "compute_infer", "compute_output")


class Constant:
    """The answers of a folder, and how often inference was answered."""

    def __init__(self, folder: Path, model: str) -> None:
        self._answers = {file.name: file.read_bytes() for file in folder.iterdir()}
        self._answer = self._answers.pop(INFER)
        self._model = model
        self._answered = 0

    def infer_all(self, asked: Sequence[tuple[bytes, Call]]) -> None:
        """Answers a burst at once, on the thread of the loop."""
        self._answered += len(asked)
        reply_all([(call, self._answer + id_of(payload)) for payload, call in asked])

    def methods(self) -> list[Method]:
        """The unary methods that were recorded, and ModelStatistics."""
        recorded = [_constant(name, answer) for name, answer in self._answers.items()]
        return [*recorded, Method("ModelStatistics", pb.ModelStatisticsRequest, self._statistics)]

    def _statistics(self, _: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        """Each stage counts every request and takes no time."""
        count = self._answered
        response = pb.ModelStatisticsResponse()
        model = response.model_stats.add(
            name=self._model, version="1", last_inference=1, inference_count=count, execution_count=count
        )
        for stage in STAGES:
            getattr(model.inference_stats, stage).count = count
        return response


def id_of(request: bytes) -> bytes:
    """The id of a ModelInferRequest as the field that it is there; nothing where it has none, or a text of 128 bytes or more."""
    at = 0
    while at + 1 < len(request) and request[at] in NAMES and request[at + 1] < 128:
        at += 2 + request[at + 1]
    if at + 1 < len(request) and request[at] == ID and request[at + 1] < 128:
        return request[at : at + 2 + request[at + 1]]
    return b""


def main() -> int:
    """Serves until SIGTERM. Exit code 1 if calls were cut off then."""
    port, folder, model = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # in all threads, so that it is waited for
    constant, health = Constant(Path(folder), model), HealthState()
    health.set(serving=True)
    server = Nghttp2Server(
        constant.infer_all,
        constant.methods(),
        health,
        "127.0.0.1",
        int(port),
        limits=Limits(MESSAGE_BYTES),
        certificates=None,
        tokens=None,
        turned_away=lambda _: None,
    )
    signal.sigwait([signal.SIGTERM])
    return int(not server.stop(1.0, busy=lambda: False, refuse=lambda: None))


def _constant(name: str, answer: bytes) -> Method:
    message: Message = getattr(pb, f"{name}Response").FromString(answer)
    return Method(name, getattr(pb, f"{name}Request"), lambda _: message)


if __name__ == "__main__":
    sys.exit(main())
