"""`lstm-loadtest` against real servers: that it counts what they counted, and sees what it must see."""

from __future__ import annotations

import csv
import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from protos import grpc_service_pb2 as pb
from serving.launch import LaunchedServer
from serving.signature.tensors import TensorSpec
from tests.support import fake_models
from tests.support.running import FAKE, metric, until

STALL_SECONDS = 1.0


class LoadTest:
    """One invocation of the command, as a process."""

    def __init__(self, folder: Path, url: str, *flags: str) -> None:
        self.json_file = folder / "runs.json"
        command = [sys.executable, "-m", "loadtest", "--url", url, "--json", str(self.json_file), *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(self) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        try:
            out, err = self.process.communicate(timeout=60)
        finally:
            self.process.kill()
        return self.process.returncode, out, err

    def runs(self) -> list[dict[str, Any]]:
        """The runs of its JSON, once it has succeeded."""
        code, _, err = self.end()
        assert code == 0, err
        return self.read()

    def read(self) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = json.loads(self.json_file.read_text())["runs"]
        return runs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, edge: str) -> Iterator[LaunchedServer]:
    repository = tmp_path_factory.mktemp("repository")
    fake_models.write(repository)
    fake_models.write(repository, "failing", fail_on=13.0)
    fake_models.write(repository, "slow", delay_seconds=0.02, config="max_batch_size: 1")
    fake_models.write(repository, "hanging", delay_seconds=1.0, config="max_batch_size: 1")
    fake_models.write(
        repository,
        "narrow",
        delay_seconds=0.3,
        config="max_batch_size: 1 dynamic_batching { default_queue_policy { max_queue_size: 1 } }",
    )
    spec = fake_models.spec()
    vowels = dataclasses.replace(spec, inputs=(TensorSpec("x", "FP32", (-1, -1, 12), steps_axis=1), *spec.inputs[1:]))
    fake_models.write(repository, "vowels", model_spec=vowels)
    with LaunchedServer(repository, *FAKE) as running:
        yield running


def counted(server: LaunchedServer, model: str, outcome: str = "success") -> float:
    return metric(server, "requests_total", model=model, outcome=outcome)


@pytest.mark.parametrize("load", [("--concurrency", "1,4"), ("--rate", "100:200:100")])
def test_it_counts_what_the_server_counts(server: LaunchedServer, tmp_path: Path, load: tuple[str, str]) -> None:
    before = counted(server, "fake")
    flags = ("--model", "fake", "--duration", "0.5", "--warm-up", "0", "--csv", str(tmp_path / "runs.csv"))
    runs = LoadTest(tmp_path, server.address, *load, *flags, "--html", str(tmp_path / "runs.html")).runs()
    assert sum(run["succeeded"] for run in runs) == counted(server, "fake") - before > 0
    for run, level in zip(runs, ([1, 4] if "--concurrency" in load else [100, 200]), strict=True):
        assert run["sent"] == run["succeeded"]
        assert (run["level"], run["model"], run["version"], run["duration_seconds"]) == (level, "fake", "1", 0.5)
        assert run["mode"] == ("closed" if "--concurrency" in load else "open")
        assert run["server"].startswith("lstm-serving ")
        assert 0 < run["latency_seconds"]["p50"] <= run["latency_seconds"]["p99"] <= run["latency_seconds"]["max"]
        assert 0 < run["server_seconds"]["compute_infer"] < run["latency_seconds"]["max"]
    lines = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    assert [int(line["succeeded"]) for line in lines] == [run["succeeded"] for run in runs]
    assert (tmp_path / "runs.html").read_text().count("<svg") == 4


def test_the_warm_up_is_sent_and_not_measured(server: LaunchedServer, tmp_path: Path) -> None:
    before = counted(server, "fake")
    flags = ("--model", "fake", "--rate", "200", "--duration", "0.3", "--warm-up", "0.3")
    (run,) = LoadTest(tmp_path, server.address, *flags).runs()
    assert counted(server, "fake") - before > run["succeeded"] > 0


