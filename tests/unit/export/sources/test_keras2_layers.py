"""What stands for things of Keras 2 computes what they did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from export.sources.keras2_layers import OPERATIONS, TensorFlowOperation, hard_sigmoid


def test_hard_sigmoid_reaches_its_ends_at_two_and_a_half() -> None:
    got = np.asarray(hard_sigmoid(tf.constant([-9.0, -2.5, -1.0, 0.0, 1.0, 2.5, 9.0])))
    np.testing.assert_allclose(got, [0, 0, 0.3, 0.5, 0.7, 1, 1], atol=1e-6)


X = np.arange(1, 13, dtype=np.float32).reshape(2, 3, 2)


@pytest.mark.parametrize(
    ("function", "keywords", "expected"),
    [
        ("__operators__.add", {"y": 2.0}, X + 2),
        ("__operators__.rsub", {"y": 2.0}, 2 - X),
        ("__operators__.rtruediv", {"y": 2.0}, 2 / X),
        ("__operators__.neg", {}, -X),
        ("__operators__.getitem", {"slice_spec": {"start": 1, "stop": None, "step": None}}, X[1:]),
        ("__operators__.getitem", {"slice_spec": [{"class_name": "__ellipsis__"}, 0]}, X[..., 0]),
        (
            "__operators__.getitem",
            {"slice_spec": [{"start": None, "stop": None, "step": None}, -1, None]},
            X[:, -1, None],
        ),
        ("math.reduce_mean", {"axis": 1}, X.mean(1)),
        ("compat.v1.transpose", {"perm": [1, 0, 2]}, X.transpose(1, 0, 2)),
    ],
)
def test_operations(function: str, keywords: dict[str, Any], expected: Any) -> None:
    np.testing.assert_allclose(TensorFlowOperation(function)(X, **keywords), expected, rtol=1e-6)


def test_a_constant_may_come_first() -> None:
    np.testing.assert_allclose(TensorFlowOperation("math.subtract")(first=1.0, y=X), 1 - X)


def test_only_operations_of_the_list() -> None:
    with pytest.raises(ValueError, match=r"the operation tf\.io\.read_file is not known here"):
        TensorFlowOperation("io.read_file")
    assert not any(name.startswith(("io.", "py_function", "numpy_function")) for name in OPERATIONS)


def test_its_configuration_makes_it_anew() -> None:
    config = TensorFlowOperation("math.exp", name="theirs").get_config()
    assert TensorFlowOperation.from_config(config).get_config() == config
