"""A backend breaks under load, on command: another one answers, nobody's request fails, and the first comes back when it can."""

from __future__ import annotations

import signal
from pathlib import Path

import grpc
import pytest

from serving.launch import LaunchedServer
from tests.support.breakable import Breakable
from tests.support.closed_loop import ClosedLoop
from tests.support.running import EVERYTHING, FAKE, logged, metric, swaps, until
from tests.support.wire import RawClient, refusal

QUICK = ("--breaker-reset", "0.05")
BROKEN = {"backend": "fake", "model": "fake", "version": "1"}


def serving_by(client: RawClient) -> str:
    name: str = client.call("ModelConfig", name="fake").config.backend
    return name


@pytest.mark.parametrize("instances", [1, 3])
@pytest.mark.parametrize(
    ("said", "reason"), [("", "exceptions"), ("out_of_memory", "out_of_memory"), ("device_lost", "device_lost")]
)
def test_a_backend_that_breaks_is_replaced_and_comes_back(
    said: str, reason: str, instances: int, tmp_path: Path
) -> None:
    model = Breakable(tmp_path, config=f"instance_group {{ count: {instances} }}")
    there, back = ("fake", "onnx_runtime", reason), ("onnx_runtime", "fake", "recovered")
    with LaunchedServer(tmp_path, *FAKE, *QUICK) as server, RawClient(server.address) as client:
        with ClosedLoop(server.address, clients=6) as loop:
            loop.more()
            model.breaks(said)
            until(lambda: swaps(server) == {there: 1})
            loop.more()
            assert serving_by(client) == "onnxruntime"
            assert metric(server, "backend_broken", **BROKEN) == 1
            state, why = client.index()["fake/1"]
            assert (state, why.split(":")[0]) == ("READY", f"fell back from fake ({reason})")
            assert client.call("ServerReady").ready
            until(lambda: logged(server, "fake cannot stand in") >= 3)
            assert swaps(server) == {there: 1}, "it went back to a backend that was still broken"
            model.mends()
            until(lambda: swaps(server) == {there: 1, back: 1})
            loop.more()
            assert serving_by(client) == "fake"
            assert metric(server, "backend_broken", **BROKEN) == 0
            assert client.index()["fake/1"] == ("READY", "")
        assert metric(server, "requests_total", backend="fake", outcome="failed") == 0
        assert metric(server, "requests_total", backend="onnx_runtime", outcome="failed") == 0
        assert server.stop() == 0


def test_one_poisonous_request_fails_alone(tmp_path: Path) -> None:
    """Its neighbours are answered and nothing is swapped, however often it is sent."""
    Breakable(tmp_path, fail_on=7.0)
    with (
        LaunchedServer(tmp_path, *FAKE, "--breaker-failures", "1") as server,
        RawClient(server.address) as client,
        ClosedLoop(server.address, clients=6),
    ):
        for _ in range(20):
            code, said = refusal(lambda: client.infer(value=7))
            assert code is grpc.StatusCode.INTERNAL
            assert said.endswith("failed to compute: RuntimeError: asked to fail on 7.0")
        assert swaps(server) == {}
        assert serving_by(client) == "fake"
        assert client.index()["fake/1"] == ("READY", "")
        assert metric(server, "requests_total", backend="fake", outcome="failed") == 20


ALONE = {
    "no other format": (False, (), None),
    "not wanted": (True, ("--fallback", "none"), None),
    "none listed": (True, (), 'parameters { key: "fallback" value { string_value: "" } }'),
}


@pytest.mark.parametrize("said", ["", "device_lost"])
@pytest.mark.parametrize(("second", "flags", "config"), ALONE.values(), ids=list(ALONE))
def test_nothing_to_fall_back_to(
    second: bool, flags: tuple[str, ...], config: str | None, said: str, tmp_path: Path
) -> None:
    model = Breakable(tmp_path, second=second, config=config)
    with LaunchedServer(tmp_path, *FAKE, *QUICK, *flags) as server, RawClient(server.address) as client:
        assert client.infer().tolist() == [6, 6]
        model.breaks(said)
        for _ in range(3):
            code, why = refusal(client.infer)
            assert code is grpc.StatusCode.INTERNAL
            assert "model 'fake' version 1 failed to compute" in why
            assert (said or "asked to fail while there is a file broken") in why
        assert client.call("ServerReady").ready
        assert swaps(server) == {}
        model.mends()
        assert client.infer().tolist() == [6, 6]
        assert client.index()["fake/1"] == ("READY", "")


