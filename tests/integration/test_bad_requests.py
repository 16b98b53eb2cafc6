"""Everything that can go wrong with a request: a sentence, the right code, and the server goes on."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from protos import grpc_service_pb2 as pb
from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.running import FAKE, metric, until
from tests.support.wire import RawClient, request

CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, edge: str) -> Iterator[LaunchedServer]:
    repository = tmp_path_factory.mktemp("repository")
    fake_models.write(repository, fail_on=13.0)
    fake_models.write(repository, "slow", delay_seconds=0.5, config="max_batch_size: 1")
    fake_models.write(
        repository,
        "narrow",
        delay_seconds=0.5,
        config="max_batch_size: 1 dynamic_batching { default_queue_policy { max_queue_size: 1 } }",
    )
    with LaunchedServer(repository, *FAKE, "--max-message-bytes", "100000", "--max-steps", "50") as running:
        yield running


@pytest.fixture
def client(server: LaunchedServer) -> Iterator[RawClient]:
    with RawClient(server.address) as made:
        yield made
        assert made.infer(value=1).tolist() == [6, 6], "the server does not go on serving"


@pytest.mark.parametrize("rpc", ["ModelInfer", "ModelMetadata", "ModelConfig"])
@pytest.mark.parametrize(
    ("name", "version", "code", "message"),
    [
        ("nope", "", CODE.INVALID_ARGUMENT, "Request for unknown model: 'nope' is not found"),
        ("fake", "99", CODE.NOT_FOUND, "Request for unknown model: 'fake' version 99 is not found"),
        ("fake", "0", CODE.NOT_FOUND, "version 0 is not found"),
        ("fake", "x", CODE.INVALID_ARGUMENT, "failed to get model version from specified version string 'x'"),
        (
            "fake",
            "-1",
            CODE.INVALID_ARGUMENT,
            "invalid model version specified '-1' , version should be an integral value > 0",
        ),
        ("fake", "1" * 5000, CODE.INVALID_ARGUMENT, "failed to get model version from specified version string '1111"),
        ("n" * 20_000, "", CODE.INVALID_ARGUMENT, "Request for unknown model: 'nnn"),
        ("../fake", "", CODE.INVALID_ARGUMENT, "is not found"),
    ],
)
def test_unknown_models_and_versions(
    client: RawClient, rpc: str, name: str, version: str, code: grpc.StatusCode, message: str
) -> None:
    fields = (
        {"model_name": name, "model_version": version} if rpc == "ModelInfer" else {"name": name, "version": version}
    )
    with pytest.raises(grpc.RpcError) as refused:
        client.call(rpc, **fields)
    assert refused.value.code() is code
    assert message in refused.value.details()


def test_a_bad_request_never_fails_its_neighbours(client: RawClient) -> None:
    bad = request("fake", 1, 2)
    bad.raw_input_contents[0] = b"short"
    futures = [client.infer_later() for _ in range(4)]
    refused = client.method("ModelInfer").future(bad)
    futures += [client.infer_later() for _ in range(4)]
    assert refused.code() is CODE.INVALID_ARGUMENT
    assert refused.details() == "input byte size mismatch for input 'x' for model 'fake'. Expected 24, got 5"
    assert [future.code() for future in futures] == [CODE.OK] * 8


def test_bytes_that_are_no_message(client: RawClient) -> None:
    for rpc in ("ModelInfer", "ModelMetadata"):
        send = client.channel.unary_unary(f"/inference.GRPCInferenceService/{rpc}")
        with pytest.raises(grpc.RpcError) as refused:
            send(b"\xff\xff\xff\xff")
        assert refused.value.code() is CODE.INVALID_ARGUMENT


def test_a_message_that_is_too_large(client: RawClient) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.infer(steps=20_000)
    assert refused.value.code() is CODE.RESOURCE_EXHAUSTED


def test_a_sequence_that_is_too_long(client: RawClient) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.infer(steps=51)
    assert refused.value.code() is CODE.INVALID_ARGUMENT
    assert "51 steps, but at most 50" in refused.value.details()


def test_methods_that_are_not_served_yet(client: RawClient) -> None:
    for rpc in ("TraceSetting", "SystemSharedMemoryStatus", "LogSettings"):
        with pytest.raises(grpc.RpcError) as refused:
            client.call(rpc)
        assert refused.value.code() is CODE.UNIMPLEMENTED


def test_a_backend_that_fails(client: RawClient, server: LaunchedServer) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        client.infer(value=13)
    assert failed.value.code() is CODE.INTERNAL
    assert "model 'fake' version 1 failed to compute: RuntimeError: asked to fail on 13.0" in failed.value.details()
    assert "exception" in server.wait_for("model 'fake' version 1 failed on a batch", 10)


def test_a_deadline_that_passes_in_the_queue_costs_no_compute(client: RawClient, server: LaunchedServer) -> None:
    first = client.infer_later("slow")
    until(lambda: metric(server, "requests_in_flight", model="slow") == 1)
    with pytest.raises(grpc.RpcError) as late:
        client.infer("slow", timeout=0.1)
    assert late.value.code() is CODE.DEADLINE_EXCEEDED
    assert first.result()
    dropped = ("expired", "cancelled")  # the client's own word may arrive before the queue is looked at
    until(lambda: sum(metric(server, "requests_total", model="slow", outcome=outcome) for outcome in dropped) == 1)
    assert metric(server, "requests_total", model="slow", outcome="success") == 1


def test_a_client_that_has_gone_costs_no_compute(client: RawClient, server: LaunchedServer) -> None:
    before = metric(server, "requests_total", model="slow", outcome="cancelled")
    first = client.infer_later("slow")
    until(lambda: metric(server, "requests_in_flight", model="slow") == 1)
    gone = client.infer_later("slow")
    until(lambda: metric(server, "requests_in_flight", model="slow") == 2)
    gone.cancel()
    assert first.result()
    until(lambda: metric(server, "requests_total", model="slow", outcome="cancelled") == before + 1)


def test_a_full_queue_refuses_at_once(client: RawClient, server: LaunchedServer) -> None:
    running = client.infer_later("narrow")
    until(lambda: metric(server, "requests_in_flight", model="narrow") == 1)
    until(lambda: metric(server, "queue_depth", model="narrow") == 0)
    queued = client.infer_later("narrow")
    until(lambda: metric(server, "queue_depth", model="narrow") == 1)
    with pytest.raises(grpc.RpcError) as refused:
        client.infer("narrow")
    assert refused.value.code() is CODE.UNAVAILABLE
    assert "Exceeds maximum queue size" in refused.value.details()
    assert running.result()
    assert queued.result()
    assert metric(server, "requests_total", model="narrow", outcome="rejected") == 1


def test_statistics_count_failures_as_prometheus_does(client: RawClient, server: LaunchedServer) -> None:
    with pytest.raises(grpc.RpcError):
        client.infer(value=13)
    (statistics,) = client.call("ModelStatistics", name="fake").model_stats
    outcomes = ("invalid", "rejected", "expired", "cancelled", "failed")
    failed = sum(metric(server, "requests_total", model="fake", outcome=outcome) for outcome in outcomes)
    assert statistics.inference_stats.fail.count == failed > 0
    succeeded = metric(server, "requests_total", model="fake", outcome="success")
    assert statistics.inference_stats.success.count == succeeded > 0


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("nope", "", "requested model 'nope' is not available"),
        ("fake", "9", "version is not available for model 'fake'"),
    ],
)
def test_statistics_of_what_is_not_there(client: RawClient, name: str, version: str, message: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.call("ModelStatistics", name=name, version=version)
    assert refused.value.code() is CODE.INVALID_ARGUMENT
    assert message in refused.value.details()


def test_requests_that_find_no_model_are_counted(client: RawClient, server: LaunchedServer) -> None:
    with pytest.raises(grpc.RpcError):
        client.method("ModelInfer")(pb.ModelInferRequest(model_name="nope"))
    assert metric(server, "requests_refused_total", code="INVALID_ARGUMENT") >= 1
