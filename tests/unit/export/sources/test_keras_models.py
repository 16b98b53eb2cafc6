"""`lstm-export keras`: what is recognised, what keeps its own signature, and what is said of what cannot be exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from export.__main__ import main
from export.errors import ExportError
from export.sources import keras_models
from export.sources.plain_keras import masking
from serving import backends
from serving.backends.base import Options
from serving.backends.rows_first import laid_out
from serving.signature.spec import ModelSpec
from serving.verification import golden

# Of Keras itself, whenever it saves or reads a variable beside NumPy 2.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def sequential(*stack: Any) -> Any:
    return keras.Sequential([keras.Input((None, 8), name="x"), *stack])


def tagger() -> Any:
    """Functional, tokens, two directions, an answer for every step."""
    ids = keras.Input((None,), dtype="int64", name="ids")
    hidden = layers.Embedding(11, 4, mask_zero=True)(ids)
    hidden = layers.Bidirectional(layers.LSTM(16, return_sequences=True))(hidden)
    return keras.Model(ids, layers.TimeDistributed(layers.Dense(2))(hidden))


def attention() -> Any:
    x = keras.Input((None, 8), name="x")
    steps = layers.LSTM(16, return_sequences=True)(x)
    weights = layers.Softmax(axis=1)(layers.Dense(1)(steps))
    return keras.Model(x, layers.Dense(3)(layers.Dot(axes=1)([weights, steps])[:, 0]))


PLAIN: list[tuple[str, Callable[[], Any], str]] = [
    ("values", lambda: sequential(layers.LSTM(16), layers.Dense(3)), "LSTM of 1 x 16 in one direction, values"),
    (
        "classifier",
        lambda: sequential(
            layers.Masking(0.0), layers.LSTM(16, return_sequences=True), layers.Dropout(0.3), layers.LSTM(16),
            layers.Dense(3, activation="softmax"),
        ),
        "LSTM of 2 x 16 in one direction, classification",
    ),
    (
        "both directions",
        lambda: sequential(layers.Bidirectional(layers.LSTM(16)), layers.Dense(3), layers.Softmax()),
        "LSTM of 1 x 16 in both directions, classification",
    ),
    ("no biases", lambda: sequential(layers.LSTM(16, use_bias=False), layers.Dense(3, use_bias=False)), "values"),
    ("tagger", tagger, "LSTM of 1 x 16 in both directions, values per step"),
]  # fmt: skip


def export(model: Any, folder: Path, *flags: str, form: str = "all") -> int:
    model.save(folder / "model.keras")
    return main(
        [
            "keras",
            str(folder / "model.keras"),
            *flags,
            "--format",
            form,
            "--repository",
            str(folder / "r"),
            "--name",
            "m",
        ]
    )


@pytest.mark.parametrize(
    ("build", "told"),
    [
        pytest.param(*case[1:], id=case[0], marks=[pytest.mark.slow] if case[0] in ("classifier", "tagger") else [])
        for case in PLAIN
    ],
)
def test_a_plain_stack_gets_the_canonical_signature_and_every_format(
    build: Callable[[], Any], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keras.utils.set_random_seed(3)
    model = build()
    assert export(model, tmp_path, *["--lengths"] * bool(masking(model))) == 0
    assert told in capsys.readouterr().out
    folder = tmp_path / "r" / "m" / "1"
    spec = ModelSpec.read(folder / "spec.json")
    generator = np.random.default_rng(0)
    x = generator.integers(1, 11, (3, 9)) if spec.vocabulary else generator.normal(size=(3, 9, 8)).astype(np.float32)
    state = np.zeros((3, *spec.inputs[2].shape[1:]), np.float32)
    expected = model.predict(x, verbose=0)
    for name in backends.PREFERENCE:
        module = backends.module(name)
        backend = module.load(folder / module.FILE_NAME, spec, "cpu", Options())
        got = backend.run({"x": x, "lengths": np.full(3, 9), "h0": state, "c0": state}, ["y"])["y"]
        backend.close()
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def masked() -> Any:
    return sequential(layers.Masking(), layers.LSTM(16), layers.Dense(3))


def test_a_model_that_masks_a_value_goes_on_masking_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keras.utils.set_random_seed(3)
    model = masked()
    assert export(model, tmp_path, form="onnx") == 2
    assert "with --lengths it is written so" in capsys.readouterr().err
    assert export(model, tmp_path) == 0
    folder = tmp_path / "r" / "m" / "1"
    spec = ModelSpec.read(folder / "spec.json")
    x = np.random.default_rng(0).normal(size=(4, 9, 8)).astype(np.float32)
    x[0, 6:] = x[1, :2] = x[2, 3:5] = x[3] = 0  # behind, before, within, everywhere
    backend = backends.module("saved_model").load(folder / "model.savedmodel", spec, "cpu", Options())
    np.testing.assert_allclose(backend.run({"x": x}, ["y"])["y"], model.predict(x, verbose=0), rtol=0, atol=1e-5)
    backend.close()


@pytest.mark.parametrize(
    ("build", "flags", "why"),
    [
        (lambda: sequential(layers.LSTM(16), layers.Dense(3)), (), "this one masks none: leave it out"),
        (lambda: sequential(layers.Masking(), layers.GRU(16), layers.Dense(3)), (), "it has a GRU beside LSTM"),
        (masked, ("--samples", "samples.npz"), "leave one of the two out"),
    ],
    ids=["nothing is masked", "no plain stack", "samples"],
)
def test_where_lengths_mean_nothing(
    build: Callable[[], Any], flags: tuple[str, ...], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    np.savez("samples.npz", x=np.zeros((1, 9, 8), np.float32), y=np.zeros((1, 3), np.float32))
    assert export(build(), tmp_path, "--lengths", *flags) == 2
    assert why in capsys.readouterr().err


def test_what_stood_for_padding_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(masked(), tmp_path, "--lengths", form="onnx") == 0
    told, x, lengths, *_ = capsys.readouterr().out.splitlines()
    assert "what is padding is told by lengths, which clients send" in told
    assert x.split() == ["input", "x", "FP32", "[-1,", "-1,", "8]"]
    assert lengths.split()[:3] == ["input", "lengths", "INT64"]


@pytest.mark.parametrize(
    "build",
    [
        attention,
        pytest.param(lambda: sequential(layers.LSTM(16, activation="relu"), layers.Dense(3)), marks=pytest.mark.slow),
        lambda: sequential(layers.GRU(16), layers.Dense(3)),
        pytest.param(lambda: sequential(layers.LSTM(16, go_backwards=True), layers.Dense(3)), marks=pytest.mark.slow),
        pytest.param(
            lambda: sequential(layers.Bidirectional(layers.LSTM(16), merge_mode="sum"), layers.Dense(3)),
            marks=pytest.mark.slow,
        ),
        pytest.param(lambda: sequential(layers.LSTM(16), layers.Dense(8), layers.Dense(3)), marks=pytest.mark.slow),
    ],
    ids=["attention", "relu", "gru", "backwards", "sum of directions", "two dense layers"],
)
def test_anything_else_keeps_its_own_signature(
    build: Callable[[], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keras.utils.set_random_seed(3)
    model = build()
    assert export(model, tmp_path, "--output", "answer") == 0
    said = capsys.readouterr().out
    assert "a model of its own" in said
    assert "onnx is not written: of this framework it can be had for plain stacks of LSTM and linear" in said
    folder = tmp_path / "r" / "m" / "1"
    spec = ModelSpec.read(folder / "spec.json")
    assert [(t.name, t.shape) for t in spec.inputs] == [("x", (-1, -1, 8))]
    assert [t.name for t in spec.outputs] == ["answer"]
    module = backends.module("saved_model")
    backend = laid_out(module.load(folder / module.FILE_NAME, spec, "cpu", Options()), spec)
    for sample in golden.read_samples(folder / "golden.npz"):
        np.testing.assert_allclose(
            sample.outputs["answer"], model.predict(sample.inputs["x"], verbose=0), rtol=0, atol=1e-6
        )
        golden.check_agreement("m", backend.run(sample.inputs, ["answer"]), sample.outputs, 1e-5)
    backend.close()


def test_a_tolerance_that_fits_is_suggested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keras.utils.set_random_seed(3)
    model = sequential(layers.LSTM(8), layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(stddev=200)))
    assert export(model, tmp_path, "--tolerance", "1e-9", form="onnx") == 2
    said = capsys.readouterr().err
    assert "from float64 for this network on these samples, so that is rounding" in said
    assert export(model, tmp_path, "--tolerance", said.split()[-1], form="onnx") == 0


@keras.saving.register_keras_serializable("tests")
class Doubled(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return 2 * x


@pytest.mark.parametrize(
    ("build", "form", "said"),
    [
        (attention, "onnx", "plain stacks of LSTM and dense layers only"),
        (
            lambda: sequential(
                layers.Lambda(lambda x: x + 1, output_shape=(None, 8)), layers.LSTM(16), layers.Dense(3)
            ),
            "savedmodel",
            "a Lambda layer is code and is not run",
        ),
        (
            lambda: keras.Sequential(
                [keras.Input((None, 8), batch_size=4), layers.LSTM(16, stateful=True), layers.Dense(3)]
            ),
            "savedmodel",
            "is stateful: it keeps its state from call to call",
        ),
        (
            lambda: sequential(layers.LSTM(16, return_sequences=True), layers.LSTM(12), layers.Dense(3)),
            "onnx",
            "this model is none: its LSTM layers are 12 and 16 wide",
        ),
    ],
    ids=["onnx of another", "lambda", "stateful", "unequal"],
)
def test_what_cannot_be_exported_says_why(
    build: Callable[[], Any], form: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(build(), tmp_path, form=form) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_layer_of_ones_own_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequential(Doubled(), layers.LSTM(16), layers.Dense(3)).save(tmp_path / "model.keras")
    keras.saving.get_custom_objects().pop("tests>Doubled")
    assert (
        main(
            [
                "keras",
                str(tmp_path / "model.keras"),
                "--format",
                "all",
                "--repository",
                str(tmp_path / "r"),
                "--name",
                "m",
            ]
        )
        == 2
    )
    said = capsys.readouterr().err
    assert "Doubled" in said
    assert "model.export" in said


def test_why_a_model_is_not_plain_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And that it keeps a signature of its own therefore; every reason is in `test_plain_keras`."""
    assert export(sequential(layers.LSTM(16, activation="relu"), layers.Dense(3)), tmp_path) == 0
    told = capsys.readouterr().out.splitlines()[0]
    assert told.startswith("a model of its own: its own signature, since the layer ")
    assert "is another LSTM than the usual one" in told


