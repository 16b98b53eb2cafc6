"""`config.pbtxt`: what is taken, and the sentence for what is refused."""

from __future__ import annotations

import json

import pytest

from serving.batching.policy import BatchPolicy, QueuePolicy
from serving.errors import ModelConfigError
from serving.repository import model_config
from serving.repository.routes import Routes


def parameters(**values: str) -> str:
    """As they stand in config.pbtxt."""
    return " ".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in values.items()
    )


def test_without_a_file_everything_is_left_to_the_server() -> None:
    config = model_config.parse(None, "m")
    assert config.policy == BatchPolicy(max_rows=64, queue=QueuePolicy(max_requests=1024), dynamic=True)
    assert (config.backend, config.device, config.count, config.threads, config.fallback) == (None, None, 1, None, None)
    assert (config.written.name, config.routes) == ("m", Routes())


def test_what_the_operator_writes_is_chosen() -> None:
    config = model_config.parse(
        """
        name: "m"
        platform: "pytorch_libtorch"
        max_batch_size: 16
        instance_group [ { kind: KIND_GPU gpus: [ 1 ] } ]
        dynamic_batching {
          preferred_batch_size: [ 8, 4 ]
          max_queue_delay_microseconds: 250
          default_queue_policy { max_queue_size: 9 }
        }
        """,
        "m",
    )
    assert (config.backend, config.device) == ("torchscript", "cuda:1")
    assert config.policy == BatchPolicy(
        max_rows=16, max_delay_ns=250_000, preferred_rows=(4, 8), queue=QueuePolicy(max_requests=9), dynamic=True
    )


def test_the_same_text_is_read_once() -> None:
    """It is asked for when the server starts and at every load; who reads it changes nothing in it."""
    text = "max_batch_size: 8"
    first = model_config.parse(text, "m")
    assert model_config.parse("".join(text), "m") is first
    assert model_config.parse(text, "other").written.name == "other"
    assert model_config.parse(text + " ", "m") == first
    for _ in range(2):  # what is wrong is told every time
        with pytest.raises(ModelConfigError):
            model_config.parse("max_batch_size: -1", "m")


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
        (
            'parameters { key: "a" value { string_value: "b" } }',
            "parameters has 'a'; known are intra_op_thread_count, fallback, nonfinite, max_queue_bytes, max_padding_ratio",
        ),
        (parameters(max_sequence="9"), r"parameters has 'max_sequence'; known are .*; did you mean 'max_sequences'\?$"),
        (parameters(sequence_windows="9"), r"parameters has 'sequence_windows'; .* did you mean 'sequence_window'\?$"),
        (
            parameters(max_sequence_idle_microseconds="9"),
            r"; max_sequence_idle_microseconds is a field: write it into sequence_batching \{ max_sequence_idle_micro",
        ),
        (parameters(zzz="9"), f"parameters has 'zzz'; known are .*{model_config.PARAMETERS[-1]}$"),
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
        (parameters(nonfinite="maybe"), "nonfinite is 'maybe'; it must be refuse or pass"),
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


def test_what_changes_no_answer_is_taken_and_named() -> None:
    text = """
        optimization { graph { level: 1 } execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } } }
        dynamic_batching { max_queue_delay_microseconds: 5 default_queue_policy { timeout_action: DELAY } }
        parameters { key: "INFERENCE_MODE" value { string_value: "true" } }
    """
    config = model_config.parse(text, "m")
    assert config.idle == (
        "optimization.execution_accelerators.gpu_execution_accelerator.name",
        "optimization.graph.level",
        "parameters.INFERENCE_MODE",
        "dynamic_batching.default_queue_policy.timeout_action (no request has a time-out: set default_timeout_microseconds or "
        "allow_timeout_override)",
    )
    assert config.policy.max_delay_ns == 5000
    assert model_config.parse("max_batch_size: 8", "m").idle == ()


def test_what_the_server_tells_of_a_model_is_no_wish() -> None:
    config = model_config.parse(parameters(**{"lstm_serving.backend": "fake", "nonfinite": "pass"}), "m")
    assert (config.backend, config.nonfinite, list(config.written.parameters)) == (None, "pass", ["nonfinite"])


def test_what_a_bare_file_is_said_to_take_is_what_it_is_reshaped_to() -> None:
    text = """
        input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] reshape { shape: [ 1, 3 ] } }
        output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }, { name: "z" data_type: TYPE_FP32 dims: [ 1, 1 ] } ]
    """
    config = model_config.parse(text, "m")
    assert model_config.stated(config) == (
        {"x": ("FP32", (1, 3))},
        {"y": ("FP32", (1,)), "z": ("FP32", (1, 1))},
    )
    assert model_config.may_be_scalars(config) == {"y", "z"}


def test_a_byte_order_mark_is_called_so() -> None:
    with pytest.raises(
        ModelConfigError, match=r"'m' does not parse: it begins with a byte order mark \(BOM\), .* save it as"
    ):
        model_config.parse("\ufeffmax_batch_size: 8", "m")