def stalled(server: LaunchedServer, test: LoadTest) -> list[dict[str, Any]]:
    """Stops the server for a second in the middle of a run."""
    before = counted(server, "fake")
    until(lambda: counted(server, "fake") > before + 20)
    server.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(STALL_SECONDS)
    finally:
        server.process.send_signal(signal.SIGCONT)
    return test.runs()


def test_an_open_loop_sees_a_stall(server: LaunchedServer, tmp_path: Path) -> None:
    flags = ("--model", "fake", "--rate", "100", "--arrivals", "constant", "--duration", "3", "--warm-up", "0")
    (run,) = stalled(server, LoadTest(tmp_path, server.address, *flags))
    assert run["sent"] + run["client"]["not_sent"] == 300
    assert run["latency_seconds"]["max"] > 0.9 * STALL_SECONDS
    assert run["latency_seconds"]["p99"] > 0.8 * STALL_SECONDS
    assert run["latency_seconds"]["p90"] > 0.3 * STALL_SECONDS  # a third of the requests were due during the stall
    assert max(window["max"] or 0 for window in run["over_time"]) > 0.9 * STALL_SECONDS


def test_a_closed_loop_does_not_and_says_so(server: LaunchedServer, tmp_path: Path) -> None:
    flags = ("--model", "fake", "--concurrency", "2", "--duration", "3", "--warm-up", "0")
    (run,) = stalled(server, LoadTest(tmp_path, server.address, *flags))
    assert run["latency_seconds"]["max"] > 0.9 * STALL_SECONDS  # the two that were in flight
    assert run["latency_seconds"]["p50"] < 0.1 * STALL_SECONDS
    assert run["latency_seconds"]["p99"] < 0.8 * STALL_SECONDS
    assert any("coordinated omission" in note for note in run["notes"])


@pytest.mark.parametrize("load", [("--concurrency", "3"), ("--rate", "100")])
def test_the_vowels_as_they_were_recorded(server: LaunchedServer, tmp_path: Path, load: tuple[str, str]) -> None:
    data = Path(__file__).parents[2] / "models" / "data" / "JapaneseVowels_TEST.ts"
    before = counted(server, "vowels")
    flags = ("--model", "vowels", "--data", str(data), "--duration", "0.5", "--warm-up", "0")
    (run,) = LoadTest(tmp_path, server.address, *load, *flags).runs()
    assert run["sent"] == run["succeeded"] == counted(server, "vowels") - before > 0


def test_a_full_queue_is_counted_by_its_code(server: LaunchedServer, tmp_path: Path) -> None:
    flags = ("--model", "narrow", "--rate", "40", "--duration", "0.6", "--warm-up", "0")
    test = LoadTest(tmp_path, server.address, *flags)
    code, out, _ = test.end()
    (run,) = test.read()
    assert code == 0
    assert run["errors"] == {"UNAVAILABLE": counted(server, "narrow", "rejected")}
    assert run["succeeded"] == counted(server, "narrow") > 0
    assert "Exceeds maximum queue size" in out


def test_a_deadline_that_passes(server: LaunchedServer, tmp_path: Path) -> None:
    flags = ("--model", "hanging", "--timeout", "0.1", "--duration", "0.3", "--warm-up", "0")
    test = LoadTest(tmp_path, server.address, *flags)
    code, out, err = test.end()
    (run,) = test.read()
    assert code == 1
    assert set(run["errors"]) == {"DEADLINE_EXCEEDED"}
    assert set(run["latency_seconds"].values()) == {None}
    assert "DEADLINE_EXCEEDED" in out
    assert "lstm-loadtest: every request failed; the first error was DEADLINE_EXCEEDED" in err


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--model", "nope"), 1, "does not offer the model 'nope': INVALID_ARGUMENT: Request for unknown model"),
        (("--model", "fake", "--model-version", "9"), 1, "NOT_FOUND"),
        (("--model", "fake", "--shape", "z:3"), 2, "--shape names 'z'; the inputs of 'fake' are x"),
        (("--model", "fake", "--data", "none.npz"), 2, "none.npz does not exist"),
        (("--model", "fake", "--rate", "0"), 2, "levels are positive numbers"),
        (("--model", "fake", "--rate", "1", "--concurrency", "1"), 2, "not allowed with"),
        (("--model", "fake", "--p99-below", "5", "--concurrency", "1"), 2, "leave --concurrency out"),
        (("--model", "fake", "--streams", "2"), 2, "--streams needs --streaming"),
        (("--model", "fake", "--html", "/nowhere/a.html"), 2, "the folder of /nowhere/a.html does not exist"),
        (("--model", "fake", "--url", "localhost"), 2, "is not HOST:PORT"),
        (("--model", "fake", "--url", "127.0.0.1:1", "--timeout", "5"), 1, "no server answers at 127.0.0.1:1"),
        ((), 2, "--model"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    server: LaunchedServer, tmp_path: Path, flags: tuple[str, ...], code: int, message: str
) -> None:
    got, out, err = LoadTest(tmp_path, server.address, *flags).end()
    assert (got, out) == (code, "")
    assert err.count("\n") == 1
    assert err.startswith("lstm-loadtest: ")
    assert message in err


