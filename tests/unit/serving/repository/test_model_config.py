"""`config.pbtxt`: what is taken, what is completed, and the sentence for what is refused."""

from __future__ import annotations

import json
import re

import pytest
from google.protobuf import text_format

from protos import model_config_pb2 as pb
from serving.batching.policy import BatchPolicy
from serving.errors import ModelConfigError
from serving.repository import config_in_force, model_config
from tests.support.fake_models import spec


def parameters(**values: str) -> str:
    """As they stand in config.pbtxt."""
    return " ".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in values.items()
    )


def test_without_a_file_everything_is_completed() -> None:
    choices = model_config.parse(None, "m")
    assert choices.policy == BatchPolicy(max_rows=64, max_queue=1024, dynamic=True)
    complete = config_in_force.config_in_force(choices, spec(), "onnx_runtime", "cpu", labels=False)
    assert complete.name == "m"
    assert (complete.backend, complete.platform) == ("onnxruntime", "onnxruntime_onnx")
    assert complete.max_batch_size == 64
    assert [(i.name, i.data_type, list(i.dims)) for i in complete.input] == [("x", pb.TYPE_FP32, [-1, 3])]
    assert [(o.name, o.data_type, list(o.dims)) for o in complete.output] == [("y", pb.TYPE_FP32, [2])]
    assert complete.version_policy.latest.num_versions == 1
    assert complete.dynamic_batching.default_queue_policy.max_queue_size == 1024
    assert [(g.kind, g.count) for g in complete.instance_group] == [(pb.ModelInstanceGroup.KIND_CPU, 1)]


def test_what_the_operator_chose_is_in_force() -> None:
    choices = model_config.parse(
        """
        name: "m"
        platform: "pytorch_libtorch"
        max_batch_size: 16
        input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 3 ] } ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
        version_policy { all {} }
        instance_group [ { kind: KIND_GPU gpus: [ 1 ] } ]
        dynamic_batching {
          preferred_batch_size: [ 8, 4 ]
          max_queue_delay_microseconds: 250
          default_queue_policy { max_queue_size: 9 }
        }
        """,
        "m",
    )
    assert (choices.backend, choices.device) == ("torchscript", "cuda:1")
    assert choices.policy == BatchPolicy(
        max_rows=16, max_delay_ns=250_000, preferred_rows=(4, 8), max_queue=9, dynamic=True
    )
    complete = config_in_force.config_in_force(choices, spec(), "torchscript", "cuda:1", labels=False)
    assert complete.version_policy.HasField("all")
    assert list(complete.dynamic_batching.preferred_batch_size) == [4, 8]
    assert (complete.instance_group[0].kind, list(complete.instance_group[0].gpus)) == (
        pb.ModelInstanceGroup.KIND_GPU,
        [1],
    )


def test_what_is_shown_can_be_written_back() -> None:
    """An operator may start from the answer of the ModelConfig RPC."""
    for text in ("", 'instance_group [ { name: "mine" kind: KIND_CPU } ] dynamic_batching { preferred_batch_size: 4 }'):
        shown = config_in_force.config_in_force(
            model_config.parse(text, "m"), spec(), "torchscript", "cpu", labels=False
        )
        again = model_config.parse(text_format.MessageToString(shown), "m")
        assert config_in_force.config_in_force(again, spec(), "torchscript", "cpu", labels=False) == shown


@pytest.mark.parametrize(
    ("text", "dynamic"),
    [
        ("", True),
        ("max_batch_size: 8", False),
        ("max_batch_size: 8 dynamic_batching {}", True),
        ("dynamic_batching {}", True),
    ],
)
def test_batching_across_requests_is_completed_only_where_the_batch_size_is(text: str, dynamic: bool) -> None:
    assert model_config.parse(text, "m").policy.dynamic is dynamic


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("onnxruntime", "onnx_runtime"),
        ("onnx_runtime", "onnx_runtime"),
        ("pytorch", "torchscript"),
        ("tensorflow", "saved_model"),
        ("fake", "fake"),
    ],
)
def test_tritons_names_of_backends_are_taken_beside_ours(name: str, backend: str) -> None:
    assert model_config.parse(f'backend: "{name}"', "m").backend == backend


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("", [7]),
        ("version_policy { latest { num_versions: 2 } }", [3, 7]),
        ("version_policy { latest { num_versions: 9 } }", [1, 3, 7]),
        ("version_policy { all {} }", [1, 3, 7]),
        ("version_policy { specific { versions: [ 7, 1, 7 ] } }", [1, 7]),
    ],
)
def test_version_policies(text: str, versions: list[int]) -> None:
    assert model_config.parse(text, "m").versions([1, 7, 3]) == versions


