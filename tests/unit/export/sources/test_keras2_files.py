"""Models that Keras 2 has saved (tests/data/keras2/make.py says how) answer in Keras 3 what they answered there."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from export.__main__ import main
from export.errors import ExportError
from export.sources import keras2_files
from export.sources.keras_models import load_model
from serving.signature.spec import ModelSpec

# Of Keras itself, whenever it reads a variable beside NumPy 2.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
ARCHIVE = Path(__file__).parents[3] / "data" / "keras2" / "models.tar.xz"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras2")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def export(path: Path, repository: Path) -> int:
    return main(["keras", str(path), "--format", "all", "--repository", str(repository), "--name", "m"])


@pytest.mark.parametrize(
    "name",
    [
        "sequential.h5", "sequential.keras", "functional.h5", "functional.keras", "tokens.h5", "stateful.h5", "with_state.h5",
        "operations.h5", "hard.h5", "nested.h5", "nested.keras",
    ],
)  # fmt: skip
def test_a_model_answers_as_in_keras_2(name: str, models: Path) -> None:
    path = models / name
    assert keras2_files.version_of(path) == "2.21.0"
    model = load_model(path)
    arrays = np.load(path.with_suffix(".npz"))
    inputs = [arrays[key] for key in arrays.files if key.startswith("in")]
    answers = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    answers = answers if isinstance(answers, (list, tuple)) else [answers]
    for got, expected in zip(answers, (arrays[key] for key in arrays.files if key.startswith("out")), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "told", "inputs"),
    [
        pytest.param(
            "functional.h5",
            "it has a BatchNormalization beside LSTM and dense layers; rows proved apart",
            "x FP32",
            marks=pytest.mark.slow,
        ),
        pytest.param("tokens.h5", "rows proved apart", "embedding_input INT32", marks=pytest.mark.slow),
        ("with_state.h5", "rows proved apart", "x FP32"),
    ],
)
def test_it_is_exported_like_any_model(
    name: str, told: str, inputs: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(models / name, tmp_path) == 0
    assert told in capsys.readouterr().out
    spec = ModelSpec.read(tmp_path / "m" / "1" / "spec.json")
    assert f"{spec.inputs[0].name} {spec.inputs[0].datatype}" == inputs
    assert spec.batched


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("weights.h5", "holds weights without their model; weights need the code that makes it: lstm-export keras MODULE:FACT"),
        ("code.h5", "and the layer lambda is a Lambda, which is code of its own and is not run; build it in code of your own"),
        ("stateful.h5", "the layer lstm_4 is stateful"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(
    name: str, said: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(models / name, tmp_path / "r") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_checkpoint_of_tensorflow_holds_weights_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("model.index", "model.data-00000-of-00001"):
        (tmp_path / name).touch()
        assert export(tmp_path / name, tmp_path / "r") == 2
        assert "is a checkpoint of TensorFlow, which holds weights without their model" in capsys.readouterr().err


def test_weights_where_keras_2_12_kept_them(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.keras"
    with zipfile.ZipFile(models / "sequential.keras") as there, zipfile.ZipFile(path, "w") as archive:
        for name in there.namelist():
            there.extract(name, tmp_path)
            if name.endswith(".h5"):
                with h5py.File(tmp_path / name, "r+") as file:
                    file.move("layers", "_layer_checkpoint_dependencies")
            archive.write(tmp_path / name, name)
    arrays = np.load(models / "sequential.npz")
    np.testing.assert_allclose(keras2_files.load(path)(arrays["in0"]), arrays["out0"], rtol=0, atol=1e-6)


def altered(models: Path, folder: Path, **keywords: Any) -> Path:
    """The sequential model with other keywords of its first LSTM layer."""
    path = folder / "altered.h5"
    path.write_bytes((models / "sequential.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1]["config"] |= keywords
        file.attrs["model_config"] = json.dumps(config)
    return path


def test_a_keyword_that_changes_nothing_is_left_out(models: Path, tmp_path: Path) -> None:
    keras2_files.load(
        altered(models, tmp_path, time_major=False, implementation=1, kernel_regularizer={"any": "thing"})
    )


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"time_major": True}, "has time_major = True, which Keras 3 cannot do"),
        ({"of_their_own": 3}, "has of_their_own = 3, which Keras 3 cannot do"),
    ],
)
def test_a_keyword_that_does_something_is_named(
    keywords: dict[str, Any], said: str, models: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=rf"the layer lstm\w* \(LSTM\) {said}"):
        keras2_files.load(altered(models, tmp_path, **keywords))
