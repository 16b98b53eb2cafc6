"""Files of others that are made stateful: their state is proved by trying, whatever its names, place, number and datatype."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from serving.batching.model import Model
from serving.errors import ModelConfigError, RepositoryError
from serving.loading import loader
from serving.repository import model_config
from serving.signature.controls import ControlInput
from tests.support import real_model, sums_kept
from tests.support.loading import request_of

EMPTY = "sequence_batching {}"
CROSSED = {"a": "z", "b": "k"}  # whose names sort in opposite orders on the two sides
PAIRS = """sequence_batching { state [
  { input_name: "b" output_name: "k" }, { input_name: "a" output_name: "z" }
] }"""
CONTROLS = """sequence_batching { control_input [
  { name: "START" control { kind: CONTROL_SEQUENCE_START %s: [ 0, 1 ] } },
  { name: "CORRID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
] }"""
TRITONS = """max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 3 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ -1, 3 ] } ]
sequence_batching {
  oldest { max_candidate_sequences: 4 preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 100 }
  state {
    input_name: "h" output_name: "hn" data_type: TYPE_FP32 dims: [ 1, 3 ]
    initial_state { name: "i" data_type: TYPE_FP32 dims: [ 1, 3 ] data_file: "first" }
  }
  control_input [ { name: "START" control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } } ]
}"""


def load(root: Path, text: str, name: str = "sums") -> Model:
    asked = dataclasses.replace(request_of(root, name), config=model_config.parse(text, name))
    model = loader.load(asked).model
    assert model.close()
    return model


def made(root: Path, text: str, pairs: Mapping[str, str], **file: Any) -> Model:
    sums_kept.write(root / "sums" / "1" / "model.onnx", pairs, **file)
    return load(root, text)


def states(model: Model) -> list[tuple[str, str, str, tuple[int, ...]]]:
    assert model.state_layout
    return [(one.input, one.output, one.dtype.str, one.shape) for one in model.state_layout.tensors]


@pytest.mark.parametrize(
    ("text", "pairs", "file", "kept"),
    [
        (EMPTY, {"h": "hn"}, {}, [("h", "hn", "<f4", (1, 3))]),
        (EMPTY, {"state": "stateN"}, {"axis": 1}, [("state", "stateN", "<f4", (1, 3))]),
        (EMPTY, {"h": "hn"}, {"datatype": "FP64", "axis": 1}, [("h", "hn", "<f8", (1, 3))]),
        (EMPTY, {f"s{i}_in": f"s{i}_out" for i in (7, 8, 9)}, {}, [(f"s{i}_in", f"s{i}_out", "<f4", (1, 3)) for i in (7, 8, 9)]),
        (PAIRS, CROSSED, {}, [("b", "k", "<f4", (1, 3)), ("a", "z", "<f4", (1, 3))]),
    ],
    ids=["plain", "rows on axis 1", "another datatype", "three", "names that sort crosswise"],
)  # fmt: skip
def test_a_file_of_others(
    text: str, pairs: dict[str, str], file: dict[str, Any], kept: list[Any], tmp_path: Path
) -> None:
    model = made(tmp_path, text, pairs, **file)
    assert states(model) == kept
    assert ([t.name for t in model.spec.advertised_inputs], [t.name for t in model.spec.advertised_outputs]) == (
        ["x"],
        ["y"],
    )
    assert model.state_layout
    digest = model.state_layout.weights_sha256
    assert len(digest) == 64
    sums_kept.write(tmp_path / "sums" / "1" / "model.onnx", pairs, mean=True, **file)
    assert loader._digest(request_of(tmp_path, "sums")) != digest


@pytest.mark.parametrize(
    ("field", "kind", "off"),
    [("fp32_false_true", "FP32", 0.0), ("int32_false_true", "INT32", 0), ("bool_false_true", "BOOL", 0)],
)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_file_that_wants_control_inputs(field: str, kind: str, off: Any, axis: int, tmp_path: Path) -> None:
    model = made(tmp_path, CONTROLS % field, {"h": "hn"}, axis=axis, start=kind, corrid="UINT64")
    assert model.spec.controls == (ControlInput("START", "start", off, 1), ControlInput("CORRID", "corrid", 0, 0))
    assert [tensor.name for tensor in model.spec.advertised_inputs] == ["x"]


@pytest.mark.parametrize(
    ("text", "pairs", "file", "said"),
    [
        (EMPTY, CROSSED, {}, "it has no state.*could be: a -> z or k, b -> z or k.*in config.pbtxt by sequence_batching { state "
         r"\[ { input_name: 'a' output_name: 'z' }, { input_name: 'b' output_name: 'k' } \] }.* --state a=z --state b=k$"),
        (EMPTY, {"h": "y1"}, {"steps": 1},
         r"could be: x -> y or y1, h -> y or y1\).*output_name: 'OUTPUT' } \] }.*--state INPUT=OUTPUT$"),
        (PAIRS.replace('"k"', '"q"').replace('"z"', '"k"').replace('"q"', '"z"'), CROSSED, {},
         "otherwise than to the whole, as trying has shown"),
        (EMPTY, {"h": "hn"}, {"mean": True}, "otherwise than to the whole, as trying has shown"),
        (CONTROLS % "int32_false_true", {"h": "hn"}, {"start": "BOOL", "corrid": "UINT64"},
         "control_input 'START' holds TYPE_INT32; the model's input is TYPE_BOOL"),
        (CONTROLS % "int32_false_true", {"h": "hn"}, {}, "control_input names the input 'START', which the model has not"),
        (PAIRS, {"h": "hn"}, {}, "state names the input 'b', which the model has not; it has x, h"),
    ],
)  # fmt: skip
def test_why_a_file_of_others_cannot_be_stateful(
    text: str, pairs: dict[str, str], file: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelConfigError, match=f"'sums': sequence_batching.*{said}"):
        made(tmp_path, text, pairs, **file)


@pytest.mark.parametrize(
    ("pairs", "text", "steps", "told"),
    [
        ({"h": "hn", "c": "cn"}, EMPTY, "n", "h->hn, c->cn"),
        ({"h": "hn", "c": "cn"}, EMPTY, 1, "h->hn, c->cn (pairs not proved: one step a call)"),
        ({"h": "hn"}, "", 1, None),
    ],
)
def test_the_index_and_the_log_say_what_goes_on_as_what(
    pairs: dict[str, str], text: str, steps: Any, told: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    model = made(tmp_path, text, pairs, steps=steps)
    found = model.config.parameters
    assert (found["lstm_serving.stateful"].string_value if "lstm_serving.stateful" in found else None) == told
    (loaded,) = [record for record in caplog.records if record.message == "loaded"]
    assert loaded.__dict__["fields"].get("stateful") == told


def test_controls_that_nobody_has_declared_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, EMPTY, {"h": "hn"}, steps=1, start="FP32", corrid="UINT64")
    (warned,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    declare = warned.partition(" by ")[2]
    caplog.clear()
    model = made(tmp_path, declare, {"h": "hn"}, steps=1, start="FP32", corrid="UINT64")
    assert [control.input for control in model.spec.controls] == ["START", "CORRID"]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_controls_that_nobody_has_declared_may_be_why_it_cannot_be_stateful(tmp_path: Path) -> None:
    with pytest.raises(
        ModelConfigError, match=r"trying has shown.*named as controls are: .* \{ name: 'START' control "
    ):
        made(tmp_path, EMPTY, {"h": "hn"}, start="FP32")


def initial(root: Path) -> None:
    (root / "sums" / "initial_state").mkdir(parents=True)
    (root / "sums" / "initial_state" / "first").write_bytes(np.array([1, 2, 3], "<f4").tobytes())


@pytest.mark.parametrize(
    "text",
    [
        TRITONS,
        TRITONS.replace("output [", 'output [ { name: "hn" data_type: TYPE_FP32 dims: [ 1, 3 ] }, '),
        TRITONS.replace("input [ ", 'input [ { name: "h" data_type: TYPE_FP32 dims: [ 1, 3 ] }, ', 1),
    ],
    ids=["as Triton has it", "the state shown", "the state among the inputs"],
)
def test_a_configuration_of_triton_is_read_and_can_be_written_back(text: str, tmp_path: Path) -> None:
    initial(tmp_path)
    model = made(tmp_path, text, {"h": "hn"}, start="FP32")
    assert model.state_layout
    np.testing.assert_array_equal(model.state_layout.tensors[0].initial, [[1, 2, 3]])
    assert [tensor.name for tensor in model.spec.advertised_inputs] == ["x"]
    assert model.spec.state_shown == (("hn",) if "shown" in text or text.count('"hn"') > 1 else ())
    again = load(tmp_path, text_format.MessageToString(model.config))
    assert again.config == model.config or [
        key for key in model.config.parameters if model.config.parameters[key] != again.config.parameters[key]
    ] == ["lstm_serving.chosen"]
    assert (again.sequence_policy, again.spec.controls) == (model.sequence_policy, model.spec.controls)


def test_another_initial_state_is_another_model(tmp_path: Path) -> None:
    initial(tmp_path)
    sums_kept.write(tmp_path / "sums" / "1" / "model.onnx", {"h": "hn"}, start="FP32")
    asked = dataclasses.replace(request_of(tmp_path, "sums"), config=model_config.parse(TRITONS, "sums"))
    before = asked.identity()
    assert asked.identity() == before
    file = tmp_path / "sums" / "initial_state" / "first"
    file.write_bytes(bytes(16))
    assert asked.identity() != before
    file.unlink()
    with pytest.raises(RepositoryError, match="there is no file 'first' in the folder initial_state"):
        loader.load(asked)


@pytest.mark.parametrize("backend", ["onnxruntime", "pytorch", "tensorflow"])
def test_a_network_of_our_own(backend: str, tmp_path: Path) -> None:
    real_model.write(tmp_path)
    model = load(tmp_path, f'backend: "{backend}" {EMPTY}', "real")
    assert [(one.input, one.output) for one in model.state_layout.tensors] == [("h0", "hn"), ("c0", "cn")]  # type: ignore[union-attr]
    assert model.verified
