"""What an index tells of a version, from its configuration; as a table and for programs."""

from __future__ import annotations

import json

import grpc
import pytest
from google.protobuf import text_format

from admin import index
from protos.model_config_pb2 import ModelConfig
from tests.unit.admin.triton_like import Asked, Refusal, TritonLike

OURS = """
    backend: "onnxruntime" instance_group { kind: KIND_GPU gpus: [0, 1] count: 2 }
    parameters { key: "lstm_serving.backend" value { string_value: "onnx_runtime" } }
    parameters { key: "lstm_serving.device" value { string_value: "cuda:0,cuda:1" } }
    parameters { key: "lstm_serving.tolerance" value { string_value: "1e-05" } }
    parameters { key: "lstm_serving.later" value { string_value: "unknown" } }
    parameters { key: "labels" value { string_value: "no key of ours" } }
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", {}),
        ('platform: "pytorch_libtorch"', {"backend": "pytorch_libtorch"}),
        (
            'backend: "pytorch" instance_group { kind: KIND_CPU count: 2 }',
            {"backend": "pytorch", "device": "cpu", "instances": "2"},
        ),
        (OURS, {"backend": "onnx_runtime", "device": "cuda:0,cuda:1", "instances": "4", "tolerance": "1e-05"}),
    ],
)
def test_what_a_configuration_says(text: str, told: dict[str, str]) -> None:
    assert index.of_config(text_format.Parse(text, ModelConfig())) == dict.fromkeys(index.OF_CONFIG, "") | told


def entry(**said: str) -> dict[str, str]:
    return dict.fromkeys((*index.ALWAYS, *index.OF_CONFIG), "") | said


def test_columns_that_nothing_fills_are_left_out() -> None:
    found = [entry(name="a", version="1", state="READY", labels="stable"), entry(name="b", reason="two\nlines")]
    assert index.as_table(found).splitlines() == [
        "model  version  state  labels  reason",
        "a      1        READY  stable  -",
        "b      -        -      -       two lines",
    ]
    assert json.loads(index.as_json(found)) == found
    assert index.as_table([]) == "the repository holds no model"


def test_a_version_that_tells_no_configuration_is_listed_all_the_same(triton: TritonLike, asked: Asked) -> None:
    triton.entries = [("gone", "1", "READY", "")]
    triton.refuse["ModelConfig"] = Refusal(grpc.StatusCode.UNIMPLEMENTED, "no such call")
    code, out, _ = asked("index")
    assert (code, out.splitlines()) == (0, ["model  version  state  reason", "gone   1        READY  -"])


def test_of_many_models_some_can_be_asked_for(triton: TritonLike, asked: Asked) -> None:
    triton.entries = [(name, "1", "READY", "") for name in ("a", "b", "c")]
    code, out, _ = asked("index", "c", "a")
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, ["model", "a", "c"])
    assert [one.name for one in triton.seen[1:]] == ["a", "c"]
    code, out, err = asked("index", "a", "z")
    assert (code, out, err) == (1, "", "lstm-admin: there is no model 'z'; the server knows a, b, c\n")