def test_a_version_policy_that_names_no_version() -> None:
    with pytest.raises(ModelConfigError, match="names no version"):
        model_config.parse("version_policy { specific {} }", "m").versions([1])


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        (parameters(version_labels="stable=1,canary=7"), [1, 7]),  # labelled versions are served beside the latest
        (parameters(version_labels="old=1") + "version_policy { latest { num_versions: 1 } }", [1, 7]),
        (parameters(version_labels="old=1") + "version_policy { specific { versions: [ 1, 3 ] } }", [1, 3]),
        (parameters(shadow="3", shadow_share="0.5"), [7]),  # a shadow answers nobody
    ],
)
def test_versions_that_have_a_label_are_served(text: str, versions: list[int]) -> None:
    assert model_config.parse(text, "m").versions([1, 7, 3]) == versions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (parameters(version_labels="stable=9"), r"version_labels or shadow name \[9\]; on disk there are \[1, 3\]"),
        (parameters(shadow="9/onnxruntime", shadow_share="1"), r"name \[9\]"),
        (
            parameters(version_labels="stable=3") + "version_policy { specific { versions: 1 } }",
            r"version_labels names \[3\], which version_policy does not serve",
        ),
    ],
)
def test_labels_of_versions_that_are_not_there(text: str, message: str) -> None:
    with pytest.raises(ModelConfigError, match=message):
        model_config.parse(text, "m").versions([1, 3])


@pytest.mark.parametrize(
    ("text", "chosen", "expected"),
    [
        ("", "cpu", ["cpu"]),
        ("instance_group { count: 3 }", "cpu", ["cpu"] * 3),
        (
            "instance_group { kind: KIND_GPU gpus: [ 2, 0 ] count: 2 }",
            "cuda:2",
            ["cuda:2", "cuda:2", "cuda:0", "cuda:0"],
        ),
        ("instance_group { kind: KIND_GPU gpus: [ 2, 0 ] }", "cpu", ["cpu"]),  # fallen back
    ],
)
def test_the_devices_of_the_instances(text: str, chosen: str, expected: list[str]) -> None:
    choices = model_config.parse(text, "m")
    assert choices.devices(chosen) == expected
    shown = config_in_force.config_in_force(choices, spec(), "onnx_runtime", chosen, labels=False)
    again = model_config.parse(text_format.MessageToString(shown), "m")
    assert sorted(again.devices(again.device or "")) == sorted(expected)


def test_a_client_may_send_the_same_as_json() -> None:
    text = '{"backend": "pytorch", "max_batch_size": 4, "instanceGroup": [{"kind": "KIND_CPU", "count": 2}]}'
    choices = model_config.parse_json(text, "m")
    assert (choices.backend, choices.policy.max_rows, choices.count, choices.device) == ("torchscript", 4, 2, "cpu")
    for bad, message in (("{", "does not parse"), ('{"max_queue": 1}', 'no field named "max_queue"'), ("[]", "parse")):
        with pytest.raises(ModelConfigError, match=f"^the configuration sent for model 'm'.*{message}"):
            model_config.parse_json(bad, "m")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"input": [{"name": "x", "data_type": 99}]}, "input 'x' has data_type 99, which is none"),
        ({"output": [{"name": "y", "data_type": -1}]}, "output 'y' has data_type -1"),
        (
            {"model_warmup": [{"name": "w", "inputs": {"x": {"data_type": 99}}}]},
            "model_warmup 'w': input 'x' has data_type 99",
        ),
    ],
)
def test_a_number_that_is_no_datatype(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ModelConfigError, match=f"the configuration sent for model 'm': {told}"):
        model_config.parse_json(json.dumps(fields), "m")


