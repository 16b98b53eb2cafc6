"""`lstm-admin` against a small server that answers as Triton does: what is sent, what is said, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf import json_format, text_format

from protos import grpc_service_pb2 as pb
from protos.model_config_pb2 import ModelConfig, ModelInstanceGroup
from tests.unit.admin.triton_like import Asked, TritonLike


def sent_config(request: pb.RepositoryModelLoadRequest) -> ModelConfig:
    return json_format.Parse(request.parameters["config"].string_param, ModelConfig())


def test_the_index_as_a_table_and_for_programs(triton: TritonLike, asked: Asked) -> None:
    triton.entries = [("vowels", "1", "READY", ""), ("weather", "12", "UNAVAILABLE", "broken:\n  y differs")]
    code, out, _ = asked("index")
    assert code == 0
    assert out.splitlines() == [
        "model    version  state        backend      device  instances  reason",
        "vowels   1        READY        onnxruntime  cpu     1          -",
        "weather  12       UNAVAILABLE  -            -       -          broken: y differs",
    ]
    assert triton.seen[1] == pb.ModelConfigRequest(name="vowels", version="1")
    code, out, _ = asked("index", "--json")
    columns = ("backend", "device", "instances", "batched", "chosen", "tolerance", "verified", "stateful", "measured")
    unknown = dict.fromkeys((*columns, "labels"), "")
    assert json.loads(out)[1] == {
        **{"name": "weather", "version": "12", "state": "UNAVAILABLE"},
        **{"reason": "broken:\n  y differs"},
        **unknown,
    }
    triton.entries = []
    assert asked("index")[:2] == (0, "the repository holds no model\n")
    assert json.loads(asked("index", "--json")[1]) == []


def test_load_and_unload_name_the_model_and_send_nothing_else(triton: TritonLike, asked: Asked) -> None:
    code, out, _ = asked("load", "vowels")
    assert code == 0
    assert out.startswith("vowels: loaded in ")
    triton.entries = [("vowels", "1", "READY", ""), ("weather", "", "", "")]
    assert asked("unload", "vowels")[:2] == (0, "vowels: unloaded\n")
    assert triton.seen == [
        pb.RepositoryModelLoadRequest(model_name="vowels"),
        pb.RepositoryIndexRequest(),
        pb.RepositoryModelUnloadRequest(model_name="vowels"),
    ]
    assert asked("unload", "weather")[:2] == (0, "weather: was not loaded\n")


def test_a_name_that_never_was_cannot_be_unloaded(triton: TritonLike, asked: Asked) -> None:
    triton.entries = [("vowels", "1", "READY", ""), ("vowels", "2", "READY", ""), ("weather", "", "", "")]
    code, out, err = asked("unload", "wether")
    assert (code, out) == (1, "")
    assert err == "lstm-admin: there is no model 'wether' to unload; the server knows vowels, weather\n"
    assert triton.seen == [pb.RepositoryIndexRequest()]


def test_what_was_done_for_programs(triton: TritonLike, asked: Asked) -> None:
    triton.entries = [("vowels", "1", "READY", "")]
    loaded = json.loads(asked("load", "vowels", "--json")[1])
    assert (loaded["model"], loaded["seconds"] >= 0) == ("vowels", True)
    swapped = json.loads(asked("swap", "vowels", "--backend", "torchscript", "--json")[1])
    assert (swapped["before"], swapped["after"]) == ("onnxruntime on cpu", "pytorch on cpu")
    assert json.loads(asked("unload", "vowels", "--json")[1]) == {"model": "vowels", "was_loaded": True}


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


def test_a_swap_to_auto_goes_back_to_the_repository(triton: TritonLike, asked: Asked) -> None:
    assert asked("swap", "vowels", "--backend", "auto")[0] == 0
    assert "config" not in triton.seen[1].parameters
    code, _, told = asked("swap", "vowels", "--backend", "auto", "--count", "2")
    assert (code, "leave --device and --count out" in told) == (2, True)


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
    assert list(sent.instance_group) == [text_format.Parse(expected, ModelInstanceGroup())]
    assert (sent.platform, sent.default_model_filename) == ("onnxruntime_onnx", "model.onnx")


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


@pytest.mark.parametrize("file", ['{"max_batch_sise": 4}', None], ids=["unknown field", "no file"])
def test_a_configuration_that_is_none_is_not_sent(
    file: str | None, triton: TritonLike, asked: Asked, tmp_path: Path
) -> None:
    if file is not None:
        (tmp_path / "c.json").write_text(file)
    code, out, err = asked("load", "vowels", "--config", tmp_path / "c.json")
    assert (code, out, triton.seen) == (2, "", [])
    assert err.startswith(f"lstm-admin: {tmp_path}/c.json ")
    assert err.count("\n") == 1


def test_a_shadow_is_looked_for_in_the_metrics_and_nowhere_else(triton: TritonLike, asked: Asked) -> None:
    code, out, err = asked("shadow", "vowels", "--metrics-url", "http://127.0.0.1:1/metrics")
    assert (code, out, triton.seen) == (1, "", [])
    assert err.startswith("lstm-admin: http://127.0.0.1:1/metrics has no metrics to read: ")
    assert err.count("\n") == 1
