"""ModelStreamInfer: order, errors inside the stream, half-close, slow readers, and the server's leaving."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from protos import grpc_service_pb2 as pb
from serving.edge.streams import WINDOW
from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.running import FAKE, metric, until
from tests.support.wire import RawClient, open_stream, request

CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, edge: str) -> Iterator[LaunchedServer]:
    repository = tmp_path_factory.mktemp("repository")
    fake_models.write(repository)
    fake_models.write(repository, "slow", delay_seconds=0.2, config="max_batch_size: 1")
    with LaunchedServer(repository, *FAKE) as running:
        yield running


def numbered(model: str, number: int) -> pb.ModelInferRequest:
    made = request(model, float(number), 1 + number % 3)
    made.id = str(number)
    return made


def test_answers_come_in_the_order_of_the_requests_and_half_close_ends_well(server: LaunchedServer) -> None:
    """Of several models and shapes, so that batches are not formed in this order."""
    asked = [numbered("slow" if number in (0, 7) else "fake", number) for number in range(300)]
    with RawClient(server.address) as client:
        stream = open_stream(client, iter(asked))
        answers = list(stream)
        assert stream.code() is CODE.OK
    assert [answer.infer_response.id for answer in answers] == [str(number) for number in range(300)]
    for number, answer in enumerate(answers):
        assert answer.error_message == ""
        assert answer.infer_response.parameters["triton_final_response"].bool_param
        (raw,) = answer.infer_response.raw_output_contents
        assert np.frombuffer(raw, np.float32).tolist() == [number * 3 * (1 + number % 3)] * 2


def test_an_error_is_answered_inside_the_stream(server: LaunchedServer) -> None:
    bad, unknown = numbered("fake", 2), numbered("nobody", 3)
    bad.raw_input_contents[0] = b""
    with RawClient(server.address) as client:
        answers = list(open_stream(client, iter([numbered("fake", 1), bad, unknown, numbered("fake", 4)])))
    assert [answer.infer_response.id for answer in answers] == ["1", "2", "3", "4"]
    assert ["" if not a.error_message else a.error_message.split(" for ")[0] for a in answers] == [
        "", "input byte size mismatch", "Request", "",
    ]  # fmt: skip


def test_an_error_ends_the_stream_where_the_client_wants_grpc_errors(server: LaunchedServer) -> None:
    requests = iter([numbered("fake", 1), numbered("nobody", 2), numbered("fake", 3)])
    with RawClient(server.address) as client:
        stream = open_stream(client, requests, metadata=[("triton_grpc_error", "true")])
        assert next(stream).infer_response.id == "1"
        with pytest.raises(grpc.RpcError) as ended:
            next(stream)
    assert ended.value.code() is CODE.INVALID_ARGUMENT
    assert "'nobody' is not found" in ended.value.details()


def test_bytes_that_are_no_message_are_an_error_of_one_request(server: LaunchedServer) -> None:
    with RawClient(server.address) as client:
        stream = client.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(
            iter([b"\xff\xff\xff", numbered("fake", 1).SerializeToString()])
        )
        first, second = map(pb.ModelStreamInferResponse.FromString, stream)
    assert "not a ModelInferRequest" in first.error_message
    assert second.infer_response.id == "1"


def test_a_reader_that_is_slow_holds_up_its_own_stream_alone(server: LaunchedServer) -> None:
    """The server takes in no more than a window ahead of what the client has read; the transport holds some more."""
    before = metric(server, "requests_total", model="fake", outcome="success")
    large = numbered("fake", 1)
    for name in ("y", "hn", "cn"):
        large.outputs.add(name=name)
    rows = 64
    x = np.ones((rows, 50, fake_models.FEATURES), np.float32)
    large.inputs[0].shape[:] = x.shape
    large.raw_input_contents[0] = x.tobytes()
    sent = 5000
    with RawClient(server.address) as client:
        stream = open_stream(client, iter([large] * sent))
        next(stream)
        with RawClient(server.address) as other:
            assert other.infer().tolist() == [6, 6]
        taken = metric(server, "requests_total", model="fake", outcome="success") - before
        assert taken < sent
        stream.cancel()
    until(lambda: metric(server, "requests_in_flight", model="fake") == 0)


def test_a_client_that_leaves_takes_its_waiting_requests_along(server: LaunchedServer) -> None:
    asked: queue.SimpleQueue[pb.ModelInferRequest | None] = queue.SimpleQueue()
    with RawClient(server.address) as client:
        stream = open_stream(client, iter(asked.get, None))
        for number in range(1, 4):
            asked.put(numbered("slow", number))
        until(lambda: metric(server, "requests_in_flight", model="slow") == 3)
        stream.cancel()
        until(lambda: metric(server, "requests_in_flight", model="slow") == 0)
        assert metric(server, "requests_total", model="slow", outcome="cancelled") >= 1
        asked.put(None)


def test_the_server_answers_what_it_has_taken_in_and_leaves(tmp_path: Path) -> None:
    fake_models.write(tmp_path, delay_seconds=1, delay_on=7)
    asked: queue.SimpleQueue[pb.ModelInferRequest | None] = queue.SimpleQueue()
    with LaunchedServer(tmp_path, *FAKE) as server, RawClient(server.address) as client:
        stream = open_stream(client, iter(asked.get, None))
        asked.put(numbered("fake", 7))
        until(lambda: metric(server, "requests_in_flight") == 1)
        server.process.send_signal(signal.SIGTERM)
        assert next(stream).infer_response.id == "7"
        with pytest.raises(grpc.RpcError) as ended:
            next(stream)
        assert ended.value.code() is CODE.UNAVAILABLE
        assert server.process.wait(20) == 0, "an idle stream has held the shutdown up"
        asked.put(None)


def test_many_streams_at_once(server: LaunchedServer) -> None:
    results: dict[int, list[str]] = {}

    def run(place: int) -> None:
        with RawClient(server.address) as client:
            answers = open_stream(client, (numbered("fake", number) for number in range(2 * WINDOW)))
            results[place] = [answer.infer_response.id for answer in answers]

    threads = [threading.Thread(target=run, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    expected = [str(number) for number in range(2 * WINDOW)]
    assert [results.get(place) for place in range(8)] == [expected] * 8
