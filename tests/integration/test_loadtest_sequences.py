"""`lstm-loadtest --sequences` against real servers: what it counts, what it sends again, and that it finds what is wrong."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from protos import grpc_service_pb2 as pb
from protos import model_config_pb2 as pb_config
from serving.launch import LaunchedServer
from tests.integration.test_loadtest import LoadTest
from tests.support import fake_models
from tests.support.running import FAKE, metric, until

STATEFUL = "sequence_batching {}"
NARROW = """
    max_batch_size: 1
    sequence_batching {}
    parameters { key: "max_queue_size" value { string_value: "2" } }
"""

ONE_ALONE = """
    sequence_batching {}
    parameters { key: "max_sequences" value { string_value: "1" } }
    parameters { key: "sequence_eviction" value { string_value: "oldest_idle" } }
    parameters { key: "sequence_min_idle_seconds" value { string_value: "0" } }
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, edge: str) -> Iterator[LaunchedServer]:
    repository = tmp_path_factory.mktemp("repository")
    fake_models.write(repository, config=STATEFUL)
    fake_models.write(repository, "stateless")
    fake_models.write(repository, "narrow", delay_seconds=0.01, config=NARROW)
    fake_models.write(repository, "one_alone", config=ONE_ALONE)
    with LaunchedServer(repository, *FAKE) as running:
        yield running


@pytest.mark.parametrize("over", [(), ("--streaming", "--streams", "2")])
@pytest.mark.parametrize("pace", [(), ("--every", "0.05")])
def test_it_counts_what_the_server_counts(
    server: LaunchedServer, tmp_path: Path, over: tuple[str, ...], pace: tuple[str, ...]
) -> None:
    names = ("sequence_steps_total", "sequences_started_total")
    before = [metric(server, name, model="fake") for name in names]
    flags = ("--model", "fake", "--sequences", "6", "--steps", "4", "--step-size", "3", "--duration", "0.6")
    (run,) = LoadTest(tmp_path, server.address, *flags, *over, *pace, "--warm-up", "0").runs()
    steps, started = (metric(server, name, model="fake") - value for name, value in zip(names, before, strict=True))
    counts = run["sequences"]
    assert run["sent"] == run["succeeded"] > 0
    assert counts["cut_short"] <= steps - run["succeeded"] <= 6, "what ends the sequences at the end is not measured"
    assert started == counts["started"] == counts["finished"] + counts["cut_short"]
    assert counts["compared"] == counts["finished"] > 0
    assert (counts["wrong_continuations"], counts["given_up"], run["errors"]) == (0, {}, {})
    until(lambda: metric(server, "sequences_live", model="fake") == 0)  # none is left behind
    assert (run["mode"], run["level"], run["steps"], run["step_size"]) == ("sequences", 6, 4, 3)
    assert run["offered"] == (pytest.approx(120) if pace else None)
    assert not pace or run["sent"] + run["client"]["not_sent"] == 72


def test_series_of_a_file_each_of_its_own_length(server: LaunchedServer, tmp_path: Path) -> None:
    series = {str(number): np.full((number + 1, fake_models.FEATURES), number, np.float32) for number in range(4)}
    np.savez(tmp_path / "d.npz", **series)
    flags = ("--model", "fake", "--sequences", "3", "--data", str(tmp_path / "d.npz"), "--step-size", "2")
    (run,) = LoadTest(tmp_path, server.address, *flags, "--duration", "0.3", "--warm-up", "0").runs()
    assert run["sequences"]["finished"] > 4
    assert run["sequences"]["wrong_continuations"] == 0


def test_a_full_queue_is_tried_again_with_the_same_numbers(server: LaunchedServer, tmp_path: Path) -> None:
    before = metric(server, "sequence_steps_total", model="narrow")
    flags = ("--model", "narrow", "--sequences", "8", "--steps", "4", "--duration", "0.6", "--warm-up", "0")
    (run,) = LoadTest(tmp_path, server.address, *flags).runs()
    counts = run["sequences"]
    assert set(counts["resent"]) == {"UNAVAILABLE"}
    assert (run["errors"], counts["given_up"], counts["wrong_continuations"]) == ({}, {}, 0)
    steps = metric(server, "sequence_steps_total", model="narrow") - before
    assert counts["cut_short"] <= steps - run["succeeded"] <= 8, "none was computed twice"


def test_what_is_gone_is_not_asked_for_again_over_a_stream_either(server: LaunchedServer, tmp_path: Path) -> None:
    flags = ("--model", "one_alone", "--sequences", "2", "--steps", "4", "--every", "0.05", "--streaming")
    (run,) = LoadTest(tmp_path, server.address, *flags, "--duration", "0.6", "--warm-up", "0").runs()
    counts = run["sequences"]
    assert counts["given_up"]["STREAM_ERROR"] == run["failed"] > 0, "each takes the place of the other"
    assert counts["resent"] == {}


def test_a_stateless_model_is_told_how_to_get_state_and_is_not_asked(server: LaunchedServer, tmp_path: Path) -> None:
    flags = ("--model", "stateless", "--sequences", "2", "--duration", "0.2", "--warm-up", "0")
    code, _, err = LoadTest(tmp_path, server.address, *flags).end()
    assert code == 2
    assert "add sequence_batching {} to its config.pbtxt" in err
    assert metric(server, "requests_total", model="stateless", outcome="invalid") == 0


