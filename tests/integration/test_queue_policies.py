"""What config.pbtxt says of the queue, as clients see it: who is served first, who is refused, and when they may try again."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from protos import grpc_service_pb2 as pb
from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.running import FAKE, metric, until
from tests.support.wire import RawClient, refusal, request

CODE = grpc.StatusCode
SECONDS = 0.6  # what a row takes, each computed alone
CONFIGS = {
    "levels": """dynamic_batching {
        priority_levels: 2 default_priority_level: 2
        priority_queue_policy { key: 2 value { max_queue_size: 3 } }
    }""",
    "reject": "dynamic_batching { default_queue_policy { default_timeout_microseconds: 100000 } }",
    "shorter": """dynamic_batching { default_queue_policy {
        allow_timeout_override: true default_timeout_microseconds: 60000000
    } }""",
    "delay": """dynamic_batching { default_queue_policy {
        timeout_action: DELAY allow_timeout_override: true default_timeout_microseconds: 60000000
    } }""",
    "narrow": "dynamic_batching { default_queue_policy { max_queue_size: 1 } }",
    "little": """parameters { key: "max_queue_bytes" value { string_value: "60" } }""",
}
RETRY_POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.001s",
    "maxBackoff": "0.001s",
    "backoffMultiplier": 1,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, edge: str) -> Iterator[LaunchedServer]:
    repository = tmp_path_factory.mktemp("repository")
    for name, config in CONFIGS.items():
        fake_models.write(repository, name, delay_seconds=SECONDS, config=f"max_batch_size: 1 {config}")
    with LaunchedServer(repository, *FAKE) as running:
        yield running


@pytest.fixture
def client(server: LaunchedServer) -> Iterator[RawClient]:
    with RawClient(server.address) as made:
        made.call("ServerLive")  # while it connects, calls change places
        yield made


class Asking:
    """Asks one model; `answered` has the names of requests in the order in which they were answered."""

    def __init__(self, client: RawClient, server: LaunchedServer, model: str) -> None:
        self._client, self._server, self._model = client, server, model
        self.answered: queue.SimpleQueue[str] = queue.SimpleQueue()

    def first(self) -> None:
        """A request that is computed when this returns, so that those which follow at once wait."""
        self.next("first")
        until(lambda: self._count("requests_in_flight") == 1 and self._count("queue_depth") == 0)

    def next(self, name: str, **parameters: int) -> Any:
        """One more request: a future."""
        sent = request(self._model, 1.0, 2)
        for key, value in parameters.items():
            sent.parameters[key].int64_param = value
        asked = self._client.method("ModelInfer").future(sent, timeout=60)
        asked.add_done_callback(lambda done: self.answered.put(name if done.code() is CODE.OK else done.code().name))
        return asked

    def in_order(self, count: int) -> list[str]:
        """The names of so many requests, or the codes of those that were refused."""
        return [self.answered.get(timeout=60) for _ in range(count)]

    def _count(self, name: str) -> float:
        return metric(self._server, name, model=self._model)


def test_the_higher_priority_is_served_first(client: RawClient, server: LaunchedServer) -> None:
    asking = Asking(client, server, "levels")
    asking.first()
    others = [asking.next("low", priority=2), asking.next("none"), *(asking.next("no level", priority=7) for _ in "12")]
    asking.next("high", priority=1)
    told = asking.in_order(6)
    assert told[:3] == ["UNAVAILABLE", "first", "high"]
    assert set(told[3:]) <= {"low", "none", "no level"}
    (said,) = [each.details() for each in others if each.code() is CODE.UNAVAILABLE]
    assert said.startswith("Exceeds maximum queue size: 3 requests wait with priority 2 for model 'levels' version 1,")


def test_who_waits_too_long_is_refused_and_counted(client: RawClient, server: LaunchedServer) -> None:
    asking = Asking(client, server, "reject")
    _, *others = [asking.next(name) for name in ("first", "second", "third")]
    assert sorted(asking.in_order(3)) == ["UNAVAILABLE", "UNAVAILABLE", "first"]
    for late in others:
        code, said = refusal(late.result)
        assert (code, said.partition(":")[0]) == (CODE.UNAVAILABLE, "Request timeout expired")
        assert said.endswith("was to wait no more than 100.0 ms; nothing was computed")
    assert metric(server, "requests_total", model="reject", outcome="timed_out") == 2
    (told,) = client.call("ModelStatistics", name="reject").model_stats
    assert (told.inference_stats.fail.count, told.inference_count) == (2, 1)


def test_a_request_may_ask_to_wait_less(client: RawClient, server: LaunchedServer) -> None:
    asking = Asking(client, server, "shorter")
    asking.next("first")
    late, patient = asking.next("late", timeout=1000), asking.next("patient")
    assert "was to wait no more than 1.0 ms" in refusal(late.result)[1]
    assert patient.result()


def test_who_is_delayed_is_answered_behind_the_others(client: RawClient, server: LaunchedServer) -> None:
    asking = Asking(client, server, "delay")
    asking.next("first")
    asking.next("late", timeout=1000)
    asking.next("patient")
    assert asking.in_order(3) == ["first", "patient", "late"]


def test_a_client_with_a_retry_policy_finds_room_when_it_was_told(client: RawClient, server: LaunchedServer) -> None:
    """By its own policy it would give up within some milliseconds."""
    client.infer("narrow")  # so that the server knows what a request takes
    options = [("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": RETRY_POLICY}]}))]
    with grpc.insecure_channel(server.address, options) as channel:
        ask = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            pb.ModelInferRequest.SerializeToString,
            pb.ModelInferResponse.FromString,
        )
        asked = [ask.future(request("narrow", 1.0, 2), timeout=60) for _ in range(3)]
        assert all(each.result().outputs for each in asked)
    assert metric(server, "requests_total", model="narrow", outcome="rejected") >= 1


def test_a_queue_is_full_by_bytes_too(client: RawClient, server: LaunchedServer) -> None:
    asking = Asking(client, server, "little")
    size = request("little", 1.0, 2).ByteSize()
    asking.first()
    others = [asking.next(name) for name in ("second", "third")]
    told = asking.in_order(1)
    assert (told, metric(server, "queue_bytes", model="little")) == (["UNAVAILABLE"], size)
    (said,) = [each.details() for each in others if each.done()]
    assert (
        f"{2 * size} bytes of requests would wait for model 'little' version 1, which allows 60; try again in" in said
    )
    assert asking.in_order(2)[0] == "first"
    assert metric(server, "queue_bytes", model="little") == 0
    shown = client.call("ModelConfig", name="little").config
    assert shown.parameters["max_queue_bytes"].string_value == "60"
