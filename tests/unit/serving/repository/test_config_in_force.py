"""The configuration in force: what is completed, what must agree with the artefact, and that it can be written back."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from protos import model_config_pb2 as pb
from serving.batching.policy import BatchPolicy
from serving.errors import ModelConfigError
from serving.repository import model_config
from serving.repository.config_in_force import config_in_force, policy_for
from tests.support.fake_models import spec
from tests.support.foreign_specs import ALONE, SHARED


def in_force(text: str, backend: str = "onnx_runtime", device: str = "cpu") -> pb.ModelConfig:
    """For the fake model."""
    return config_in_force(model_config.parse(text, "m"), spec(), backend, device, labelled=())


def test_without_a_file_everything_is_completed() -> None:
    complete = in_force("")
    assert complete.name == "m"
    assert (complete.backend, complete.platform) == ("onnxruntime", "onnxruntime_onnx")
    assert complete.max_batch_size == 64
    assert [(i.name, i.data_type, list(i.dims)) for i in complete.input] == [("x", pb.TYPE_FP32, [-1, 3])]
    assert [(o.name, o.data_type, list(o.dims)) for o in complete.output] == [("y", pb.TYPE_FP32, [2])]
    assert complete.version_policy.latest.num_versions == 1
    assert complete.dynamic_batching.default_queue_policy.max_queue_size == 1024
    assert [(g.name, g.kind, g.count) for g in complete.instance_group] == [("m_0", pb.ModelInstanceGroup.KIND_CPU, 1)]


def test_what_the_operator_chose_is_in_force() -> None:
    complete = in_force(
        """
        max_batch_size: 16
        input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 3 ] } ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
        version_policy { all {} }
        instance_group [ { kind: KIND_GPU gpus: [ 1 ] } ]
        dynamic_batching { preferred_batch_size: [ 8, 4 ] max_queue_delay_microseconds: 250 }
        parameters { key: "intra_op_thread_count" value { string_value: "2" } }
        """,
        "torchscript",
        "cuda:1",
    )
    assert complete.max_batch_size == 16
    assert complete.version_policy.HasField("all")
    assert list(complete.dynamic_batching.preferred_batch_size) == [4, 8]
    assert complete.dynamic_batching.max_queue_delay_microseconds == 250
    (group,) = complete.instance_group
    assert (group.kind, list(group.gpus)) == (pb.ModelInstanceGroup.KIND_GPU, [1])
    assert complete.parameters["intra_op_thread_count"].string_value == "2"


def test_it_says_what_really_computes() -> None:
    """Another backend, or the CPU, stands in for what was written."""
    complete = in_force('backend: "onnxruntime" instance_group { kind: KIND_GPU count: 2 }', "torchscript", "cpu")
    assert (complete.backend, complete.default_model_filename) == ("pytorch", "model.pt")
    (group,) = complete.instance_group
    assert (group.kind, group.count, list(group.gpus)) == (pb.ModelInstanceGroup.KIND_CPU, 2, [])


def test_without_batching_there_is_no_field_of_batching() -> None:
    assert not in_force("max_batch_size: 8").HasField("dynamic_batching")


def test_what_is_parsed_once_is_not_changed_by_what_is_in_force() -> None:
    config = model_config.parse("max_batch_size: 8", "m")
    before = config.written.SerializeToString()
    shown = config_in_force(config, spec(), "onnx_runtime", "cpu", labelled=())
    shown.version_policy.all.SetInParent()
    assert config.written.SerializeToString() == before


def test_what_is_shown_can_be_written_back() -> None:
    """An operator may start from the answer of the ModelConfig RPC."""
    for text in ("", 'instance_group [ { name: "mine" kind: KIND_CPU } ] dynamic_batching { preferred_batch_size: 4 }'):
        shown = config_in_force(model_config.parse(text, "m"), spec(), "torchscript", "cpu", labelled=())
        again = model_config.parse(text_format.MessageToString(shown), "m")
        assert config_in_force(again, spec(), "torchscript", "cpu", labelled=()) == shown


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
            'output [ { name: "y" data_type: TYPE_FP32 dims: [ 9 ] } ]',
            r"output 'y' has dims \[9\]; the model's are \[2\]",
        ),
    ],
)
def test_tensors_must_be_the_artefacts_own(text: str, message: str) -> None:
    with pytest.raises(ModelConfigError, match=message):
        config_in_force(model_config.parse(text, "m"), spec(), "onnx_runtime", "cpu", labelled=())


def test_the_file_of_labels_belongs_to_the_output_that_has_classes() -> None:
    text = 'output { name: "y" data_type: TYPE_FP32 dims: 2 label_filename: "l.txt" }'
    for written, labelled, told in ((None, ("y",), "labels.txt"), (None, (), ""), (text, ("y",), "l.txt")):
        shown = config_in_force(model_config.parse(written, "m"), spec(), "onnx_runtime", "cpu", labelled=labelled)
        assert [output.label_filename for output in shown.output] == [told]


@pytest.mark.parametrize(
    ("text", "alone", "policy"),
    [
        ("", False, BatchPolicy()),
        ("", True, BatchPolicy(dynamic=False)),
        (
            "dynamic_batching { max_queue_delay_microseconds: 9 }",
            False,
            BatchPolicy(max_delay_ns=9000),
        ),
        ("dynamic_batching { max_queue_delay_microseconds: 9 }", True, BatchPolicy(dynamic=False)),
    ],
)
def test_how_requests_are_batched(text: str, alone: bool, policy: BatchPolicy) -> None:
    assert policy_for(model_config.parse(text, "m"), spec(), alone=alone) == policy


@pytest.mark.parametrize("alone", [False, True])
def test_a_model_that_takes_one_row_is_never_batched(alone: bool) -> None:
    policy = policy_for(model_config.parse(None, "m"), ALONE, alone=alone)
    assert policy == BatchPolicy(max_rows=1, dynamic=False)


def test_their_configurations() -> None:
    shared = config_in_force(model_config.parse(None, "m"), SHARED, "onnx_runtime", "cpu", labelled=())
    assert shared.max_batch_size == 64
    assert [(i.name, list(i.dims), i.HasField("reshape")) for i in shared.input] == [
        ("x", [3], False),
        ("state", [2, 4], False),
        ("rate", [1], True),
    ]
    assert [(o.name, list(o.dims)) for o in shared.output] == [("y", [1]), ("stateN", [2, 4])]
    alone = config_in_force(model_config.parse(None, "m"), ALONE, "onnx_runtime", "cpu", labelled=())
    assert (alone.max_batch_size, alone.HasField("dynamic_batching")) == (0, False)
    assert [list(i.dims) for i in alone.input] == [[-1, 3], [1]]
    for signature, shown in ((SHARED, shared), (ALONE, alone)):
        again = model_config.parse(text_format.MessageToString(shown), "m")
        assert config_in_force(again, signature, "onnx_runtime", "cpu", labelled=()) == shown


@pytest.mark.parametrize("text", ["max_batch_size: 8", "dynamic_batching {}"])
def test_batching_a_model_without_rows_is_refused(text: str) -> None:
    with pytest.raises(ModelConfigError, match="the model has no axis of rows: leave both out"):
        config_in_force(model_config.parse(text, "m"), ALONE, "onnx_runtime", "cpu", labelled=())
