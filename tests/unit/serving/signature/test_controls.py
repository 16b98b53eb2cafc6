"""What a control input holds, and that a specification knows it and its file does not."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from serving.errors import RepositoryError
from serving.signature.controls import CORRID, END, READY, START, ControlInput
from serving.signature.spec import ModelSpec, fill_in, fresh
from serving.signature.tensors import TensorSpec
from tests.support import fake_models


@pytest.mark.parametrize(
    ("kind", "off", "on", "resting"),
    [(START, 0, 1, 0), (END, -1.0, 1.0, -1.0), (READY, 0, 1, 1), (READY, True, False, False), (CORRID, "", "", "")],
)
def test_at_rest_a_step_is_ready_and_in_no_particular_place(
    kind: str, off: object, on: object, resting: object
) -> None:
    assert ControlInput("c", kind, off, on).resting == resting  # type: ignore[arg-type]


def test_strings_are_bytes_in_an_array() -> None:
    control = ControlInput("c", CORRID, "", "")
    assert control.value("café", np.dtype(object)) == "café".encode()
    assert control.value(7, np.dtype(object)) == b"7"
    assert control.value(7, np.dtype("<u8")) == 7


def with_controls() -> ModelSpec:
    plain = fake_models.spec()
    more = (
        TensorSpec("first", "FP32", (-1, 1)),
        TensorSpec("ready", "BOOL", (-1,)),
        TensorSpec("whose", "BYTES", (-1, 1)),
    )
    controls = (
        ControlInput("first", START, 0.5, 1.0),
        ControlInput("ready", READY, False, True),
        ControlInput("whose", CORRID, "", ""),
    )
    return dataclasses.replace(plain, inputs=(*plain.inputs, *more), controls=controls, state_shown=("hn",))


def test_clients_see_no_control_and_the_server_fills_it_in() -> None:
    spec = with_controls()
    assert [tensor.name for tensor in spec.advertised_inputs] == ["x"]
    assert [tensor.name for tensor in spec.advertised_outputs] == ["y", "hn"]
    inputs = {"x": np.zeros((2, 4, fake_models.FEATURES), np.float32)}
    fill_in(inputs, spec, 2)
    np.testing.assert_array_equal(inputs["first"], np.full((2, 1), 0.5, np.float32))
    np.testing.assert_array_equal(inputs["ready"], [True, True])
    assert inputs["whose"].tolist() == [[b""], [b""]]
    assert fresh(spec.inputs_by_name["first"], spec, [1, 3], [4, 4]).shape == (4, 1)


def test_they_are_the_operators_and_in_no_file() -> None:
    spec = with_controls()
    written = json.loads(spec.to_json())
    assert not {"controls", "state_shown"} & written.keys()
    read = ModelSpec.from_json(spec.to_json(), "here")
    assert read == dataclasses.replace(spec, controls=(), state_shown=())
    with pytest.raises(RepositoryError, match="it has 'controls', which is no key there"):
        ModelSpec.from_json(json.dumps(written | {"controls": []}), "here")