def test_the_search_ends_and_shows_every_trial(server: LaunchedServer, tmp_path: Path) -> None:
    flags = ("--model", "slow", "--p99-below", "300", "--rate", "20", "--duration", "0.4", "--warm-up", "0")
    test = LoadTest(tmp_path, server.address, *flags, "--timeout", "0.5")
    code, out, err = test.end()
    assert code == 0, err
    document = json.loads(test.json_file.read_text())
    found = document["search"]
    assert [trial["rate"] for trial in found["trials"]] == [run["level"] for run in document["runs"]]
    assert found["rate"] in [trial["rate"] for trial in found["trials"] if trial["held"]]
    assert found["bounded"]
    assert f"the highest rate that keeps the p99 below 300 ms is {found['rate']:.4g} requests/s" in out


def test_ctrl_c_reports_what_was_measured(server: LaunchedServer, tmp_path: Path) -> None:
    before = counted(server, "fake")
    test = LoadTest(tmp_path, server.address, "--model", "fake", "--rate", "100,200", "--duration", "60")
    until(lambda: counted(server, "fake") > before + 150)  # well beyond the warm-up
    test.process.send_signal(signal.SIGINT)
    code, out, err = test.end()
    (run,) = test.read()
    assert code == 130, err
    assert run["interrupted"]
    assert not run["errors"]
    assert 0 < run["succeeded"] <= run["sent"] < counted(server, "fake") - before
    assert 0 < run["measured_seconds"] < 60
    assert "interrupted: what was measured until then" in out


