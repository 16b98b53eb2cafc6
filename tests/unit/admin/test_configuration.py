"""What a swap changes in a configuration, how it is told, and what is no configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf import text_format

from admin.configuration import described, read_config, swapped
from admin.server import UsageError
from protos.model_config_pb2 import ModelConfig, ModelInstanceGroup


def group(text: str) -> ModelInstanceGroup:
    return text_format.Parse(text, ModelInstanceGroup())


def test_with_the_backend_goes_what_names_the_old_one() -> None:
    before = text_format.Parse(
        'backend: "onnxruntime" platform: "onnxruntime_onnx" default_model_filename: "model.onnx" max_batch_size: 16',
        ModelConfig(),
    )
    after = text_format.Parse('backend: "pytorch" max_batch_size: 16', ModelConfig())
    for name in ("pytorch", "torchscript", "pytorch_libtorch"):
        assert swapped(before, name, None, None) == after
    assert swapped(before, "mine", None, None).backend == "mine"
    assert swapped(before, None, None, None) == before


@pytest.mark.parametrize(
    ("written", "device", "count", "expected"),
    [
        ([], "cpu", None, "kind: KIND_CPU"),
        (["kind: KIND_GPU gpus: [0, 1] count: 2"], "cpu", None, "kind: KIND_CPU count: 2"),
        (
            ['name: "a" kind: KIND_GPU gpus: 0', 'name: "b" kind: KIND_CPU'],
            None,
            2,
            'name: "a" kind: KIND_GPU gpus: 0 count: 2',
        ),
    ],
)
def test_groups_of_instances(written: list[str], device: str | None, count: int | None, expected: str) -> None:
    config = ModelConfig(instance_group=[group(text) for text in written])
    assert list(swapped(config, None, device, count).instance_group) == [group(expected)]
    assert list(config.instance_group) == [group(text) for text in written]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('backend: "pytorch"', "pytorch"),
        ('platform: "onnxruntime_onnx" instance_group { kind: KIND_CPU }', "onnxruntime_onnx on cpu"),
        ('backend: "pytorch" instance_group { kind: KIND_GPU gpus: [0, 1] count: 2 }', "2 x pytorch on cuda:0, cuda:1"),
        ('backend: "b" instance_group { kind: KIND_AUTO } instance_group { kind: KIND_CPU }', "b on auto and b on cpu"),
    ],
)
def test_what_computes_in_a_few_words(text: str, expected: str) -> None:
    assert described(text_format.Parse(text, ModelConfig())) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [("c.json", '{"max_batch_size": 4}'), ("c", '{"maxBatchSize": 4}'), ("c.pbtxt", "max_batch_size: 4 # ours")],
)
def test_a_configuration_is_json_or_text_by_its_name(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_config(tmp_path / name) == ModelConfig(max_batch_size=4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", b'{"max_batch_sise": 4}', "c.json is no ModelConfig in JSON .*max_batch_sise"),
        (
            "c.json",
            b'backend: "pytorch"',
            "c.json is no ModelConfig in JSON .its text form would have to end with .pbtxt",
        ),
        ("c.pbtxt", b"max_batch_size: 4\nspeed: 1", "c.pbtxt is no ModelConfig in text form: 2:1 .*speed"),
        ("c.json", b"\xff", "c.json is no ModelConfig"),
        ("c.json", None, "c.json cannot be read: No such file"),
    ],
)
def test_a_configuration_that_is_none(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as refused:
        read_config(tmp_path / name)
    assert re.search(message, str(refused.value))
    assert "\n" not in str(refused.value)
