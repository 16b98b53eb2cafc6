"""Models for the fake backend, written as an exporter would: for tests of everything that is not computing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from serving.backends import fake
from serving.backends.base import Options
from serving.signature.spec import LengthsSpec, ModelSpec, StatePair, TensorSpec
from serving.verification import golden

FEATURES = 3
STATE = (-1, 1, 4)


def spec(*, vocabulary: int = 0, per_step: bool = False) -> ModelSpec:
    """The canonical signature, small."""
    datatype, shape = ("INT64", (-1, -1)) if vocabulary else ("FP32", (-1, -1, FEATURES))
    x = TensorSpec("x", datatype, shape, steps_axis=1)
    y = TensorSpec("y", "FP32", (-1, -1, 2), steps_axis=1) if per_step else TensorSpec("y", "FP32", (-1, 2))
    return ModelSpec(
        inputs=(
            x,
            TensorSpec("lengths", "INT64", (-1,)),
            TensorSpec("h0", "FP32", STATE),
            TensorSpec("c0", "FP32", STATE),
        ),
        outputs=(y, TensorSpec("hn", "FP32", STATE), TensorSpec("cn", "FP32", STATE)),
        lengths=LengthsSpec("lengths", "x"),
        state=(StatePair("h0", "hn"), StatePair("c0", "cn")),
        streamable=True,
        tolerance=1e-5,
        weights_sha256="0" * 64,
        vocabulary=vocabulary,
    )


def write(
    repository: Path,
    name: str = "fake",
    version: int = 1,
    *,
    model_spec: ModelSpec | None = None,
    delay_seconds: float = 0.0,
    delay_on: float | None = None,
    fail_on: float | None = None,
    die_on: float | None = None,
    fail_while: str | None = None,
    config: str | None = None,
) -> Path:
    """Writes one whole version and returns its folder; what it does beside summing is said in `serving.backends.fake`."""
    model_spec = model_spec or spec()
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    artifact = folder / fake.FILE_NAME
    artifact.write_text(json.dumps({"delay_seconds": 0.0}))
    rows, steps = 2, 3
    inputs = {
        tensor.name: np.zeros([size if size > 0 else steps for size in (rows, *tensor.shape[1:])], tensor.dtype)
        for tensor in model_spec.inputs
    }
    inputs["lengths"] = np.array([steps, 1], np.int64)
    inputs["x"] += 1
    outputs = fake.load(artifact, model_spec, "cpu", Options()).run(inputs, [t.name for t in model_spec.outputs])
    golden.write_samples(folder / golden.FILE_NAME, [golden.Sample(inputs, outputs)])
    (folder / "spec.json").write_text(model_spec.to_json())
    behaviour = {"delay_seconds": delay_seconds, "delay_on": delay_on, "fail_on": fail_on, "die_on": die_on}
    artifact.write_text(json.dumps(behaviour | {"fail_while": fail_while}))
    if config is not None:
        (repository / name / "config.pbtxt").write_text(config)
    return folder


def published(repository: Path, version: int, *faults: object) -> Path:
    """A version of the model `fake` that appears at once, as an exporter publishes it."""
    folder = write(repository.parent / "made", version=version)
    for fault in faults:
        fault(folder)  # type: ignore[operator]
    target = repository / "fake" / str(version)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(target)
    return folder.rename(target)


def parameters(values: Mapping[str, str]) -> str:
    """The text form, as in `config.pbtxt`."""
    return "\n".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in values.items()
    )