def test_a_server_that_dies_leaves_the_runs_before(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    with LaunchedServer(tmp_path, *FAKE) as server:
        flags = ("--model", "fake", "--rate", "100,200,300", "--duration", "1", "--warm-up", "0")
        test = LoadTest(tmp_path, server.address, *flags)
        until(lambda: counted(server, "fake") > 20)
        server.process.kill()
        code, _, err = test.end()
    assert code == 1
    assert "no server is live at" in err
    (run,) = test.read()
    assert run["succeeded"] > 0
    assert set(run["errors"]) == {"UNAVAILABLE"}


@pytest.mark.parametrize(("streams", "load"), [(1, ("--concurrency", "4")), (2, ("--rate", "300"))])
def test_streams(server: LaunchedServer, tmp_path: Path, streams: int, load: tuple[str, str]) -> None:
    """Sequences of their own lengths, of which one in five gets an error that leaves its stream whole."""
    values = [np.full((n + 1, fake_models.FEATURES), 13 if n == 2 else n, np.float32) for n in range(5)]
    np.savez(tmp_path / "d.npz", **{str(n): value for n, value in enumerate(values)})
    outcomes = ("success", "failed", "cancelled")
    before = {outcome: counted(server, "failing", outcome) for outcome in outcomes}
    flags = ("--model", "failing", "--streaming", "--streams", str(streams), "--data", str(tmp_path / "d.npz"))
    test = LoadTest(tmp_path, server.address, *load, *flags, "--duration", "0.5", "--warm-up", "0")
    (run,) = test.runs()
    by_server = {outcome: counted(server, "failing", outcome) - before[outcome] for outcome in outcomes}
    assert by_server == {"success": run["succeeded"], "failed": run["failed"], "cancelled": 0}
    assert run["errors"] == {"STREAM_ERROR": run["failed"]}
    assert run["succeeded"] + run["failed"] == run["sent"]
    assert abs(run["failed"] - run["sent"] / 5) < 1
    assert (run["version"], run["streams"]) == ("1", streams)
    assert 0 < run["server_seconds"]["compute_infer"] < run["latency_seconds"]["max"]


class StreamServer:
    """A server of the protocol unlike ours: (if `streams`) answers on streams, in twos and in turned order.

    Requests whose first number is negative get an error message. `shapes` are those of all requests.
    """

    def __init__(self, *, streams: bool = True) -> None:
        self.shapes: list[list[int]] = []
        self.calls = 0
        self._server = grpc.server(ThreadPoolExecutor(8))
        unary = grpc.unary_unary_rpc_method_handler
        handlers = {
            "ServerLive": unary(lambda _, __: pb.ServerLiveResponse(live=True).SerializeToString()),
            "ServerMetadata": unary(lambda _, __: pb.ServerMetadataResponse(name="small").SerializeToString()),
            "ModelMetadata": unary(lambda _, __: self._metadata()),
        }
        if streams:
            handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def __enter__(self) -> StreamServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    @staticmethod
    def _metadata() -> bytes:
        made = pb.ModelMetadataResponse(name="echo", versions=["4"])
        made.inputs.add(name="x", datatype="FP32", shape=[-1, -1, 2])
        return made.SerializeToString()

    def _stream(self, requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        self.calls += 1
        held: list[bytes] = []
        for message in requests:
            request = pb.ModelInferRequest.FromString(message)
            self.shapes.append(list(request.inputs[0].shape))
            response = pb.ModelStreamInferResponse()
            response.infer_response.id = request.id
            response.infer_response.model_version = "4"
            if np.frombuffer(request.raw_input_contents[0], np.float32)[0] < 0:
                response.error_message = "negative"
            held.insert(0, response.SerializeToString())
            if len(held) == 2:
                yield from held
                held.clear()


@pytest.mark.parametrize(("streams", "load"), [(1, ("--concurrency", "4")), (2, ("--concurrency", "8"))])
def test_streams_that_answer_in_another_order(tmp_path: Path, streams: int, load: tuple[str, str]) -> None:
    np.savez(tmp_path / "d.npz", **{str(n): np.full((n + 1, 2), 1 - 2 * (n == 2), np.float32) for n in range(5)})
    flags = ("--model", "echo", "--streaming", "--streams", str(streams), "--data", str(tmp_path / "d.npz"))
    with StreamServer() as server:
        test = LoadTest(
            tmp_path, server.address, *load, *flags, "--duration", "0.5", "--warm-up", "0", "--timeout", "1"
        )
        (run,) = test.runs()
        assert server.calls == streams
        assert len(server.shapes) == run["sent"]
        assert {tuple(shape) for shape in server.shapes} == {(1, n + 1, 2) for n in range(5)}
    negative = sum(shape == [1, 3, 2] for shape in server.shapes)
    unanswered = run["errors"].pop("DEADLINE_EXCEEDED", 0)  # the last one of a stream may wait for a second
    assert unanswered <= streams
    assert abs(run["errors"].pop("STREAM_ERROR") - negative) <= unanswered
    assert not run["errors"]
    assert run["succeeded"] + run["failed"] == run["sent"]
    assert (run["version"], run["streams"], run["server_seconds"]) == ("4", streams, None)


def test_streams_of_a_server_that_has_none(tmp_path: Path) -> None:
    with StreamServer(streams=False) as server:
        code, out, err = LoadTest(tmp_path, server.address, "--model", "echo", "--streaming").end()
    assert (code, out) == (1, "")
    assert err.startswith("lstm-loadtest: the server does not have ModelStreamInfer (UNIMPLEMENTED: ")
