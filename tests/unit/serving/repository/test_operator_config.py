"""What the operator has decided: which versions are served, and on which devices the instances run."""

from __future__ import annotations

import re

import pytest
from google.protobuf import text_format

from serving.errors import ModelConfigError
from serving.repository import model_config
from serving.repository.config_in_force import config_in_force
from serving.repository.routes import Routes
from tests.support import fake_models
from tests.support.fake_models import spec


def parameters(**values: str) -> str:
    """As they stand in config.pbtxt."""
    return fake_models.parameters(values)


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


def test_a_named_version_that_is_missing() -> None:
    with pytest.raises(ModelConfigError, match=re.escape("version_policy names [2]; there are [1, 3]")):
        model_config.parse("version_policy { specific { versions: [ 1, 2 ] } }", "m").versions([3, 1])


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
    shown = config_in_force(choices, spec(), "onnx_runtime", chosen, labelled=())
    again = model_config.parse(text_format.MessageToString(shown), "m")
    assert sorted(again.devices(again.device or "")) == sorted(expected)


def test_a_shadow_has_one_instance_and_what_computes_it_is_left_open() -> None:
    text = """
        backend: "pytorch" max_batch_size: 8 instance_group { kind: KIND_GPU gpus: [ 0, 1 ] count: 2 }
        parameters { key: "fallback" value { string_value: "onnxruntime@cpu" } }
        parameters { key: "version_labels" value { string_value: "stable=1" } }
    """
    config = model_config.parse(text, "m")
    shadow = config.for_shadow()
    assert (shadow.backend, shadow.device, shadow.fallback, shadow.routes) == (None, None, None, Routes())
    assert shadow.devices("cuda:1") == ["cuda:1"]
    assert (shadow.policy, shadow.written) == (config.policy, config.written)
