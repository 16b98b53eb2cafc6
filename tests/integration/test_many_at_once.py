"""Many requests of every shape at the same time, and many that are broken: nobody gets another's answer."""

from __future__ import annotations

import random
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from protos import grpc_service_pb2 as pb
from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.fake_models import FEATURES
from tests.support.running import FAKE, metric, until
from tests.support.wire import RawClient

CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, edge: str) -> Iterator[LaunchedServer]:
    repository = tmp_path_factory.mktemp("repository")
    fake_models.write(repository)
    with LaunchedServer(repository, *FAKE) as running:
        yield running


def _request(
    rows: int, steps: int, generator: np.random.Generator
) -> tuple[pb.ModelInferRequest, dict[str, list[float]]]:
    """A request of its own kind, and what each row of each output asked for must be filled with."""
    x = generator.integers(-9, 10, (rows, steps, FEATURES)).astype(np.float32)
    h0 = np.zeros((rows, 1, 4), np.float32)
    request = pb.ModelInferRequest(model_name="fake", raw_input_contents=[x.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    lengths = np.full(rows, steps)
    if generator.random() < 0.5:
        lengths = generator.integers(1, steps + 1, rows)
        request.inputs.add(name="lengths", datatype="INT64", shape=[rows])
        request.raw_input_contents.append(lengths.tobytes())
    if generator.random() < 0.5:
        h0 += generator.integers(-9, 10, (rows, 1, 1))
        request.inputs.add(name="h0", datatype="FP32", shape=h0.shape)
        request.raw_input_contents.append(h0.tobytes())
        request.inputs.add(name="c0", datatype="FP32", shape=h0.shape)
        request.raw_input_contents.append(h0.tobytes())
    wanted = list(generator.permutation(["y", "hn", "cn"])[: generator.integers(1, 4)])
    for name in wanted:
        request.outputs.add(name=name)
    sums = [float(row[:length].sum() + state[0, 0]) for row, length, state in zip(x, lengths, h0, strict=True)]
    return request, dict.fromkeys(wanted, sums)


def test_everyone_gets_their_own_answer(server: LaunchedServer) -> None:
    generator = np.random.default_rng(11)
    with RawClient(server.address) as client:
        infer = client.method("ModelInfer")
        for _ in range(5):
            asked = [
                _request(int(generator.integers(1, 9)), int(generator.integers(1, 4)), generator) for _ in range(200)
            ]
            futures = [infer.future(request) for request, _ in asked]
            for future, (_, expected) in zip(futures, asked, strict=True):
                answer = future.result()
                assert [output.name for output in answer.outputs] == list(expected)
                for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
                    got = np.frombuffer(raw, np.float32).reshape(output.shape)
                    rows = np.array(expected[output.name], np.float32).reshape(-1, *[1] * (got.ndim - 1))
                    np.testing.assert_array_equal(got, np.broadcast_to(rows, got.shape))
        (statistics,) = client.call("ModelStatistics", name="fake").model_stats
        assert statistics.inference_stats.success.count == 1000
        assert statistics.execution_count < 1000, "no two requests have shared a batch"
    until(lambda: metric(server, "requests_in_flight") == 0)


def test_broken_messages_never_look_like_a_fault_of_the_server(server: LaunchedServer) -> None:
    """Valid messages with some bytes changed, cut or repeated; seeded, so that a failure can be seen again."""
    chance = random.Random(3)
    with RawClient(server.address) as client:
        before = client.infer().tolist()
        send = client.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        generator = np.random.default_rng(3)
        codes = []
        for _ in range(2000):
            payload = bytearray(_request(2, 3, generator)[0].SerializeToString())
            for _ in range(chance.randint(1, 4)):
                place = chance.randrange(len(payload))
                match chance.randrange(3):
                    case 0:
                        payload[place] = chance.randrange(256)
                    case 1:
                        del payload[place : place + chance.randint(1, 8)]
                    case 2:
                        payload[place:place] = payload[: chance.randint(1, 8)]
            codes.append(send.future(bytes(payload)).code())
        assert set(codes) <= {CODE.OK, CODE.INVALID_ARGUMENT, CODE.NOT_FOUND, CODE.UNIMPLEMENTED}
        assert codes.count(CODE.INVALID_ARGUMENT) > 500
        assert client.infer().tolist() == before
    until(lambda: metric(server, "requests_in_flight") == 0)
    assert not [entry for entry in server.log() if "fault of the server" in entry["message"]]


def test_a_storm_of_cancelled_calls_leaves_nothing_behind(server: LaunchedServer) -> None:
    chance = random.Random(5)
    with RawClient(server.address) as client:
        for _ in range(20):
            futures = [client.infer_later(timeout=chance.choice((0.001, 0.005, 30))) for _ in range(50)]
            for future in chance.sample(futures, 25):
                future.cancel()
            for future in futures:
                assert future.code() in (CODE.OK, CODE.CANCELLED, CODE.DEADLINE_EXCEEDED)
        assert client.infer().tolist() == [6, 6]
    until(lambda: metric(server, "requests_in_flight") == 0)
    assert metric(server, "queue_depth") == 0