def test_a_named_version_that_is_missing() -> None:
    with pytest.raises(ModelConfigError, match=re.escape("version_policy names [2]; there are [1, 3]")):
        model_config.parse("version_policy { specific { versions: [ 1, 2 ] } }", "m").versions([3, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: 8\nmax_queue: 3", 'does not parse: line 2:1 .* no field named "max_queue"'),
        ("\x00\x01 garbage {{{", "does not parse: line 1:1"),
        ("max_batch_size: -1", "max_batch_size is -1"),
        ('name: "other"', "name is 'other', but the folder is called 'm'"),
        (
            'backend: "tensorrt"',
            "backend is 'tensorrt', which this server does not have; known are onnx_runtime/onnxruntime",
        ),
        ('backend: "pytorch" platform: "onnxruntime_onnx"', "contradict each other"),
        ("optimization { cuda { graphs: true } }", "the field 'optimization.cuda.graphs' is not served"),
        ("sequence_batching { oldest {} }", "the field 'sequence_batching.oldest' is not served"),
        ("cc_model_filenames { key: 'a' value: 'b' }", "the field 'cc_model_filenames' is not served"),
        ("ensemble_scheduling {}", "the field 'ensemble_scheduling' is not served"),
        (
            'parameters { key: "a" value { string_value: "b" } }',
            "parameters has 'a'; known are intra_op_thread_count, fallback, version_labels, canary_share, shadow",
        ),
        (parameters(intra_op_thread_count="-1"), "intra_op_thread_count is '-1'; it must be a whole number"),
        (parameters(intra_op_thread_count="9" * 5000), "intra_op_thread_count is '999"),
        ("instance_group [ { count: 64 gpus: [0, 1] } ]", "asks for 128 instances; at most 64"),
        (parameters(fallback="torchscript,tensorrt"), "fallback names 'tensorrt'; known are onnx_runtime"),
        (parameters(fallback="torchscript@gpu"), "device is 'gpu'; it must be cpu or cuda:N"),
        (parameters(version_labels="stable=0"), "version_labels has 'stable=0'; it must be a list such as"),
        (parameters(version_labels="2=1"), "beginning with a letter"),
        (parameters(canary_share="0.1"), "canary_share divides the requests .* version_labels sets none"),
        (parameters(version_labels="stable=1,canary=2", canary_share="1.5"), "canary_share is '1.5'; .* from 0 to 1"),
        (parameters(shadow="2"), "shadow and shadow_share go together"),
        (parameters(shadow="2/tensorrt", shadow_share="1"), "shadow is '2/tensorrt'; it must be a version or a label"),
        (parameters(shadow="2@cpu", shadow_share="1"), "shadow is '2@cpu'; it must be"),
        (parameters(shadow="torchscript@tpu", shadow_share="1"), "device is 'tpu'"),
        ("dynamic_batching { preserve_ordering: true }", "'dynamic_batching.preserve_ordering' is not served"),
        ("dynamic_batching { priority_levels: 2 }", "'dynamic_batching.priority_levels' is not served"),
        (
            "dynamic_batching { default_queue_policy { default_timeout_microseconds: 9 } }",
            "'dynamic_batching.default_queue_policy.default_timeout_microseconds' is not served",
        ),
        (
            "dynamic_batching { max_queue_delay_microseconds: 18446744073709551615 }",
            "18446744073709551615; at most 60000000",
        ),
        (
            "max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }",
            "preferred_batch_size 8 is not within 1 and .* 4",
        ),
        ("instance_group [ { count: 2 }, { kind: KIND_GPU } ]", "there are 2 instance groups; one is served"),
        ("instance_group [ { count: 65 } ]", "asks for 65 instances; at most 64"),
        ("instance_group [ { kind: KIND_CPU gpus: [0] } ]", "is KIND_CPU and names GPUs"),
        ("instance_group [ { kind: KIND_MODEL } ]", "KIND_MODEL is not served"),
        ("instance_group [ { kind: 99 } ]", "kind 99 is not served"),
        ("instance_group [ { kind: KIND_GPU gpus: [-1] } ]", "negative"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(ModelConfigError, match=message) as raised:
        model_config.parse(text, "m")
    assert str(raised.value).startswith("config.pbtxt of model 'm'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'input [ { name: "z" data_type: TYPE_FP32 dims: [ -1, 3 ] } ]',
            r"inputs are \['z'\]; the model's are \['x'\]",
        ),
        (
            'input [ { name: "x" data_type: TYPE_INT64 dims: [ -1, 3 ] } ]',
            "input 'x' is TYPE_INT64; the model's is TYPE_FP32",
        ),
        (
            'input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 9 ] } ]',
            r"has dims \[-1, 9\]; the model's are \[-1, 3\]",
        ),
        ('default_model_filename: "net.onnx"', "is 'net.onnx', but onnx_runtime reads model.onnx"),
        (
            'output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "l.txt" } ]',
            "label_filename of output 'y' is 'l.txt'; this output has no labels",
        ),
        (
            'output [ { name: "y" data_type: TYPE_FP32 dims: [ 9 ] } ]',
            r"output 'y' has dims \[9\]; the model's are \[2\]",
        ),
    ],
)
def test_tensors_must_be_the_artefacts_own(text: str, message: str) -> None:
    with pytest.raises(ModelConfigError, match=message):
        config_in_force.config_in_force(model_config.parse(text, "m"), spec(), "onnx_runtime", "cpu", labels=False)
