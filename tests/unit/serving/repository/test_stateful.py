"""`sequence_batching` and the keys that go with it: what they mean, what is shown of them, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
from google.protobuf import text_format

from protos import model_config_pb2 as pb
from serving.batching.policy import BatchPolicy, QueuePolicy
from serving.errors import ModelConfigError
from serving.repository import model_config, stateful
from serving.sequences.policy import CARRY_SAME_SHAPES, SECOND_NS, SequencePolicy
from serving.signature.controls import ControlInput
from serving.signature.tensors import TensorSpec
from tests.support import fake_models
from tests.support.fake_models import parameters

ALL_KEYS = {
    "max_sequences": "7",
    "max_sequence_state_bytes": "4096",
    "sequence_window": "2",
    "sequence_tombstone_seconds": "1.5",
    "sequence_eviction": "oldest_idle",
    "sequence_min_idle_seconds": "0",
    "sequence_start_timeout_microseconds": "250",
    "sequence_on_removal": "carry_same_shapes",
    "sequence_drain_seconds": "0.000000001",
    "max_queue_size": "9",
}
ALL = SequencePolicy(
    idle_ns=30 * SECOND_NS,
    max_sequences=7,
    max_state_bytes=4096,
    window=2,
    tombstone_ns=1_500_000_000,
    start_timeout_ns=250_000,
    evicts=True,
    min_idle_ns=0,
    on_removal=CARRY_SAME_SHAPES,
    drain_ns=1,
)


def test_without_sequence_batching_a_model_is_stateless() -> None:
    config = model_config.parse("max_batch_size: 8 dynamic_batching {}", "m")
    assert (config.sequences, config.controls) == (None, ())


def test_an_empty_one_is_enough() -> None:
    config = model_config.parse("sequence_batching {}", "m")
    assert config.sequences == SequencePolicy()
    assert config.sequences.idle_ns == 600 * SECOND_NS
    assert config.policy == BatchPolicy()
    assert model_config.parse_json('{"sequence_batching": {}}', "m").sequences == SequencePolicy()


def test_each_key_is_read_and_shown_as_it_is_read() -> None:
    assert set(ALL_KEYS) == set(stateful.KEYS)
    config = model_config.parse(
        f"sequence_batching {{ max_sequence_idle_microseconds: 30000000 }} {parameters(ALL_KEYS)}", "m"
    )
    assert config.sequences == ALL
    assert config.policy.queue == QueuePolicy(max_requests=9)
    assert stateful.parameters(ALL, 9) == ALL_KEYS


@pytest.mark.parametrize("idle", [2**64 - 1, 2**62 // 1000 + 1])
def test_what_is_longer_than_anybody_waits_is_for_ever(idle: int) -> None:
    text = f"sequence_batching {{ max_sequence_idle_microseconds: {idle} }}"
    assert model_config.parse(text, "m").sequences == SequencePolicy(idle_ns=0)


@pytest.mark.parametrize(
    ("strategy", "policy"),
    [
        ("direct {}", BatchPolicy(max_rows=8)),
        (
            "direct { max_queue_delay_microseconds: 5 minimum_slot_utilization: 1 }",
            BatchPolicy(max_rows=8, max_delay_ns=5000),
        ),
        (
            "oldest { preferred_batch_size: [ 4, 2 ] max_queue_delay_microseconds: 7 preserve_ordering: true }",
            BatchPolicy(max_rows=8, max_delay_ns=7000, preferred_rows=(2, 4), keeps_order=True),
        ),
    ],
)
def test_a_strategy_says_how_it_is_batched(strategy: str, policy: BatchPolicy) -> None:
    config = model_config.parse(f"max_batch_size: 8 sequence_batching {{ {strategy} }}", "m")
    assert config.policy == policy


def test_what_changes_nothing_is_told() -> None:
    text = "sequence_batching { oldest { max_candidate_sequences: 4 } state { use_same_buffer_for_input_output: true"
    config = model_config.parse(f"{text} input_name: 'h' output_name: 'hn' }} }}", "m")
    assert config.idle == (
        "sequence_batching.oldest.max_candidate_sequences",
        "sequence_batching.state.use_same_buffer_for_input_output",
    )


CONTROLS = """
sequence_batching {
  control_input [
    { name: "first" control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } },
    { name: "last" control { kind: CONTROL_SEQUENCE_END bool_false_true: [ false, true ] } },
    { name: "there" control { kind: CONTROL_SEQUENCE_READY fp32_false_true: [ -1, 1 ] } },
    { name: "whose" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING } }
  ]
}
"""


def test_control_inputs_are_read_and_shown() -> None:
    written = text_format.Parse(CONTROLS, pb.ModelConfig())
    controls = stateful.controls(written, "here")
    assert controls == (
        ControlInput("first", "start", 0, 1),
        ControlInput("last", "end", False, True),
        ControlInput("there", "ready", -1.0, 1.0),
        ControlInput("whose", "corrid", "", ""),
    )
    datatypes = stateful.control_datatypes(written)
    assert datatypes == {"first": "INT32", "last": "BOOL", "there": "FP32", "whose": "BYTES"}
    shown = [stateful.control_in_force(control, datatypes[control.input]) for control in controls]
    assert shown == list(written.sequence_batching.control_input)


@pytest.mark.parametrize(
    ("tensor", "declare"),
    [
        (
            ("START", "FP32", (-1, 1)),
            "{ name: 'START' control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } }",
        ),
        (("end", "INT32", (-1,)), "{ name: 'end' control { kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] } }"),
        (
            ("sequence_ready", "BOOL", (-1, 1)),
            "{ name: 'sequence_ready' control { kind: CONTROL_SEQUENCE_READY bool_false_true: [ false, true ] } }",
        ),
        (
            ("corr_id", "BYTES", (-1, 1)),
            "{ name: 'corr_id' control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING } }",
        ),
        (("START", "FP32", (-1, 2)), ""),
        (("START", "INT64", (-1, 1)), ""),
        (("id", "INT64", (-1, 1)), ""),
        (("restart", "FP32", (-1, 1)), ""),
    ],
)
def test_inputs_that_are_named_as_controls_are(tensor: tuple[str, str, tuple[int, ...]], declare: str) -> None:
    spec = fake_models.spec()
    spec = dataclasses.replace(spec, inputs=(*spec.inputs, TensorSpec(*tensor)))
    expected = f"sequence_batching {{ control_input [ {declare} ] }}" if declare else ""
    assert stateful.undeclared(spec) == expected
    if declare:
        (declared,) = model_config.parse(expected, "m").controls
        assert declared.input == tensor[0]
        assert stateful.undeclared(dataclasses.replace(spec, controls=(declared,))) == ""


def test_an_id_may_leave_its_datatype_to_the_file() -> None:
    written = text_format.Parse(
        'sequence_batching { control_input { name: "whose" control { kind: CONTROL_SEQUENCE_CORRID } } }',
        pb.ModelConfig(),
    )
    assert stateful.controls(written, "here") == (ControlInput("whose", "corrid", 0, 0),)
    assert stateful.control_datatypes(written) == {"whose": ""}


def control(text: str, name: str = "c") -> str:
    return f'sequence_batching {{ control_input {{ name: "{name}" control {{ {text} }} }} }}'


def state(text: str) -> str:
    return f"sequence_batching {{ state {{ {text} }} }}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            parameters({"max_sequences": "1"}),
            r"parameters has 'max_sequences', which says something of a stateful model alone: add sequence_batching \{\}",
        ),
        (
            parameters({"max_queue_size": "1"}),
            "parameters has 'max_queue_size', .* it is max_queue_size in default_queue_policy of dynamic_batching",
        ),
        ("sequence_batching {} dynamic_batching {}", "does not parse: line 1:.*scheduling_choice"),
        ("sequence_batching { iterative_sequence: true }", "'sequence_batching.iterative_sequence' is not served"),
        (state("use_growable_memory: true"), "'sequence_batching.state.use_growable_memory' is not served"),
        (state('input_name: "h"'), r"a state has no output_name \(its input_name is 'h'\): state is paired by name"),
        (state('output_name: "hn"'), r"a state has no input_name \(its output_name is 'hn'\)"),
        (
            "sequence_batching { state [ { input_name: 'h' output_name: 'a' }, { input_name: 'h' output_name: 'b' } ] }",
            "two states have the input_name 'h'",
        ),
        (
            "sequence_batching { state [ { input_name: 'h' output_name: 'a' }, { input_name: 'c' output_name: 'a' } ] }",
            "two states have the output_name 'a'",
        ),
        (
            state("input_name: 'h' output_name: 'a' initial_state [ {}, {} ]"),
            "state 'h' has 2 initial_states; a sequence begins with one",
        ),
        (
            state("input_name: 'h' output_name: 'a' initial_state { data_file: '' }"),
            "state 'h': data_file of its initial_state is empty",
        ),
        (control("", ""), "control_input '' has no name"),
        ("sequence_batching { control_input { name: 'c' } }", "control_input 'c' has 0 controls; it must have one"),
        (control("kind: CONTROL_SEQUENCE_START"), "is CONTROL_SEQUENCE_START, and must say what it holds"),
        (
            control("kind: CONTROL_SEQUENCE_END fp32_false_true: [0, 1] int32_false_true: [0, 1]"),
            "is CONTROL_SEQUENCE_END, and must say what it holds .* by one of int32_false_true, fp32_false_true",
        ),
        (
            control("fp32_false_true: [ 1, 1 ]"),
            r"fp32_false_true is \[1.0, 1.0\]; it must hold two numbers that differ",
        ),
        (control("fp32_false_true: [ 1 ]"), "fp32_false_true is .* two numbers that differ"),
        (control("fp32_false_true: [ 0, nan ]"), "fp32_false_true is .* two numbers that differ"),
        (
            control("kind: CONTROL_SEQUENCE_CORRID int32_false_true: [ 0, 1 ]"),
            "is CONTROL_SEQUENCE_CORRID, which holds the sequence's id: it takes data_type, and no int32_false_true",
        ),
        (
            control("kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_FP32"),
            "has data_type TYPE_FP32; an id may be TYPE_UINT64, TYPE_INT64",
        ),
        (
            "sequence_batching { control_input [ { name: 'c' control { fp32_false_true: [0, 1] } }, "
            "{ name: 'c' control { kind: CONTROL_SEQUENCE_END fp32_false_true: [0, 1] } } ] }",
            "control_input 'c' has the same name as control_input 'c'",
        ),
        (
            "sequence_batching { control_input [ { name: 'c' control { fp32_false_true: [0, 1] } }, "
            "{ name: 'd' control { fp32_false_true: [0, 1] } } ] }",
            "control_input 'd' has the same kind as control_input 'c'",
        ),
        (
            "max_batch_size: 4 sequence_batching { oldest { preferred_batch_size: 5 } }",
            "preferred_batch_size 5 is not within 1 and max_batch_size 4",
        ),
        (
            "sequence_batching { direct { max_queue_delay_microseconds: 60000001 } }",
            "max_queue_delay_microseconds is 60000001; at most 60000000",
        ),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(ModelConfigError, match=f"^config.pbtxt of model 'm'.*{said}"):
        model_config.parse(text, "m")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("max_sequences", "0", "a whole number from 1 to 1000000000"),
        ("max_sequences", "many", "a whole number from 1"),
        ("max_sequence_state_bytes", "1e9", "a whole number from 1"),
        ("sequence_window", "1001", "a whole number from 1 to 1000"),
        ("sequence_tombstone_seconds", "-1", "a number of seconds from 0 to 1000000000"),
        ("sequence_min_idle_seconds", "nan", "a number of seconds from 0"),
        ("sequence_drain_seconds", "inf", "a number of seconds from 0"),
        ("sequence_start_timeout_microseconds", "1.5", "a whole number from 0"),
        ("sequence_eviction", "lru", "one of none, oldest_idle"),
        ("sequence_on_removal", "carry", "one of drain, restart, carry_same_weights, carry_same_shapes"),
        ("max_queue_size", "0", "a whole number from 1 to 2147483647"),
    ],
)
def test_a_key_that_holds_something_else(key: str, value: str, said: str) -> None:
    with pytest.raises(ModelConfigError, match=f"'m': {key} is '{value}'; it must be {said}"):
        model_config.parse(f"sequence_batching {{}} {parameters({key: value})}", "m")


@pytest.mark.parametrize("field", ["data_type: 99", "initial_state { data_type: 99 }"])
def test_a_number_that_is_no_datatype(field: str) -> None:
    with pytest.raises(ModelConfigError, match="state 'h' has data_type 99, which is none"):
        model_config.parse_json(text_to_json(state(f"input_name: 'h' output_name: 'hn' {field}")), "m")


def text_to_json(text: str) -> str:
    from google.protobuf import json_format

    written = text_format.Parse(text.replace("data_type: 99", ""), pb.ModelConfig())
    of = written.sequence_batching.state[0]
    (of.initial_state[0] if of.initial_state else of).data_type = 99  # type: ignore[assignment]
    return json_format.MessageToJson(written)
