"""The field's load generator with sequences: what it says to have sent, and what the server's metrics say of the same."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.config import LSTMConfig
from serving.launch import LaunchedServer
from tests.support import artefacts, real_model
from tests.support.grpc_port import EDGES
from tests.support.perf_analyzer import drive
from tests.support.running import metric

SEQUENCES, LENGTH = 32, 20
REQUESTS = 100 * SEQUENCES
SENT = ("--num-of-sequences", str(SEQUENCES), "--sequence-length", str(LENGTH), "--sequence-length-variation", "0")
FIRST_ID = 1000
ID_RANGE = f"{FIRST_ID}:{FIRST_ID + SEQUENCES}"
UNARY = ("--sync", "--max-threads", str(SEQUENCES), "--sequence-id-range", ID_RANGE)
CONFIG = LSTMConfig(input="features", features=3, layers=2, hidden=artefacts.HIDDEN, outputs=4, head="values_per_step")


@pytest.fixture(scope="module", params=EDGES)
def stateful(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LaunchedServer]:
    folder = tmp_path_factory.mktemp("stateful")
    version, *_ = real_model.write(folder, ("onnx_runtime",), name="m", config=CONFIG)
    (version.parent / "config.pbtxt").write_text("max_batch_size: 32 sequence_batching {}")
    with LaunchedServer(folder, "--backend", "onnx_runtime", "--edge", request.param) as server:
        yield server
        assert server.stop() == 0


class Watch:
    """Samples how many sequences are live until the `with` block is left; `most` is the most that were."""

    def __init__(self, server: LaunchedServer) -> None:
        self.most = 0
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self.most = max(self.most, int(metric(self._server, "sequences_live")))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.parametrize(
    "flags",
    [
        ("--streaming", "--async", "--concurrency-range", str(SEQUENCES)),
        ("--streaming", "--request-rate-range", "2000"),
        ("--streaming", "--request-rate-range", "1000", "--serial-sequences"),
        (*UNARY, "--concurrency-range", str(SEQUENCES)),
        (*UNARY, "--request-rate-range", "1000"),
    ],
    ids=["streamed, by concurrency", "streamed, by rate", "streamed, one at a time", "unary", "unary, by rate"],
)
def test_sequences_at_once(
    flags: tuple[str, ...], stateful: LaunchedServer, perf_analyzer: list[str], tmp_path: Path
) -> None:
    """By rate a sequence may have several steps in flight, and begin while the one before it in its place has not ended.

    Messages of a stream keep their order; unary calls have none, so a sequence has one of them at a time.
    """
    profile = tmp_path / "profile.json"
    before = counted(stateful)
    with Watch(stateful) as watch:
        driven = drive(perf_analyzer, stateful, "m", "--shape", "x:1,3", "--request-count", str(REQUESTS), *SENT, *flags,
                       profile=profile)  # fmt: skip
    told = counted(stateful)
    told.subtract(before)
    sent = requests(profile)
    ids = {request["sequence_id"] for request in sent}
    assert driven.failed == 0
    assert told["steps"] >= driven.succeeded  # more where it had to be started anew
    # Once it has its figures it ends every sequence, and does not list all of these last requests.
    assert REQUESTS <= len(sent) <= driven.succeeded < len(sent) + SEQUENCES
    assert len(ids) >= SEQUENCES
    if ID_RANGE in flags:
        assert ids == set(range(FIRST_ID, FIRST_ID + SEQUENCES))
    assert told["ended"] == told["started"] >= REQUESTS / LENGTH
    if told["steps"] == driven.succeeded:
        assert told["started"] <= told["steps"] <= told["started"] * LENGTH
    assert told["refused"] == 0
    assert watch.most >= SEQUENCES
    assert watch.most == SEQUENCES or "--concurrency-range" not in flags
    assert metric(stateful, "sequences_live") == 0


def counted(server: LaunchedServer) -> Counter[str]:
    """What the server says of its sequences."""
    refused = [
        line for line in server.metrics().splitlines() if line.startswith("lstm_serving_sequence_steps_refused_total{")
    ]
    assert refused
    return Counter(
        steps=int(metric(server, "sequence_steps_total")),
        started=int(metric(server, "sequences_started_total")),
        ended=int(metric(server, "sequences_ended_total", reason="end")),
        refused=sum(int(float(line.split()[-1])) for line in refused),
    )


def requests(profile: Path) -> list[dict[str, Any]]:
    """All that perf_analyzer has sent, by what it exports itself."""
    (experiment,) = json.loads(profile.read_text())["experiments"]
    return list(experiment["requests"])
