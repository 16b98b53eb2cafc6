"""Fields of ModelConfig: served, idle, or refused with the reason."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from protos import model_config_pb2 as pb
from serving.errors import ModelConfigError
from serving.repository import fields


def idle(text: str) -> tuple[str, ...]:
    return fields.idle(text_format.Parse(text, pb.ModelConfig()), "here")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "model_transaction_policy { decoupled: false }",
        "input { format: FORMAT_NCHW dims: [3] reshape { shape: [1, 3] } }",
        "output { dims: [1] reshape {} }",
        "version_policy { all {} } dynamic_batching {}",
        "response_cache { enable: false }",
        "sequence_batching {}",
        "sequence_batching { direct {} iterative_sequence: false }",
        "sequence_batching { state { initial_state { zero_data: true } } }",
        "sequence_batching { control_input { control { kind: CONTROL_SEQUENCE_END } } }",
    ],
)
def test_fields_that_are_served_or_say_nothing(text: str) -> None:
    assert [field for field in idle(text) if field != "response_cache"] == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("optimization { cuda { graphs: true } }", ("optimization.cuda.graphs",)),
        ("optimization { input_pinned_memory { enable: false } }", ("optimization.input_pinned_memory",)),
        ("response_cache { enable: true }", ("response_cache.enable",)),
        ('metric_tags { key: "a" value: "b" }', ("metric_tags",)),
        ("instance_group { count: 1 rate_limiter { priority: 2 } }", ("instance_group.rate_limiter.priority",)),
        (
            "sequence_batching { direct { minimum_slot_utilization: 0.5 } state { use_same_buffer_for_input_output: true } }",
            (
                "sequence_batching.direct.minimum_slot_utilization",
                "sequence_batching.state.use_same_buffer_for_input_output",
            ),
        ),
        (
            "sequence_batching { oldest { max_candidate_sequences: 4 } }",
            ("sequence_batching.oldest.max_candidate_sequences",),
        ),
        ("instance_group [ { profile: 'a' }, { profile: 'b' } ]", ("instance_group.profile",)),
        ('parameters { key: "execution_mode" value { string_value: "1" } }', ("parameters.execution_mode",)),
    ],
)
def test_fields_that_change_no_answer(text: str, named: tuple[str, ...]) -> None:
    assert idle(text) == named


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "sequence_batching { iterative_sequence: true }",
            r"'sequence_batching.iterative_sequence' is not served by this server \(a request is computed once",
        ),
        (
            "sequence_batching { state { use_growable_memory: true } }",
            r"'sequence_batching.state.use_growable_memory' is not served by this server \(a state has one size",
        ),
        ("ensemble_scheduling {}", r"'ensemble_scheduling' is not served by this server \(ensembles are not"),
        (
            "model_transaction_policy { decoupled: true }",
            r"policy.decoupled' is not served .*\(a request has one answer",
        ),
        ("input { optional: true }", r"'input.optional' is not served .*\(all inputs"),
        ("input { allow_ragged_batch: true }", "'input.allow_ragged_batch' is not served"),
        ("instance_group { passive: true }", r"'instance_group.passive' is not served by this server; remove it"),
        ("cc_model_filenames { key: 'a' value: 'b' }", "'cc_model_filenames' is not served by this server; remove it"),
        ("model_operations { op_library_filename: 'a' }", "'model_operations.op_library_filename' is not served"),
    ],
)
def test_fields_that_would_change_an_answer(text: str, said: str) -> None:
    with pytest.raises(ModelConfigError, match=f"^here: the field .*{said}"):
        idle(text)
