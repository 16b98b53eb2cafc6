"""`lstm-export keras MODULE:FACTORY`: what is read as a file would be, and what stays with the user's code."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from export.__main__ import main
from serving import backends
from serving.backends.base import Options
from serving.signature.spec import ModelSpec
from tests.support.in_this_process import in_this_process
from tests.unit.export import user_keras

__all__ = ["in_this_process"]
MODELS = "tests.unit.export.user_keras"

pytestmark = [
    pytest.mark.usefixtures("in_this_process"),
    # Of Keras itself, whenever it saves or reads a variable beside NumPy 2.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


def export(factory: str, repository: Path, *flags: str, form: str = "all") -> int:
    return main(
        ["keras", f"{MODELS}:{factory}", *flags, "--format", form, "--repository", str(repository), "--name", "m"]
    )


def test_a_model_of_standard_layers_is_one_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plain stack gets the canonical signature, with the weights of the file."""
    keras.utils.set_random_seed(3)
    trained = user_keras.plain()
    trained.save_weights(tmp_path / "best.weights.h5")
    assert export("plain", tmp_path / "r", "--weights", str(tmp_path / "best.weights.h5")) == 0
    said = capsys.readouterr().out
    assert said.startswith("a plain LSTM of 1 x 16 in one direction, values: the canonical signature, every format")
    assert "no --weights" not in said
    folder = tmp_path / "r" / "m" / "1"
    spec = ModelSpec.read(folder / "spec.json")
    assert (spec.source["module"], spec.source["weights"]) == (f"{MODELS}:plain", "best.weights.h5")
    x = np.random.default_rng(0).normal(size=(3, 9, 8)).astype(np.float32)
    state = np.zeros((3, 1, 16), np.float32)
    backend = backends.module("onnx_runtime").load(folder / "model.onnx", spec, "cpu", Options())
    got = backend.run({"x": x, "lengths": np.full(3, 9), "h0": state, "c0": state}, ["y"])["y"]
    np.testing.assert_allclose(got, trained(x), rtol=0, atol=1e-6)


def test_an_input_without_a_name_is_a_plain_stack_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Keras calls such an input otherwise in the code than in what it reads back."""
    assert user_keras.without_names().inputs[0].name.startswith("keras_tensor")
    assert export("without_names", tmp_path, form="onnx") == 0
    assert capsys.readouterr().out.startswith(
        "a plain LSTM of 1 x 16 in one direction, values: the canonical signature"
    )


@pytest.mark.parametrize(
    "factory",
    [
        "with_a_layer_of_its_own",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("with_a_function_of_its_own", "with_inputs")),
    ],
)
def test_a_layer_of_its_own_is_run_and_written_by_the_users_code(
    factory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keras rebuilds none of these from a file without the code that made it."""
    assert export(factory, tmp_path) == 0
    said = capsys.readouterr().out
    assert "since it cannot be rebuilt without the code that made it (a layer or a function of its own)" in said
    assert "no --weights: the network keeps the values that" in said
    spec = ModelSpec.read(tmp_path / "m" / "1" / "spec.json")
    assert [(tensor.name, tensor.shape) for tensor in (*spec.inputs, *spec.outputs)] == [
        ("x", (-1, -1, 8)),
        ("y", (-1, 3)),
    ]


@pytest.mark.parametrize(
    ("factory", "form", "said"),
    [
        ("with_a_layer_of_its_own", "onnx", "and this model is none: it cannot be rebuilt without the code"),
        ("without_inputs", "all", "does not say what its inputs are; let FACTORY return keras.Model(x, network(x))"),
        ("with_a_number_of_python", "all", "TensorFlow cannot write the model as a SavedModel: "),
        ("nobody", "all", "has no attribute 'nobody'"),
    ],
)
def test_what_cannot_be_exported_says_why(
    factory: str, form: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(factory, tmp_path, form=form) == 2
    assert said in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_weights_go_with_code_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["keras", "best.keras", "--weights", "w.h5", "--format", "all", "--name", "m"]
    assert main([*arguments, "--repository", str(tmp_path)]) == 2
    assert "--weights belong to MODULE:FACTORY, and best.keras is a file" in capsys.readouterr().err