def test_the_search_for_the_most_sequences(server: LaunchedServer, tmp_path: Path) -> None:
    flags = ("--model", "fake", "--sequences", "4", "--every", "0.1", "--steps", "3", "--p99-below", "0.001")
    test = LoadTest(tmp_path, server.address, *flags, "--duration", "0.2", "--warm-up", "0")
    code, out, err = test.end()
    assert code == 0, err
    document = json.loads(test.json_file.read_text())
    tried = [trial["rate"] for trial in document["search"]["trials"]]
    assert tried == [run["level"] for run in document["runs"]]
    assert tried == [4, 4, 2, 2, 1, 1]
    assert "no number of sequences down to 1 keeps the p99 below 0.001 ms" in out


@pytest.mark.parametrize("over", [(), ("--streaming",), ("--every", "0.05")])
def test_ctrl_c_reports_what_was_measured(server: LaunchedServer, tmp_path: Path, over: tuple[str, ...]) -> None:
    before = metric(server, "sequence_steps_total", model="fake")
    flags = ("--model", "fake", "--sequences", "4", "--steps", "3", "--duration", "60", "--warm-up", "0")
    test = LoadTest(tmp_path, server.address, *flags, *over)
    until(lambda: metric(server, "sequence_steps_total", model="fake") > before + 50)
    test.process.send_signal(signal.SIGINT)
    code, _, err = test.end()
    (run,) = test.read()
    assert code == 130, err
    assert run["interrupted"]
    assert (run["errors"], run["sequences"]["wrong_continuations"]) == ({}, 0)
    assert 0 < run["succeeded"] <= run["sent"] <= run["succeeded"] + 4


def test_a_server_that_dies_and_comes_back_has_forgotten_and_new_sequences_begin(tmp_path: Path) -> None:
    fake_models.write(tmp_path, config=STATEFUL)
    flags = ("--model", "fake", "--sequences", "4", "--steps", "200", "--every", "0.02", "--warm-up", "0")
    with LaunchedServer(tmp_path, *FAKE) as first:
        test = LoadTest(tmp_path, first.address, *flags, "--duration", "8")
        until(lambda: metric(first, "sequence_steps_total", model="fake") > 20)
        first.process.kill()
    with LaunchedServer(tmp_path, *FAKE, "--grpc-port", first.address.rpartition(":")[2]) as second:
        until(lambda: metric(second, "sequence_steps_total", model="fake") > 20)
        (run,) = test.runs()
    counts = run["sequences"]
    assert counts["resent"]["UNAVAILABLE"] >= 4
    assert sum(counts["given_up"].values()) == 4, "each was refused once: the second server knows none of them"
    assert counts["started"] == counts["finished"] + counts["cut_short"] + 4
    assert counts["wrong_continuations"] == 0


class ForgetfulServer:
    """A server of the protocol unlike ours: it sums what it is sent, and leaves every tenth step out of the state."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: dict[int, float] = {}
        self._steps = 0
        self._server = grpc.server(ThreadPoolExecutor(4))
        unary = grpc.unary_unary_rpc_method_handler
        handlers = {
            "ServerLive": unary(lambda _, __: pb.ServerLiveResponse(live=True).SerializeToString()),
            "ServerMetadata": unary(lambda _, __: pb.ServerMetadataResponse(name="small").SerializeToString()),
            "ModelMetadata": unary(lambda _, __: self._metadata()),
            "ModelConfig": unary(lambda _, __: self._config()),
            "ModelInfer": unary(lambda request, _: self._infer(pb.ModelInferRequest.FromString(request))),
        }
        service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def __enter__(self) -> ForgetfulServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    @staticmethod
    def _metadata() -> bytes:
        made = pb.ModelMetadataResponse(name="sum", versions=["1"])
        made.inputs.add(name="x", datatype="FP32", shape=[-1, -1, 1])
        made.outputs.add(name="y", datatype="FP32", shape=[-1, 1])
        return made.SerializeToString()

    @staticmethod
    def _config() -> bytes:
        config = pb_config.ModelConfig(name="sum", max_batch_size=8)
        config.sequence_batching.state.add(input_name="s0", output_name="s", data_type=pb_config.TYPE_FP32, dims=[1])
        return pb.ModelConfigResponse(config=config).SerializeToString()

    def _infer(self, request: pb.ModelInferRequest) -> bytes:
        x = float(np.frombuffer(request.raw_input_contents[0], np.float32).sum())
        name = request.parameters["sequence_id"].int64_param
        with self._lock:
            self._steps += bool(name)
            total = self._totals.get(name, 0.0) if name else 0.0
            total += 0 if name and self._steps % 10 == 0 else x
            if name:
                self._totals[name] = total
        response = pb.ModelInferResponse(model_name="sum", model_version="1")
        for output in request.outputs:
            response.outputs.add(name=output.name, datatype="FP32", shape=[1, 1])
            response.raw_output_contents.append(np.float32(total).tobytes())
        return response.SerializeToString()


def test_a_step_that_is_left_out_is_found_and_told_by_the_exit_code(tmp_path: Path) -> None:
    flags = ("--model", "sum", "--sequences", "2", "--steps", "4", "--duration", "0.4", "--warm-up", "0")
    with ForgetfulServer() as server:
        test = LoadTest(tmp_path, server.address, *flags, "--html", str(tmp_path / "r.html"))
        code, out, err = test.end()
    (run,) = test.read()
    wrong, compared = run["sequences"]["wrong_continuations"], run["sequences"]["compared"]
    assert 0 < wrong < compared == run["sequences"]["finished"]
    assert code == 1
    assert err.endswith(
        f"lstm-loadtest: {wrong} of {compared} sequences were continued wrongly: they ended in another state than a run "
        "without a break\n"
    )
    assert f"* wrong continuations: {wrong} of {compared} sequences ended in another state" in out
    assert "<li class=warn>wrong continuations" in (tmp_path / "r.html").read_text()
