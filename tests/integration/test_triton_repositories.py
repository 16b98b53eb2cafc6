"""Repositories as Triton's users have them: their fields, labels, scalars, strings and shapes, in two folders at a time."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import text_format

from protos import model_config_pb2 as pb
from serving.launch import LaunchedServer
from serving.signature.spec import ModelSpec
from tests.support import commands, fake_models, graphs
from tests.support.arrays import infer
from tests.support.wire import RawClient

# As docs/examples/model_repository/densenet_onnx of triton-inference-server/server has it, smaller, with what users add.
PICTURES = """
name: "pictures"
platform: "onnxruntime_onnx"
max_batch_size : 0
input [ { name: "data_0" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 4, 4 ] reshape { shape: [ 1, 3, 4, 4 ] } } ]
output [ { name: "fc6_1" data_type: TYPE_FP32 dims: [ 3 ] reshape { shape: [ 1, 3, 1, 1 ] } label_filename: "colours.txt" } ]
optimization { execution_accelerators { gpu_execution_accelerator : [ { name : "tensorrt" } ] } }
model_transaction_policy { decoupled: false }
"""
SCALARS = """
max_batch_size: 0
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }, { name: "gain" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ]
"""
PARTLY = """
max_batch_size: 8
input { name: "p" data_type: TYPE_FP32 dims: [ 3, -1, -1 ] }
output { name: "q" data_type: TYPE_FP32 dims: [ 3, 1, 1 ] }
"""
MANY_PICTURES = """
max_batch_size: 8
input { name: "p" data_type: TYPE_FP32 dims: [ 48 ] reshape { shape: [ 3, 4, 4 ] } }
output { name: "q" data_type: TYPE_FP32 dims: [ 3 ] reshape { shape: [ 3, 1, 1 ] } }
"""
STRINGS = """
max_batch_size: 8
input [ { name: "INPUT0" data_type: TYPE_STRING dims: [ -1 ] }, { name: "INPUT1" data_type: TYPE_STRING dims: [ -1 ] } ]
output [ { name: "SAME" data_type: TYPE_STRING dims: [ -1 ] }, { name: "KIND" data_type: TYPE_INT64 dims: [ -1 ] } ]
"""

ABC = {"keys_strings": ["ABC"], "values_int64s": [1], "default_int64": 0}


def texts(*rows: list[str]) -> Any:
    return np.array([[text.encode() for text in row] for row in rows], object)


def pictures(path: Path) -> None:
    graphs.write(
        path,
        [("GlobalAveragePool", ["data_0"], ["fc6_1"])],
        {"data_0": ("FP32", [1, 3, 4, 4])},
        {"fc6_1": ("FP32", [1, 3, 1, 1])},
    )


def strings(path: Path) -> None:
    """Strings in, strings out, and a number for each that the file knows."""
    labels = {"keys_strings": ["yes", "no"], "values_int64s": [1, 2], "default_int64": -1}
    graphs.write(
        path,
        [("Identity", ["INPUT0"], ["SAME"]), ("ml.LabelEncoder", ["INPUT1"], ["KIND"], labels)],
        {name: ("BYTES", ["rows", "size"]) for name in ("INPUT0", "INPUT1")},
        {"SAME": ("BYTES", ["rows", "size"]), "KIND": ("INT64", ["rows", "size"])},
    )


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    pictures(first / "pictures/1/model.onnx")
    (first / "pictures/config.pbtxt").write_text(PICTURES)
    (first / "pictures/colours.txt").write_text("red\ngreen\nblue\n")
    graphs.write(
        first / "scalars/1/model.onnx",
        [("ReduceSum", ["x"], ["sum"], {"keepdims": 0}), ("Mul", ["sum", "gain"], ["y"])],
        {"x": ("FP32", ["size"]), "gain": ("FP32", [])},
        {"y": ("FP32", [])},
    )
    (first / "scalars/config.pbtxt").write_text(SCALARS)
    strings(second / "strings/1/model.onnx")
    (second / "strings/config.pbtxt").write_text(STRINGS)
    graphs.write(
        second / "wide/1/model.onnx",
        [("GlobalAveragePool", ["p"], ["q"]), ("GlobalMaxPool", ["p"], ["unserved"])],
        {"p": ("FP32", ["rows", 3, "height", "width"])},
        {"q": ("FP32", ["rows", 3, 1, 1]), "unserved": ("FP32", ["rows", 3, 1, 1])},
    )
    (second / "wide/config.pbtxt").write_text(PARTLY)
    graphs.write(
        second / "many/1/model.onnx",
        [("GlobalAveragePool", ["p"], ["q"])],
        {"p": ("FP32", ["rows", 3, 4, 4])},
        {"q": ("FP32", ["rows", 3, 1, 1])},
    )
    (second / "many/config.pbtxt").write_text(MANY_PICTURES)
    for each in (first, second):
        pictures(each / "both/1/model.onnx")
    return first, second


@pytest.fixture(scope="module")
def server(repositories: tuple[Path, Path], edge: str) -> Iterator[LaunchedServer]:
    first, second = repositories
    with LaunchedServer(first, "--model-repository", str(second), "--max-steps", "8") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: LaunchedServer) -> RawClient:
    return RawClient(server.address)


def test_both_repositories_are_served_but_for_the_name_that_both_have(client: RawClient) -> None:
    states = client.index()
    ready = {f"{name}/1" for name in ("many", "pictures", "scalars", "strings", "wide")}
    assert {name for name, (state, _) in states.items() if state == "READY"} == ready
    ((state, reason),) = (told for name, told in states.items() if name.startswith("both"))
    assert state == "UNAVAILABLE"
    assert "model appears in two or more repositories: " in reason


def test_pictures_are_reshaped_and_labelled(client: RawClient) -> None:
    picture = np.arange(48, dtype=np.float32).reshape(3, 4, 4)
    means = picture.mean((1, 2))
    answer = infer(client, "pictures", {"data_0": picture})
    np.testing.assert_allclose(answer["fc6_1"], means, rtol=1e-6)
    best = infer(client, "pictures", {"data_0": picture}, {"fc6_1": 2})
    assert best["fc6_1"].tolist() == [b"39.500000:2:blue", b"23.500000:1:green"]
    metadata = client.call("ModelMetadata", name="pictures")
    assert [list(tensor.shape) for tensor in (*metadata.inputs, *metadata.outputs)] == [[3, 4, 4], [3]]
    config = client.call("ModelConfig", name="pictures").config
    asked = text_format.Parse(PICTURES, pb.ModelConfig())
    assert (config.input[0], config.output[0]) == (asked.input[0], asked.output[0])
    with pytest.raises(grpc.RpcError, match=r"Expected \[3,4,4\], got \[1,3,4,4\]"):
        infer(client, "pictures", {"data_0": picture[None]})


def test_several_pictures_are_reshaped_one_by_one(client: RawClient) -> None:
    """The file says nothing of its rows: what is reshaped is known when they have been found."""
    sent = np.arange(96, dtype=np.float32).reshape(2, 48)
    np.testing.assert_allclose(infer(client, "many", {"p": sent})["q"], sent.reshape(2, 3, 16).mean(2), rtol=1e-6)


def test_what_changes_no_answer_is_told_once(server: LaunchedServer) -> None:
    (told,) = (entry for entry in server.log() if entry["message"].startswith("accepted, and changes no answer here"))
    assert told["level"] == "warning"
    assert told["fields"] == ["optimization.execution_accelerators.gpu_execution_accelerator.name"]
    assert told["model"] == "pictures"


def test_one_element_stands_for_a_scalar(client: RawClient) -> None:
    x = np.array([1, 2, 3.5], np.float32)
    answer = infer(client, "scalars", {"x": x, "gain": np.array([2], np.float32)})
    assert (answer["y"].shape, answer["y"].tolist()) == ((1,), [13.0])
    assert list(client.call("ModelMetadata", name="scalars").outputs[0].shape) == [1]


def test_strings_go_in_and_come_out(client: RawClient) -> None:
    sent = texts(["", "é€", "a\0b"], ["x" * 300, "yes", "no"])
    answer = infer(client, "strings", {"INPUT0": sent, "INPUT1": sent})
    assert answer["SAME"].tolist() == sent.tolist()
    assert answer["KIND"].tolist() == [[-1, -1, -1], [-1, 1, 2]]


def test_empty_tensors_are_answered_as_the_runtime_does(client: RawClient) -> None:
    empty = np.empty((2, 0), object)
    answer = infer(client, "strings", {"INPUT0": empty, "INPUT1": empty})
    assert (answer["SAME"].shape, answer["KIND"].shape) == ((2, 0), (2, 0))
    nothing = infer(client, "scalars", {"x": np.zeros(0, np.float32), "gain": np.array([2], np.float32)})
    assert nothing["y"].tolist() == [0.0]
    with pytest.raises(grpc.RpcError, match="an input is empty, which the model does not take") as refused:
        infer(client, "wide", {"p": np.zeros((1, 3, 0, 5), np.float32)})
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_picture_is_not_counted_in_steps(client: RawClient) -> None:
    picture = np.ones((1, 3, 50, 60), np.float32)
    assert infer(client, "wide", {"p": picture})["q"].tolist() == [[[[1.0]], [[1.0]], [[1.0]]]]
    assert [output.name for output in client.call("ModelMetadata", name="wide").outputs] == ["q"]


def test_a_probe_at_the_metrics_port_is_told_that_it_is_wrong(server: LaunchedServer) -> None:
    host, _, rest = server.metrics_url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(rest.removesuffix("/metrics")), timeout=10)
    for path, status in (("/v2/health/ready", 404), ("/metrics", 200), ("/", 404)):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()


@pytest.mark.parametrize(
    ("operators", "given", "shape", "asked", "told"),
    [
        (
            [("Cast", ["s"], ["y"], {"to": 1})],
            ["--value", "s=2.5"],
            ["rows", "size"],
            {"s": texts(["1", "-2.5"], ["1e3", "0"])},
            [[1.0, -2.5], [1000.0, 0.0]],
        ),
        (
            [
                ("StringNormalizer", ["s"], ["t"], {"case_change_action": "UPPER", "locale": "C"}),
                ("ml.LabelEncoder", ["t"], ["y"], ABC),
            ],
            ["--value", "s=abc"],
            ["size"],
            {"s": texts(["abc", "aBc", "x"])[0]},
            [1, 1, 0],
        ),
    ],
    ids=["rows of numbers", "one text without rows"],
)
def test_files_of_strings_are_imported_and_verified(
    operators: Any, given: list[str], shape: Any, asked: Mapping[str, Any], told: list[Any], tmp_path: Path
) -> None:
    kind = "INT64" if len(operators) > 1 else "FP32"
    file = graphs.write(tmp_path / "s.onnx", operators, {"s": ("BYTES", shape)}, {"y": (kind, shape)})
    done = commands.export("import", file, "--repository", tmp_path / "r", "--name", "m", *given)
    assert done.returncode == 0, done.stderr
    assert ModelSpec.read(tmp_path / "r/m/1/spec.json").inputs[0].datatype == "BYTES"
    with LaunchedServer(tmp_path / "r", "--require-verified") as server, RawClient(server.address) as client:
        assert infer(client, "m", asked)["y"].tolist() == told
        bad = np.array(asked["s"], object)
        bad.flat[0] = b"\xff"
        with pytest.raises(grpc.RpcError, match="is not UTF-8"):
            infer(client, "m", {"s": bad})


def test_nan_is_refused_unless_the_operator_lets_it_pass(tmp_path: Path) -> None:
    fake_models.write(tmp_path, "refuses")
    fake_models.write(tmp_path, "passes", config=fake_models.parameters({"nonfinite": "pass"}))
    with LaunchedServer(tmp_path, "--backend", "fake") as server, RawClient(server.address) as client:
        with pytest.raises(grpc.RpcError) as refused:
            client.infer("refuses", float("nan"))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "input 'x' for model 'refuses' holds nan in row 0, step 0" in refused.value.details()
        assert np.isnan(client.infer("passes", float("nan"))).all()
        assert client.infer("refuses").tolist() == [6, 6]