def test_a_spare_that_cannot_be_loaded_is_as_good_as_none(tmp_path: Path) -> None:
    model = Breakable(tmp_path)
    (model.folder / "model.onnx").write_bytes(b"damaged")
    with LaunchedServer(tmp_path, *FAKE, *QUICK) as server, RawClient(server.address) as client:
        model.breaks("device_lost")
        code, why = refusal(client.infer)
        assert code is grpc.StatusCode.INTERNAL
        assert "failed to compute, and nothing else can: Lost: device_lost" in why
        until(lambda: logged(server, "onnx_runtime cannot stand in: ") == 1)
        model.mends()
        assert client.infer().tolist() == [6, 6]


def test_what_the_operator_lists_takes_over_whatever_the_flag_says(tmp_path: Path) -> None:
    listed = 'parameters { key: "fallback" value { string_value: "onnxruntime@cpu" } }'
    model = Breakable(tmp_path, config=listed)
    flags = (*FAKE, "--fallback", "none", "--breaker-reset", "1000")
    with LaunchedServer(tmp_path, *flags) as server, ClosedLoop(server.address) as loop:
        loop.more()
        model.breaks("out_of_memory")
        until(lambda: swaps(server) == {("fake", "onnx_runtime", "out_of_memory"): 1})
        loop.more()


def test_an_operator_takes_over_from_what_stands_in(tmp_path: Path) -> None:
    model = Breakable(tmp_path)
    with (
        LaunchedServer(tmp_path, *EVERYTHING, "--breaker-reset", "1000") as server,
        RawClient(server.address) as client,
        ClosedLoop(server.address) as loop,
    ):
        loop.more()
        model.breaks()
        until(lambda: ("fake", "onnx_runtime", "exceptions") in swaps(server))
        assert refusal(lambda: client.load("fake"))[0] is grpc.StatusCode.INVALID_ARGUMENT
        loop.more()
        model.mends()
        client.load("fake")
        assert swaps(server)["onnx_runtime", "fake", "requested"] == 1
        assert metric(server, "backend_broken", **BROKEN) == 0
        loop.more()


def test_a_broken_model_can_be_unloaded(tmp_path: Path) -> None:
    model = Breakable(tmp_path)
    with LaunchedServer(tmp_path, *EVERYTHING, *QUICK) as server, RawClient(server.address) as client:
        model.breaks("device_lost")
        assert client.infer().tolist() == [6, 6]
        client.unload("fake")
        until(lambda: client.index() == {"fake/1": ("UNAVAILABLE", "unloaded")})
        model.mends()
        assert refusal(client.infer)[0] is grpc.StatusCode.NOT_FOUND
        assert server.stop() == 0


# Computed by what stands in, before it does: long enough for other things to happen meanwhile.
LONG_LOAD = """
model_warmup {
  name: "long"
  batch_size: 16
  count: 120
  inputs { key: "x" value { data_type: TYPE_FP32 dims: [20000, 3] zero_data: true } }
}"""


def test_a_server_that_leaves_lets_what_stands_in_answer_what_it_has_taken_in(tmp_path: Path) -> None:
    model = Breakable(tmp_path, config=LONG_LOAD)
    with LaunchedServer(tmp_path, *FAKE) as server, RawClient(server.address) as client:
        model.breaks("device_lost")
        answers = [client.infer_later() for _ in range(4)]
        until(lambda: metric(server, "requests_in_flight", backend="fake") == 4)
        until(lambda: logged(server, "broken: fake") == 1)
        server.process.send_signal(signal.SIGTERM)
        assert all(answer.result().raw_output_contents for answer in answers)
        assert server.process.wait(30) == 0
        assert logged(server, "broken: fake") == 1


def test_a_deadline_that_passes_while_a_stand_in_is_loaded_counts_as_such(tmp_path: Path) -> None:
    model = Breakable(tmp_path, config=LONG_LOAD)
    with LaunchedServer(tmp_path, *FAKE) as server, RawClient(server.address) as client:
        model.breaks("device_lost")
        assert refusal(lambda: client.infer(timeout=0.2))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        until(lambda: metric(server, "requests_total", outcome="expired") == 1)
        assert metric(server, "requests_in_flight") == 0


def test_requests_that_are_cut_off_while_a_stand_in_is_loaded_are_told_by_the_exit_code(tmp_path: Path) -> None:
    model = Breakable(tmp_path, config=LONG_LOAD)
    with (
        LaunchedServer(tmp_path, *FAKE, "--exit-timeout-seconds", "0.1") as server,
        RawClient(server.address) as client,
    ):
        model.breaks("device_lost")
        answer = client.infer_later()
        until(lambda: logged(server, "broken: fake") == 1)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 1
        assert answer.code() is grpc.StatusCode.UNAVAILABLE
