"""What is kept of each sequence, completed from a version's files, and what contradicts them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from protos import model_config_pb2 as pb
from serving.batching.policy import BatchPolicy
from serving.errors import ModelConfigError
from serving.repository import model_config, queue_policies, state_layouts
from serving.repository.config_in_force import config_in_force, policy_for
from serving.repository.state_layouts import made_stateful
from serving.sequences.policy import StateLayout
from serving.signature.controls import ControlInput
from serving.signature.spec import ModelSpec, StatePair
from serving.signature.tensors import BF16, TensorSpec
from tests.support import fake_models
from tests.support.foreign_specs import ALONE, SHARED

NOWHERE = Path("nowhere")
PLAIN = fake_models.spec()
CONTROLLED = dataclasses.replace(
    PLAIN,
    inputs=(
        *PLAIN.inputs,
        TensorSpec("first", "FP32", (-1, 1)),
        TensorSpec("whose", "UINT64", (-1,)),
        TensorSpec("rate", "FP32", (-1,), rows_axis=None),
        TensorSpec("wide", "FP32", (-1, 2)),
    ),
)


def foreign(shape: tuple[int, ...] = (-1, 2, 4), datatype: str = "FP32", **changes: Any) -> ModelSpec:
    """One merged state, its rows on axis 1 in the file."""
    fields = {
        "inputs": (TensorSpec("x", "FP32", (-1, 3)), TensorSpec("state", datatype, shape, rows_axis=1)),
        "outputs": (TensorSpec("y", "FP32", (-1, 1)), TensorSpec("stateN", datatype, shape, rows_axis=1)),
    }
    return dataclasses.replace(SHARED, **(fields | changes))


def made(text: str, spec: ModelSpec = PLAIN, folder: Path = NOWHERE) -> tuple[ModelSpec, StateLayout]:
    return made_stateful(spec, model_config.parse(text, "m"), folder, "a digest")


def test_the_state_is_the_versions_own_and_begins_with_zeros() -> None:
    spec, layout = made("sequence_batching {}")
    assert [(one.input, one.output, one.shape, one.dtype) for one in layout.tensors] == [
        ("h0", "hn", (1, 4), np.float32),
        ("c0", "cn", (1, 4), np.float32),
    ]
    assert not any(one.initial.any() for one in layout.tensors)
    assert (layout.bytes_each, layout.weights_sha256) == (32, PLAIN.weights_sha256)
    assert spec == PLAIN


def test_of_files_of_others_the_state_is_hidden_from_clients() -> None:
    spec, layout = made("sequence_batching {}", foreign())
    assert [tensor.name for tensor in spec.advertised_inputs] == ["x"]
    assert [tensor.name for tensor in spec.advertised_outputs] == ["y"]
    assert [(one.input, one.shape) for one in layout.tensors] == [("state", (2, 4))]
    assert layout.weights_sha256 == "a digest"


def test_a_state_output_that_is_listed_is_given_unasked() -> None:
    text = "sequence_batching {} output [ { name: 'y' }, { name: 'stateN' } ]"
    assert made(text, foreign())[0].state_shown == ("stateN",)


@pytest.mark.parametrize(("datatype", "dtype"), [("FP16", "<f2"), ("INT64", "<i8"), ("BF16", BF16), ("BOOL", "?")])
def test_state_of_other_datatypes(datatype: str, dtype: Any) -> None:
    (tensor,) = made("sequence_batching {}", foreign(datatype=datatype))[1].tensors
    assert (tensor.dtype, tensor.initial.shape) == (np.dtype(dtype), (2, 4))


def test_a_state_that_is_said_is_the_versions_own_and_the_others_are_completed() -> None:
    text = """sequence_batching { state { input_name: "h0" output_name: "hn" data_type: TYPE_FP32 dims: [ 1, 4 ] } }"""
    (spec, layout), (plain, completed) = made(text), made("sequence_batching {}")
    assert (spec, layout.shapes) == (plain, completed.shapes)


def test_dims_may_leave_free_what_the_file_fixes() -> None:
    text = "sequence_batching { state { input_name: 'h0' output_name: 'hn' dims: [ -1, 4 ] } }"
    assert made(text)[1].tensors[0].shape == (1, 4)


def test_an_initial_state_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "initial_state").mkdir()
    values = np.arange(8, dtype="<f2").reshape(2, 4)
    (tmp_path / "initial_state" / "first.raw").write_bytes(values.tobytes())
    text = """sequence_batching { state { input_name: "state" output_name: "stateN"
        initial_state { name: "of training" data_type: TYPE_FP16 dims: [ 2, 4 ] data_file: "first.raw" } } }"""
    spec, layout = made(text, foreign(datatype="FP16"), tmp_path)
    np.testing.assert_array_equal(layout.tensors[0].initial, values)
    assert not layout.tensors[0].initial.flags.writeable
    assert state_layouts.files(model_config.parse(text, "m"), tmp_path) == (tmp_path / "initial_state" / "first.raw",)
    assert spec.state_inputs == ("state",)


CONTROLS = """
sequence_batching { control_input [
  { name: "first" control { fp32_false_true: [ 0, 1 ] } },
  { name: "whose" control { kind: CONTROL_SEQUENCE_CORRID } }
] }
"""


def test_controls_are_hidden_and_an_id_has_the_datatype_of_the_file() -> None:
    spec, _ = made(CONTROLS, CONTROLLED)
    assert spec.controls == (ControlInput("first", "start", 0.0, 1.0), ControlInput("whose", "corrid", 0, 0))
    assert [tensor.name for tensor in spec.advertised_inputs] == ["x", "rate", "wide"]
    names = tuple(
        dataclasses.replace(one, datatype="BYTES") if one.name == "whose" else one for one in CONTROLLED.inputs
    )
    assert made(CONTROLS, dataclasses.replace(CONTROLLED, inputs=names))[0].controls[1].off == ""


def test_made_of_its_own_result_it_is_the_same() -> None:
    once, _ = made(CONTROLS, CONTROLLED)
    assert made(CONTROLS, once)[0] == once


def test_a_model_that_takes_one_row_at_a_time() -> None:
    spec = dataclasses.replace(
        ALONE,
        inputs=(*ALONE.inputs, TensorSpec("h", "FP32", (1, 4), None)),
        outputs=(*ALONE.outputs, TensorSpec("hn", "FP32", (1, 4), None)),
        state=(StatePair("h", "hn"),),
    )
    config = model_config.parse("sequence_batching {}", "m")
    stateful, layout = made_stateful(spec, config, NOWHERE)
    assert layout.tensors[0].shape == (4,)
    assert policy_for(config, stateful) == BatchPolicy(max_rows=1, dynamic=False)


def state(text: str) -> str:
    return f"sequence_batching {{ state {{ {text} }} }}"


def control(name: str, text: str = "fp32_false_true: [ 0, 1 ]") -> str:
    return f"sequence_batching {{ control_input {{ name: '{name}' control {{ {text} }} }} }}"


PAIR = "input_name: 'h0' output_name: 'hn'"


@pytest.mark.parametrize(
    ("text", "spec", "said"),
    [
        ("sequence_batching {}", dataclasses.replace(PLAIN, streamable=False), "cannot be stateful: fed in pieces"),
        (
            "sequence_batching {}",
            dataclasses.replace(PLAIN, streamable=False, source={"network": {"bidirectional": True}}),
            r"cannot be stateful: it reads its steps in both directions \(bidirectional\).*fed in pieces: of one direction",
        ),
        ("sequence_batching {}", dataclasses.replace(PLAIN, state=()), "it has no state.*exported, by --state h0=hn "),
        (
            "sequence_batching {}",
            dataclasses.replace(PLAIN, state=(), inputs=PLAIN.inputs[:2], outputs=PLAIN.outputs[:1]),
            r"or let it take its state as an input and give the next value as an output: none of its outputs \(y\)",
        ),
        (
            state("input_name: 'q' output_name: 'hn'"),
            PLAIN,
            "names the input 'q', which the model has not; it has x, l",
        ),
        (
            state("input_name: 'h0' output_name: 'q'"),
            PLAIN,
            "names the output 'q', which the model has not; it has y, h",
        ),
        (
            state("input_name: 'h0' output_name: 'cn'"),
            PLAIN,
            "state 'h0' is said to go on as 'cn'; the model's goes on as 'hn'",
        ),
        (
            state(PAIR),
            dataclasses.replace(PLAIN, state=()),
            "said to go on as 'hn', which nobody has proved: spec.json knows no state; .*import FILE --state h0=hn",
        ),
        (state(f"{PAIR} data_type: TYPE_FP16"), PLAIN, "state 'h0' is TYPE_FP16; the model's is TYPE_FP32"),
        (state(f"{PAIR} dims: [ 4 ]"), PLAIN, r"state 'h0' has dims \[4\]; the model's are \[1, 4\]"),
        (
            state(f"{PAIR} initial_state {{ zero_data: true data_type: TYPE_INT8 }}"),
            PLAIN,
            "state 'h0': its initial_state is TYPE_INT8; the model's is TYPE_FP32",
        ),
        (
            state(f"{PAIR} initial_state {{ zero_data: true dims: [ 2, 1, 4 ] }}"),
            PLAIN,
            r"its initial_state has dims \[2, 1, 4\]; the model's are \[1, 4\] \(the rows are left out\)",
        ),
        (
            state(f"{PAIR} initial_state {{ data_file: 'f' }}"),
            PLAIN,
            "there is no file 'f' in the folder initial_state beside the versions",
        ),
        (
            state(f"{PAIR} initial_state {{ data_file: '../../f' }}"),
            PLAIN,
            "there is no file '../../f' in the folder initial_state",
        ),
        (
            "sequence_batching {}",
            foreign((-1, -1, 4)),
            r"state 'state' has the sizes \[-1, 4\] behind the rows: a free one \(-1\) gives it no size",
        ),
        ("sequence_batching {}", foreign(datatype="BYTES"), r"state 'state' holds strings \(BYTES\)"),
        (
            "sequence_batching {}",
            foreign(
                inputs=(TensorSpec("x", "FP32", (-1, 3)), TensorSpec("state", "FP32", (-1, 2, 4), rows_axis=None)),
            ),
            "state 'state' has no axis of rows: all rows of a batch would share it",
        ),
        (
            "sequence_batching {}",
            foreign(outputs=(TensorSpec("y", "FP32", (-1, 1)), TensorSpec("stateN", "FP32", (-1, 2, 5)))),
            r"state 'state' is \[2, 4\] behind the rows, and 'stateN', as which it goes on, \[2, 5\]",
        ),
        (
            'sequence_batching {} parameters { key: "max_sequence_state_bytes" value { string_value: "31" } }',
            PLAIN,
            "the state of one sequence has 32 bytes, and max_sequence_state_bytes is 31",
        ),
        (control("q"), CONTROLLED, "control_input names the input 'q', which the model has not"),
        (control("h0"), CONTROLLED, "control_input 'h0' is the input of the model's state"),
        (control("lengths"), CONTROLLED, "control_input 'lengths' is the input of the model's lengths"),
        (
            control("first", "int32_false_true: [ 0, 1 ]"),
            CONTROLLED,
            "control_input 'first' holds TYPE_INT32; the model's input is TYPE_FP32",
        ),
        (
            control("first", "kind: CONTROL_SEQUENCE_CORRID"),
            CONTROLLED,
            "control_input 'first' holds one of TYPE_UINT64, .*TYPE_STRING; the model's input is TYPE_FP32",
        ),
        (
            control("whose", "kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT32"),
            CONTROLLED,
            "control_input 'whose' holds TYPE_INT32; the model's input is TYPE_UINT64",
        ),
        (control("rate"), CONTROLLED, "control_input 'rate' has no axis of rows"),
        (control("wide"), CONTROLLED, r"control_input 'wide' is \[-1, 2\] in the model; it must be \[rows\] or"),
        (
            "sequence_batching {}",
            foreign(outputs=(TensorSpec("stateN", "FP32", (-1, 2, 4)),)),
            "gives state alone, which clients do not see: name the output that they get in output of config.pbtxt",
        ),
        (
            "sequence_batching {}",
            foreign(inputs=(TensorSpec("state", "FP32", (-1, 2, 4)),)),
            "takes state and controls alone, so that a step would bring nothing",
        ),
    ],
)
def test_what_is_refused(text: str, spec: ModelSpec, said: str) -> None:
    with pytest.raises(ModelConfigError, match=f"^config.pbtxt of model 'm': sequence_batching.*{said}"):
        made(text, spec)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (15, "f has 15 bytes, and 16 are needed: one row of FP32 .1, 4., as raw little-endian numbers$"),
        (0, "f has 0 bytes, and 16 are needed: one row"),
        (48, "f has 48 bytes, and 16 are needed: .*: that is 3 rows, and a sequence is one$"),
    ],
)
def test_a_file_of_another_size(size: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "initial_state").mkdir()
    (tmp_path / "initial_state" / "f").write_bytes(bytes(size))
    with pytest.raises(ModelConfigError, match=said):
        made(state(f"{PAIR} initial_state {{ data_file: 'f' }}"), PLAIN, tmp_path)


def shown(text: str, spec: ModelSpec) -> pb.ModelConfig:
    config = model_config.parse(text, "m")
    stateful, _ = made_stateful(spec, config, NOWHERE)
    return config_in_force(config, stateful, "onnx_runtime", "cpu", labelled=())


def test_what_is_in_force_is_complete() -> None:
    config = shown("sequence_batching {}", PLAIN)
    assert not config.HasField("dynamic_batching")
    batching = config.sequence_batching
    assert batching.max_sequence_idle_microseconds == 600_000_000
    assert batching.WhichOneof("strategy_choice") == "oldest"
    assert [(one.input_name, one.output_name, one.data_type, list(one.dims)) for one in batching.state] == [
        ("h0", "hn", pb.TYPE_FP32, [1, 4]),
        ("c0", "cn", pb.TYPE_FP32, [1, 4]),
    ]
    assert all(one.initial_state[0].zero_data for one in batching.state)
    assert [tensor.name for tensor in config.input] == ["x"]
    assert config.parameters["max_sequences"].string_value == "100000"
    assert config.parameters["max_queue_size"].string_value == "1024"


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("sequence_batching {}", PLAIN),
        ("sequence_batching {} output [ { name: 'y' data_type: TYPE_FP32 dims: 1 }, "
         "{ name: 'stateN' data_type: TYPE_FP32 dims: [ 2, 4 ] } ]", foreign()),
        (CONTROLS, CONTROLLED),
        ("sequence_batching { max_sequence_idle_microseconds: 18446744073709551615 direct {} }", foreign()),
        ("sequence_batching { direct { max_queue_delay_microseconds: 3 } }", foreign(datatype="INT8")),
        (
            "max_batch_size: 4 sequence_batching { oldest { preferred_batch_size: 2 preserve_ordering: true } } "
            + fake_models.parameters({"sequence_eviction": "oldest_idle", "max_queue_size": "3"}),
            PLAIN,
        ),
    ],
)  # fmt: skip
def test_what_is_shown_can_be_written_back(text: str, spec: ModelSpec) -> None:
    config = shown(text, spec)
    again = text_format.MessageToString(config)
    assert shown(again, spec) == config
    first, second = (model_config.parse(each, "m") for each in (text, again))
    assert (first.sequences, first.policy) == (second.sequences, second.policy)
    assert made(text, spec)[0] == made(again, spec)[0]


def test_inputs_that_clients_do_not_see_any_more_may_still_be_listed() -> None:
    text = """sequence_batching {} input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] }, %s ]"""
    listed = """{ name: "state" data_type: TYPE_FP32 dims: [ 2, 4 ] }"""
    assert [tensor.name for tensor in shown(text % listed, foreign()).input] == ["x"]
    with pytest.raises(ModelConfigError, match=r"input 'state' has dims \[2, 5\]; the model's are \[2, 4\]"):
        shown(text % listed.replace("4", "5"), foreign())


def test_how_a_bare_file_is_tried() -> None:
    stated = dataclasses.replace(CONTROLLED, state=())
    config = model_config.parse(CONTROLS, "m")
    assert state_layouts.trial_hints(stated, config) == ({"first": 0, "whose": 0}, {"first": 0.0, "whose": 0}, None)
    config = model_config.parse(state(PAIR), "m")
    assert state_layouts.trial_hints(stated, config) == ({}, {}, {"h0": "hn"})
    config = model_config.parse(f"{state(PAIR)} input {{ name: 'x' }}", "m")
    assert state_layouts.trial_hints(stated, config) == ({"h0": None}, {}, {"h0": "hn"})
    for text, said in ((control("q"), "input 'q'"), (state("input_name: 'h0' output_name: 'q'"), "output 'q'")):
        with pytest.raises(ModelConfigError, match=f"names the {said}, which the model has not"):
            state_layouts.trial_hints(stated, model_config.parse(text, "m"))


SAID = ({"x": ("FP32", (-1, -1, 3))}, {"y": ("FP32", (-1, 2))})


@pytest.mark.parametrize(
    ("text", "own", "inputs", "outputs"),
    [
        (  # the file states all
            "sequence_batching {}",
            (
                {"h": ("FP32", (2, -1, 4)), "x": ("FP32", (-1, -1, -1))},
                {"y": ("FP32", None), "hn": ("FP32", (2, -1, 4))},
            ),
            {"h": ("FP32", (2, -1, 4)), "x": ("FP32", (-1, -1, 3))},
            {"y": ("FP32", (-1, 2)), "hn": ("FP32", (2, -1, 4))},
        ),
        (  # it states nothing
            "max_batch_size: 4 " + state("input_name: 'h' output_name: 'hn' data_type: TYPE_FP32 dims: 4"),
            ({}, {}),
            {"x": ("FP32", (-1, -1, 3)), "h": ("FP32", (-1, 4))},
            {"y": ("FP32", (-1, 2)), "hn": ("FP32", (-1, 4))},
        ),
        (  # what it states of a control goes before what is assumed
            "max_batch_size: 4 sequence_batching { state { input_name: 'h' output_name: 'hn' } "
            "control_input [ { name: 'f' control { fp32_false_true: [0, 1] } }, { name: 'g' control { kind: "
            "CONTROL_SEQUENCE_END fp32_false_true: [0, 1] } } ] }",
            ({"x": ("FP32", (-1, -1, 3)), "h": ("FP32", (-1, 4)), "f": ("FP32", (-1,)), "z": ("FP32", (-1,))}, {}),
            {"x": ("FP32", (-1, -1, 3)), "h": ("FP32", (-1, 4)), "f": ("FP32", (-1,)), "g": ("FP32", (-1, 1))},
            {"y": ("FP32", (-1, 2)), "hn": (None, None)},
        ),
    ],
)
def test_what_a_bare_file_is_said_to_have_beside_what_clients_see(
    text: str, own: Any, inputs: dict[str, Any], outputs: dict[str, Any]
) -> None:
    found = state_layouts.with_hidden(SAID, own, model_config.parse(text, "m"))
    assert found == (inputs, outputs)
    assert list(found[0]) == list(inputs)


def test_the_batches_of_a_stateful_model_are_those_of_its_strategy() -> None:
    written = text_format.Parse("sequence_batching { direct { max_queue_delay_microseconds: 9 } }", pb.ModelConfig())
    assert queue_policies.batch_policy(written, "here") == BatchPolicy(max_delay_ns=9000)