def test_weights_alone_are_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.weights.h5"
    sequential(layers.LSTM(16), layers.Dense(3)).save_weights(path)
    assert main(["keras", str(path), "--format", "all", "--repository", str(tmp_path / "r"), "--name", "m"]) == 2
    assert "lstm-export keras MODULE:FACTORY --weights FILE" in capsys.readouterr().err


def test_a_folder_goes_by_import_and_an_ending_must_be_one_of_keras(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "best.model").touch()
    for path, said in ((tmp_path, f"lstm-export import {tmp_path}"), (tmp_path / "best.model", "ends in '.model'")):
        assert main(["keras", str(path), "--format", "all", "--repository", str(tmp_path / "r"), "--name", "m"]) == 2
        assert said in capsys.readouterr().err


def test_a_file_that_is_not_there_or_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path / "nowhere.keras", tmp_path / "text.keras"):
        if path.stem == "text":
            path.write_text("no")
        assert main(["keras", str(path), "--format", "all", "--repository", str(tmp_path / "r"), "--name", "m"]) == 2
        assert path.name in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "of"),
    [("old.keras", "m.h5"), ("renamed.h5", "m.keras"), ("SHOUTED.H5", "m.h5"), ("long.hdf5", "m.h5")],
    ids=["HDF5 called .keras", "a zip called .h5", "capitals", "hdf5"],
)
def test_a_file_is_read_by_what_it_is(name: str, of: str, tmp_path: Path) -> None:
    model = sequential(layers.LSTM(4), layers.Dense(3))
    model.save(tmp_path / of)
    (tmp_path / of).rename(tmp_path / name)
    x = np.ones((1, 5, 8), np.float32)
    np.testing.assert_allclose(keras_models.load_model(tmp_path / name)(x), model(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "kept", "said"),
    [
        ("m.h5", 0.5, "m.h5 is damaged HDF5 (Unable to synchronously open file (truncated file"),
        ("m.keras", 0.5, "m.keras is no file of Keras, neither HDF5 nor a whole zip; its"),
        ("m.h5", 0, "its 0 bytes are something else, or were cut off on the way here"),
    ],
    ids=["half of an HDF5", "half of a zip", "nothing"],
)
def test_a_damaged_file_is_called_so(name: str, kept: float, said: str, tmp_path: Path) -> None:
    sequential(layers.LSTM(4), layers.Dense(3)).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ExportError) as caught:
        keras_models.load_model(tmp_path / name)
    assert said in str(caught.value)


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built:UserWarning")
def test_a_model_that_was_saved_before_it_was_built(tmp_path: Path) -> None:
    keras.Sequential([layers.LSTM(4), layers.Dense(3)]).save(tmp_path / "m.keras")
    with pytest.raises(ExportError, match=r"saved before it knew its input: put keras\.Input"):
        keras_models.load_model(tmp_path / "m.keras")
