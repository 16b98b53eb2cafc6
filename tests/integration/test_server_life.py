"""A real server process from its first port to its last answer."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from serving.errors import StartupError
from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.running import FAKE, metric, until
from tests.support.wire import RawClient


def test_from_start_to_exit(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    with LaunchedServer(tmp_path, *FAKE) as server, RawClient(server.address) as client:
        assert client.call("ServerLive").live
        assert client.call("ServerReady").ready
        assert client.call("ModelReady", name="fake").ready
        assert client.infer(value=2, steps=5).tolist() == [30, 30]
        started = server.wait_for("serving", 1)
        assert (started["backend"], started["device"], started["max_steps"]) == ("fake", "cpu", 4096)
        loaded = server.wait_for("loaded", 1)
        assert (loaded["model"], loaded["version"], loaded["backend"], loaded["verified"]) == (
            "fake",
            "1",
            "fake",
            True,
        )
        assert server.stop() == 0
        assert server.wait_for("stopped", 1)


def test_sigterm_is_not_ready_at_once_and_answers_what_is_in_flight(tmp_path: Path) -> None:
    fake_models.write(tmp_path, delay_seconds=2, delay_on=7)
    with LaunchedServer(tmp_path, *FAKE) as server, RawClient(server.address) as client:
        watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        answer = client.infer_later(value=7)
        until(lambda: metric(server, "requests_in_flight") == 1)
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert list(watch) == []
        assert not answer.done()
        until(lambda: client.infer_later().code() is grpc.StatusCode.UNAVAILABLE)
        assert answer.result().raw_output_contents
        assert server.process.wait(30) == 0


def test_sigterm_at_full_load_cancels_nothing(tmp_path: Path) -> None:
    """Who is not answered any more is told that the server is unavailable, which clients try elsewhere."""
    fake_models.write(tmp_path)
    codes: list[grpc.StatusCode] = []
    begun = threading.Semaphore(0)

    def ask(address: str) -> None:
        with RawClient(address) as client:
            client.infer()
            begun.release()
            while True:
                try:
                    client.infer()
                except grpc.RpcError as error:
                    codes.append(error.code())
                    return

    with LaunchedServer(tmp_path, *FAKE) as server:
        threads = [threading.Thread(target=ask, args=(server.address,)) for _ in range(16)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert begun.acquire(timeout=30)
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(30)
        assert server.process.wait(30) == 0
    assert codes == [grpc.StatusCode.UNAVAILABLE] * 16


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    fake_models.write(tmp_path, delay_seconds=600, delay_on=7)
    with LaunchedServer(tmp_path, *FAKE) as server, RawClient(server.address) as client:
        answer = client.infer_later(value=7)
        until(lambda: metric(server, "requests_in_flight") == 1)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("leaving", 30)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 1
        assert answer.code() is grpc.StatusCode.UNAVAILABLE


def test_the_exit_timeout_cuts_off_what_takes_longer(tmp_path: Path) -> None:
    fake_models.write(tmp_path, delay_seconds=600, delay_on=7)
    flags = ("--exit-timeout-seconds", "0.1")
    with LaunchedServer(tmp_path, *FAKE, *flags) as server, RawClient(server.address) as client:
        answer = client.infer_later(value=7)
        until(lambda: metric(server, "requests_in_flight") == 1)
        assert server.stop() == 1
        assert answer.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_leaving_ends_the_wait_for_company(tmp_path: Path) -> None:
    """A batch that still waits to be filled is computed at once when the server leaves."""
    fake_models.write(tmp_path, config="dynamic_batching { max_queue_delay_microseconds: 60000000 }")
    with LaunchedServer(tmp_path, *FAKE) as server, RawClient(server.address) as client:
        answer = client.infer_later(timeout=120)
        until(lambda: metric(server, "queue_depth") == 1)
        assert server.stop(20) == 0
        assert answer.result().raw_output_contents


def test_watchers_and_idle_calls_do_not_hold_the_server_up(tmp_path: Path) -> None:
    """Many watchers, some of which leave just then, and reflection streams that say nothing."""
    fake_models.write(tmp_path)
    silence = threading.Event()
    with LaunchedServer(tmp_path, *FAKE) as server, RawClient(server.address) as client:
        watches = [health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest()) for _ in range(40)]
        assert {next(watch).status for watch in watches} == {health_pb2.HealthCheckResponse.SERVING}
        reflection = reflection_pb2_grpc.ServerReflectionStub(client.channel)

        def nothing() -> Iterator[reflection_pb2.ServerReflectionRequest]:
            silence.wait()
            yield from ()

        idle = [reflection.ServerReflectionInfo(nothing()) for _ in range(6)]
        assert client.call("ServerLive").live
        health_pb2_grpc.HealthStub(client.channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        for watch in watches[::2]:
            watch.cancel()
        assert server.stop(20) == 0
        for watch in watches[1::2]:
            assert [answer.status for answer in watch] == [health_pb2.HealthCheckResponse.NOT_SERVING]
        silence.set()
        assert len(idle) == 6


def test_health_agrees_with_readiness_for_any_service_name(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    with LaunchedServer(tmp_path, *FAKE) as server, RawClient(server.address) as client:
        for service in ("", "inference.GRPCInferenceService", "anything"):
            answer = health_pb2_grpc.HealthStub(client.channel).Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_the_services(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    with LaunchedServer(tmp_path, *FAKE) as server, RawClient(server.address) as client:
        stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
        (answer,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= {
            service.name for service in answer.list_services_response.service
        }


@pytest.mark.parametrize("flag", ["--grpc-port", "--metrics-port"])
def test_a_busy_port_is_told(tmp_path: Path, flag: str) -> None:
    fake_models.write(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(
            StartupError, match=rf"has ended with 1(.|\n)*127.0.0.1:{port} cannot be bound(.|\n)*{flag}"
        ):
            LaunchedServer(tmp_path, *FAKE, flag, port)


def test_a_second_server_does_not_share_the_first_ones_port(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    with LaunchedServer(tmp_path, *FAKE) as server:
        port = server.address.rpartition(":")[2]
        with pytest.raises(StartupError, match="cannot be bound"):
            LaunchedServer(tmp_path, *FAKE, "--grpc-port", port)


def test_a_repository_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        StartupError, match=r"model repository .*nowhere does not exist; name one with --model-repository"
    ):
        LaunchedServer(tmp_path / "nowhere", *FAKE)


def test_an_empty_repository_is_served(tmp_path: Path) -> None:
    with LaunchedServer(tmp_path, *FAKE) as server, RawClient(server.address) as client:
        assert client.call("ServerReady").ready
        assert not client.call("RepositoryIndex").models
        assert server.stop() == 0


def test_the_access_log_says_who_got_what(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    with LaunchedServer(tmp_path, *FAKE, "--access-log", "1") as server, RawClient(server.address) as client:
        client.infer()
        entry = server.wait_for("request", 10)
        assert (entry["model"], entry["version"], entry["code"]) == ("fake", "1", "OK")
        assert entry["duration_ms"] > 0


def test_importing_the_server_loads_no_runtime() -> None:
    """A server of ONNX models must not pay for TensorFlow; backends import their runtime when they load a model."""
    check = (
        "import sys, serving.server, serving.backends as b; [b.module(name) for name in b.names()]; "
        "print(sorted({'torch', 'tensorflow', 'onnxruntime', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
