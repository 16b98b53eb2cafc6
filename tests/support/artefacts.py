"""Something to load for every backend: the table that a new backend needs one line in.

The configurations are the whole cross product of what an `LSTMConfig` can say, three layers deep, with a hidden size of
5, so that no two axes have the same length by accident.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export import canonical, formats
from models.checkpoint import Weights, expected_shapes, weights_digest
from models.config import LSTMConfig
from serving import backends
from serving.signature.spec import ModelSpec

HIDDEN = 5
FEATURES = LSTMConfig(input="features", features=3, layers=2, hidden=HIDDEN, outputs=4)
TOKENS = LSTMConfig(input="tokens", vocabulary=11, embedding=4, layers=2, hidden=HIDDEN, outputs=4)


def _every_config() -> list[LSTMConfig]:
    inputs: tuple[dict[str, Any], ...] = (
        {"input": "features", "features": 3},
        {"input": "tokens", "vocabulary": 11, "embedding": 4},
    )
    heads = ("classification", "values", "values_per_step")
    return [
        LSTMConfig(**fields, layers=layers, hidden=HIDDEN, bidirectional=bidirectional, head=head, outputs=4)
        for fields, layers, bidirectional, head in itertools.product(inputs, (1, 2, 3), (False, True), heads)
    ]


CONFIGS = _every_config()


def described(config: LSTMConfig) -> str:
    """A short name for a test's id."""
    return f"{config.input}-{config.layers}x{config.directions}-{config.head}"


def weights(config: LSTMConfig, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Weights as PyTorch initialises them, U(-1, 1) / sqrt(hidden), with scalings that are far from 0 and 1."""
    generator = np.random.default_rng(seed)
    made = {}
    for name, shape in expected_shapes(config).items():
        if name.endswith(".scale"):
            array = generator.uniform(0.5, 2.0, shape)
        elif name.endswith(".mean"):
            array = generator.uniform(-2.0, 2.0, shape)
        else:
            array = generator.uniform(-1.0, 1.0, shape) / np.sqrt(config.hidden)
        made[name] = array.astype(np.float32)
    return made


def far_from_zero(array: Weights) -> dict[str, npt.NDArray[np.float32]]:
    """The same weights for inputs whose means are so far from 0 that float32 has few digits left around them."""
    return {**array, "input.mean": (1e4 * array["input.mean"]).astype(np.float32)}


def spec(config: LSTMConfig, array: Weights) -> ModelSpec:
    """The facts that an exporter would write."""
    return ModelSpec(
        inputs=canonical.inputs(config),
        outputs=canonical.outputs(config),
        lengths=canonical.LENGTHS,
        state=canonical.STATE,
        streamable=config.streamable,
        tolerance=1e-5,
        weights_sha256=weights_digest(array),
        vocabulary=config.vocabulary,
    )


def batch(
    config: LSTMConfig,
    rows: int,
    steps: int,
    *,
    seed: int = 0,
    full: bool = False,
    state: bool = True,
    lengths: npt.NDArray[np.int64] | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """A batch in the canonical signature; the padding holds NaN, or an id that no vocabulary has.

    Rows are as long as `lengths` says, all of `steps` when `full`, else of random length.
    """
    generator = np.random.default_rng(seed)
    if lengths is None:
        lengths = np.full(rows, steps, np.int64) if full else generator.integers(1, steps + 1, rows)
    behind = np.arange(steps) >= lengths[:, None]
    if config.input == "tokens":
        x: npt.NDArray[Any] = generator.integers(0, config.vocabulary, (rows, steps))
        x[behind] = 2**40
    else:
        x = generator.normal(0.0, 2.0, (rows, steps, config.features)).astype(np.float32)
        x[behind] = np.nan
    shape = (rows, config.layers * config.directions, config.hidden)
    h0, c0 = ((generator.uniform(-0.5, 0.5, shape) * state).astype(np.float32) for _ in range(2))
    return {"x": x, "lengths": lengths, "h0": h0, "c0": c0}


def _written(form: str) -> Callable[[LSTMConfig, Weights, Path], None]:
    return lambda config, array, path: formats.writer(form).write(config, array, path)


def _fake(config: LSTMConfig, array: Weights, path: Path) -> None:
    path.write_text('{"delay_seconds": 0.0, "fail_on": null}')


MAKERS: dict[str, Callable[[LSTMConfig, Weights, Path], None]] = {
    "onnx_runtime": _written("onnx"),
    "torchscript": _written("torchscript"),
    "saved_model": _written("savedmodel"),
    "fake": _fake,
}


def make(backend: str, config: LSTMConfig, array: Weights, folder: Path) -> Path:
    """Writes what `backend` reads into `folder`, under the name that it reads."""
    assert backend in MAKERS, f"backend {backend} is new: give it a line in MAKERS of tests/support/artefacts.py"
    path = folder / backends.module(backend).FILE_NAME
    MAKERS[backend](config, array, path)
    return path
