"""`lstm-admin` against a small server that answers as Triton does: what is sent, what is said, and the exit code."""

from __future__ import annotations

import dataclasses
import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, text_format

from admin import __main__ as admin
from protos import grpc_service_pb2 as pb
from protos.model_config_pb2 import ModelConfig, ModelInstanceGroup

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "pytorch": "pytorch_libtorch"}
FILES = {"onnxruntime": "model.onnx", "pytorch": "model.pt"}
IN_FORCE = """
    name: "vowels" backend: "onnxruntime" platform: "onnxruntime_onnx" default_model_filename: "model.onnx"
    max_batch_size: 16
    input { name: "x" data_type: TYPE_FP32 dims: [-1, 12] }
    version_policy { latest { num_versions: 2 } }
    dynamic_batching { max_queue_delay_microseconds: 500 }
    instance_group { name: "vowels_0" kind: KIND_CPU count: 1 }
"""


class Refusal(Exception):
    """What the server below answers instead."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


@dataclasses.dataclass
class TritonLike(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A server with one model, which keeps what it was sent; `refuse` names RPCs that are refused."""

    config: ModelConfig = dataclasses.field(default_factory=lambda: text_format.Parse(IN_FORCE, ModelConfig()))
    entries: list[tuple[str, str, str, str]] = dataclasses.field(default_factory=list)
    refuse: dict[str, Refusal] = dataclasses.field(default_factory=dict)
    seen: list[Any] = dataclasses.field(default_factory=list)
    metadata: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    url: str = ""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        rpc = details.method.rpartition("/")[2]
        question = getattr(pb, SERVICE.methods_by_name[rpc].input_type.name)

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            self.metadata = list(details.invocation_metadata)
            try:
                if rpc in self.refuse:
                    raise self.refuse[rpc]
                if rpc != "ServerMetadata":
                    self.seen.append(request)
                return getattr(self, rpc)(request)
            except Refusal as refusal:
                context.abort(refusal.code, refusal.details)

        return grpc.unary_unary_rpc_method_handler(
            answer, question.FromString, lambda message: message.SerializeToString()
        )

    def ServerMetadata(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="triton-like")

    def RepositoryIndex(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        response = pb.RepositoryIndexResponse()
        for name, version, state, reason in self.entries:
            response.models.add(name=name, version=version, state=state, reason=reason)
        return response

    def ModelConfig(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        if request.name != self.config.name:
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")
        return pb.ModelConfigResponse(config=self.config)

    def RepositoryModelLoad(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        if "config" in request.parameters:
            config = json_format.Parse(request.parameters["config"].string_param, ModelConfig())
            if config.backend not in PLATFORMS:
                raise Refusal(
                    grpc.StatusCode.INVALID_ARGUMENT, f"load failed for model 'vowels':\n  no {config.backend}"
                )
            config.platform = config.platform or PLATFORMS[config.backend]
            config.default_model_filename = config.default_model_filename or FILES[config.backend]
            self.config = config
        return pb.RepositoryModelLoadResponse()

    def RepositoryModelUnload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        return pb.RepositoryModelUnloadResponse()


@pytest.fixture
def triton() -> Iterator[TritonLike]:
    there = TritonLike()
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[there])
    there.url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield there
    server.stop(None).wait()


@pytest.fixture
def asked(triton: TritonLike, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command against that server: exit code, standard output, standard error."""

    def run(*line: object) -> tuple[int, str, str]:
        try:
            code = admin.main(["--url", triton.url, "--timeout-seconds", "20", *map(str, line)])
        except SystemExit as ended:
            code = int(str(ended.code))
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


Asked = Callable[..., tuple[int, str, str]]


def sent_config(request: pb.RepositoryModelLoadRequest) -> ModelConfig:
    return json_format.Parse(request.parameters["config"].string_param, ModelConfig())


def test_the_index_as_a_table_and_for_programs(triton: TritonLike, asked: Asked) -> None:
    triton.entries = [("vowels", "1", "READY", ""), ("weather", "12", "UNAVAILABLE", "broken:\n  y differs")]
    code, out, _ = asked("index")
    assert code == 0
    assert out.splitlines() == [
        "model    version  state        reason",
        "vowels   1        READY        -",
        "weather  12       UNAVAILABLE  broken: y differs",
    ]
    code, out, _ = asked("index", "--json")
    assert json.loads(out)[1] == {
        **{"name": "weather", "version": "12", "state": "UNAVAILABLE"},
        "reason": "broken:\n  y differs",
    }
    triton.entries = []
    assert asked("index")[:2] == (0, "the repository holds no model\n")
    assert json.loads(asked("index", "--json")[1]) == []


def test_load_and_unload_name_the_model_and_send_nothing_else(triton: TritonLike, asked: Asked) -> None:
    code, out, _ = asked("load", "vowels")
    assert code == 0
    assert out.startswith("vowels: loaded in ")
    assert asked("unload", "vowels")[:2] == (0, "vowels: unloaded\n")
    assert triton.seen == [
        pb.RepositoryModelLoadRequest(model_name="vowels"),
        pb.RepositoryModelUnloadRequest(model_name="vowels"),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", '{"backend": "pytorch", "max_batch_size": 4}'),
        ("c.json", '{"backend": "pytorch", "maxBatchSize": 4}'),
        ("c.pbtxt", 'backend: "pytorch" # ours\nmax_batch_size: 4'),
    ],
)
def test_a_configuration_is_sent_as_json(
    name: str, text: str, triton: TritonLike, asked: Asked, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    assert asked("load", "vowels", "--config", tmp_path / name)[0] == 0
    (request,) = triton.seen
    assert list(request.parameters) == ["config"]
    assert json.loads(request.parameters["config"].string_param) == {"backend": "pytorch", "max_batch_size": 4}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", b'{"max_batch_sise": 4}', "c.json is no ModelConfig in JSON .*max_batch_sise"),
        (
            "c.json",
            b'backend: "pytorch"',
            "c.json is no ModelConfig in JSON .its text form would have to end with .pbtxt",
        ),
        ("c.pbtxt", b"max_batch_size: 4\nspeed: 1", "c.pbtxt is no ModelConfig in text form: 2:1 .*speed"),
        ("c.json", b"\xff", "c.json is no ModelConfig"),
        ("c.json", None, "c.json cannot be read: No such file"),
    ],
)
def test_a_configuration_that_is_none(
    name: str, content: bytes | None, message: str, triton: TritonLike, asked: Asked, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, out, err = asked("load", "vowels", "--config", tmp_path / name)
    assert (code, out, triton.seen) == (2, "", [])
    assert err.count("\n") == 1
    assert re.search(message, err)


def test_a_swap_changes_the_backend_and_keeps_the_rest(triton: TritonLike, asked: Asked) -> None:
    before = triton.config
    code, out, _ = asked("swap", "vowels", "--backend", "pytorch")
    assert code == 0
    assert out.startswith("vowels: onnxruntime on cpu -> pytorch on cpu, in ")
    read, load, again = triton.seen
    assert read == again == pb.ModelConfigRequest(name="vowels")
    expected = ModelConfig()
    expected.CopyFrom(before)
    expected.backend = "pytorch"
    expected.platform = expected.default_model_filename = ""
    assert sent_config(load) == expected


def group(text: str) -> ModelInstanceGroup:
    return text_format.Parse(text, ModelInstanceGroup())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["--device", "cuda:1"], 'name: "vowels_0" kind: KIND_GPU gpus: 1 count: 1'),
        (["--device", "cuda:0", "--count", "2"], 'name: "vowels_0" kind: KIND_GPU gpus: 0 count: 2'),
        (["--count", "3"], 'name: "vowels_0" kind: KIND_CPU count: 3'),
    ],
)
def test_a_swap_of_the_device_keeps_the_backend(
    line: list[str], expected: str, triton: TritonLike, asked: Asked
) -> None:
    assert asked("swap", "vowels", *line)[0] == 0
    sent = sent_config(triton.seen[1])
    assert list(sent.instance_group) == [group(expected)]
    assert (sent.platform, sent.default_model_filename) == ("onnxruntime_onnx", "model.onnx")


@pytest.mark.parametrize(
    ("written", "device", "count", "expected"),
    [
        ([], "cpu", None, "kind: KIND_CPU"),
        (["kind: KIND_GPU gpus: [0, 1] count: 2"], "cpu", None, "kind: KIND_CPU count: 2"),
        (
            ['name: "a" kind: KIND_GPU gpus: 0', 'name: "b" kind: KIND_CPU'],
            None,
            2,
            'name: "a" kind: KIND_GPU gpus: 0 count: 2',
        ),
    ],
)
def test_groups_of_instances(written: list[str], device: str | None, count: int | None, expected: str) -> None:
    config = ModelConfig(instance_group=[group(text) for text in written])
    assert list(admin.swapped(config, None, device, count).instance_group) == [group(expected)]
    assert list(config.instance_group) == [group(text) for text in written]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('backend: "pytorch"', "pytorch"),
        ('platform: "onnxruntime_onnx" instance_group { kind: KIND_CPU }', "onnxruntime_onnx on cpu"),
        ('backend: "pytorch" instance_group { kind: KIND_GPU gpus: [0, 1] count: 2 }', "2 x pytorch on cuda:0, cuda:1"),
        ('backend: "b" instance_group { kind: KIND_AUTO } instance_group { kind: KIND_CPU }', "b on auto and b on cpu"),
    ],
)
def test_what_computes_in_a_few_words(text: str, expected: str) -> None:
    assert admin.described(text_format.Parse(text, ModelConfig())) == expected


def test_a_server_that_refuses_is_quoted_in_one_line(triton: TritonLike, asked: Asked) -> None:
    code, out, err = asked("swap", "vowels", "--backend", "tensorrt")
    assert (code, out) == (1, "")
    assert err == (
        "lstm-admin: the server refuses RepositoryModelLoad: INVALID_ARGUMENT: load failed for model 'vowels': no tensorrt\n"
    )
    assert asked("swap", "none", "--count", "2")[2] == (
        "lstm-admin: the server refuses ModelConfig: NOT_FOUND: Request for unknown model: 'none' is not found\n"
    )


def test_a_server_that_loads_nothing_is_not_taken_for_one_that_is_not_there(triton: TritonLike, asked: Asked) -> None:
    said = "explicit model load / unload is not allowed if polling is enabled"
    triton.refuse["RepositoryModelLoad"] = Refusal(grpc.StatusCode.UNAVAILABLE, said)
    code, _, err = asked("load", "vowels")
    assert (code, err) == (1, f"lstm-admin: the server refuses RepositoryModelLoad: UNAVAILABLE: {said}\n")


def test_a_server_that_is_not_there(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert admin.main(["--url", "127.0.0.1:1", "index"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("lstm-admin: no server answers at 127.0.0.1:1: UNAVAILABLE: ")
    assert err.endswith("is it running, is that its gRPC port, and does it want TLS (--tls-ca FILE)?\n")
    assert err.count("\n") == 1


def test_an_answer_that_does_not_come(triton: TritonLike, asked: Asked) -> None:
    triton.refuse["RepositoryModelLoad"] = Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    code, _, err = asked("load", "vowels")
    assert code == 1
    assert "RepositoryModelLoad took more than 20 s (--timeout-seconds); the server may still be at it" in err


def test_a_token_goes_with_every_call(triton: TritonLike, asked: Asked, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\nsecond\n")
    assert asked("--token-file", file, "index")[0] == 0
    assert ("authorization", "Bearer first") in triton.metadata
    triton.refuse["ServerMetadata"] = Refusal(grpc.StatusCode.UNAUTHENTICATED, "no token")
    assert asked("index")[2].endswith(
        "refuses to talk: UNAUTHENTICATED: no token; give it one with --token-file FILE\n"
    )
    assert asked("--token-file", file, "index")[2].endswith("refuses to talk: UNAUTHENTICATED: no token\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["swap", "vowels"], "swap to what? Give at least one of --backend, --device and --count"),
        (["swap", "vowels", "--device", "gpu"], "'gpu' is not a device; use cpu or cuda:N"),
        (["swap", "vowels", "--count", "0"], "'0' is not a whole number from 1"),
        (["swap", "vowels", "--count", "1000000000000"], "is not a whole number from 1 to 2147483647"),
        (["swap", "vowels", "--device", "cuda:10000000000"], "is not a device; use cpu or cuda:N"),
        (["load"], "the following arguments are required: MODEL"),
        (["load", "a\nb"], "is not the name of a model"),
        (["load", "\udcff"], "'\\udcff' is not the name of a model"),
        (["shadow", "m", "--metrics-url", "file:///etc/passwd"], "'file:///etc/passwd' is not the address of metrics"),
        (["--timeout-seconds", "0", "index"], "'0' is not a time in seconds from 0.001"),
        (["--url", "8001", "index"], "'8001' is not HOST:PORT, as in localhost:8001"),
        (["--tls-cert", "c.pem", "index"], "a client certificate needs both --tls-cert and --tls-key"),
        (["--tls-ca", "none.pem", "index"], "none.pem cannot be read: No such file or directory"),
        (["--token-file", "/dev/null", "index"], "/dev/null holds no token"),
    ],
)
def test_wrong_usage(line: list[str], message: str, triton: TritonLike, asked: Asked) -> None:
    code, out, err = asked(*line)
    assert (code, out, triton.seen) == (2, "", [])
    assert message in err
    assert err.startswith("lstm-admin")
    assert err.count("\n") == 1


METRICS = """\
# HELP lstm_serving_shadow_requests_total Requests that were also sent elsewhere.
# TYPE lstm_serving_shadow_requests_total counter
lstm_serving_shadow_requests_total{model="vowels",version="1",target="torchscript on cpu",outcome="compared"} 1200
lstm_serving_shadow_requests_total{model="vowels",version="1",target="torchscript on cpu",outcome="failed"} 1
lstm_serving_shadow_requests_total{model="vowels",version="1",target="torchscript on cpu",outcome="dropped"} 34
lstm_serving_shadow_requests_total{model="vowels",version="1",target="2",outcome="dropped"} 5
lstm_serving_shadow_requests_total{model="weather",version="1",target="2",outcome="compared"} 7
# TYPE lstm_serving_shadow_requests_created gauge
lstm_serving_shadow_requests_created{model="vowels",version="1",target="2",outcome="dropped"} 1.7e+09
# TYPE lstm_serving_shadow_largest_difference gauge
lstm_serving_shadow_largest_difference{model="vowels",version="1",target="torchscript on cpu"} 2.9802322387695312e-07
lstm_serving_shadow_largest_difference{model="vowels",version="1",target="2"} 0
# TYPE lstm_serving_shadow_classes_total counter
lstm_serving_shadow_classes_total{model="vowels",version="1",target="torchscript on cpu",agree="true"} 1199
lstm_serving_shadow_classes_total{model="vowels",version="1",target="torchscript on cpu",agree="false"} 1
"""


@pytest.fixture
def metrics_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the text of the fixture's parameter is served."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(request.param.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("metrics_url", [METRICS], indirect=True)
def test_what_came_of_a_shadow(metrics_url: str, asked: Asked) -> None:
    code, out, _ = asked("shadow", "vowels", "--metrics-url", metrics_url)
    assert code == 0
    assert out.splitlines() == [
        "version  target              compared  failed  dropped  largest difference  same class",
        "1        2                   0         0       5        -                   -",
        "1        torchscript on cpu  1200      1       34       2.98e-07            99.917 % of 1200",
    ]
    code, _, err = asked("shadow", "none", "--metrics-url", metrics_url)
    assert code == 1
    assert f"{metrics_url} says nothing of a shadow of the model 'none': it has none" in err


@pytest.mark.parametrize("metrics_url", ["<html>hello</html>"], indirect=True)
def test_a_page_that_is_no_metrics(metrics_url: str, asked: Asked) -> None:
    code, _, err = asked("shadow", "vowels", "--metrics-url", metrics_url)
    assert code == 1
    assert "has no metrics to read" in err


def test_metrics_that_are_not_there(asked: Asked) -> None:
    code, _, err = asked("shadow", "vowels", "--metrics-url", "http://127.0.0.1:1/metrics")
    assert code == 1
    assert "Connection refused" in err
    assert err.count("\n") == 1
