"""The canonical layout of weights, and the folder that holds them: where frameworks and formats meet.

A checkpoint is `config.json` (an `LSTMConfig`), `weights.safetensors` (the arrays named below) and `training.json`
(facts about its making). Each framework has one reader that brings its network to this layout and back; each export
format has one writer that starts from it. So every framework reaches every format, and weights move between the
frameworks for free.

Layout, all float32, for layer `l` from 0 and direction `d` in {`forward`, `backward`}:

| name | shape |
|---|---|
| `embedding` | [vocabulary, embedding] (tokens only) |
| `input.mean`, `input.scale` | [features] (features only) |
| `lstm.l.d.weight_input` | [4 * hidden, inputs of the layer] |
| `lstm.l.d.weight_hidden` | [4 * hidden, hidden] |
| `lstm.l.d.bias_input`, `lstm.l.d.bias_hidden` | [4 * hidden] (they add up; with one bias, the second is 0) |
| `head.weight`, `head.bias` | [outputs, hidden * directions], [outputs] |
| `output.mean`, `output.scale` | [outputs] (heads of values only) |

The four blocks along the first axis are the gates in the order input, forget, cell, output, each `[hidden, ...]`
(Hochreiter and Schmidhuber 1997 with the forget gate of Gers, Schmidhuber and Cummins 2000; no peepholes):
`i, f, o = sigmoid(...)`, `g = tanh(...)`, `c = f * c + i * g`, `h = o * tanh(c)`.

For two directions the head reads `[forward's state after the last true step, backward's state after the first step]`,
that is, each direction's own last state, the forward one first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.config import ConfigError, LSTMConfig
from models.examples import Examples, ExamplesError

Weights = Mapping[str, npt.NDArray[np.float32]]

DIRECTIONS = ("forward", "backward")


class CheckpointError(ValueError):
    """A checkpoint folder that is incomplete or contradicts itself; the message says which file and what is wrong."""


def expected_shapes(config: LSTMConfig) -> dict[str, tuple[int, ...]]:
    """The name and shape of every array that a checkpoint of this network holds, in the order of the computation."""
    shapes: dict[str, tuple[int, ...]] = {}
    if config.input == "tokens":
        shapes["embedding"] = (config.vocabulary, config.embedding)
    else:
        shapes["input.mean"] = shapes["input.scale"] = (config.features,)
    gates = 4 * config.hidden
    for layer in range(config.layers):
        for direction in DIRECTIONS[: config.directions]:
            prefix = f"lstm.{layer}.{direction}"
            shapes[f"{prefix}.weight_input"] = (gates, config.layer_inputs(layer))
            shapes[f"{prefix}.weight_hidden"] = (gates, config.hidden)
            shapes[f"{prefix}.bias_input"] = shapes[f"{prefix}.bias_hidden"] = (gates,)
    shapes["head.weight"] = (config.outputs, config.hidden * config.directions)
    shapes["head.bias"] = (config.outputs,)
    if config.head != "classification":
        shapes["output.mean"] = shapes["output.scale"] = (config.outputs,)
    return shapes


def no_scaling(config: LSTMConfig) -> dict[str, npt.NDArray[np.float32]]:
    """The scaling arrays of a network that scales nothing: means of 0 and scales of 1."""
    return {
        name: np.full(shape, name.endswith(".scale"), np.float32)
        for name, shape in expected_shapes(config).items()
        if name.endswith((".mean", ".scale"))
    }


def check_weights(config: LSTMConfig, weights: Weights) -> None:
    """Raises `CheckpointError` unless `weights` holds exactly the arrays of `expected_shapes`, float32 and finite."""
    expected = expected_shapes(config)
    if missing := sorted(expected.keys() - weights.keys()):
        raise CheckpointError(f"weights lack {', '.join(missing)}, which this configuration needs")
    if extra := sorted(weights.keys() - expected.keys()):
        raise CheckpointError(f"weights hold {', '.join(extra)}, which this configuration does not know")
    for name, shape in expected.items():
        array = weights[name]
        if array.shape != shape or array.dtype != np.float32:
            raise CheckpointError(
                f"{name} is {array.dtype} {list(array.shape)}; this configuration needs float32 {list(shape)}"
            )
        if not np.isfinite(array).all():
            raise CheckpointError(f"{name} holds values that are not finite; the training has diverged")
        if name.endswith(".scale") and not (array > 0).all():
            raise CheckpointError(f"{name} must be positive everywhere; its smallest value is {array.min()}")


def weights_digest(weights: Weights) -> str:
    """SHA-256 (hex) over names, shapes and bytes of all arrays, sorted by name: the identity of the weights."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name], dtype="<f4")
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trained network, free of any framework.

    `framework` is "torch" or "keras", the one that trained it; `training` is JSON-ready: `scores`, `seed`, `versions`,
    `data` and whatever else says how it was made. `labels` are the class names in the order of the outputs (empty
    unless the head is a classification). `samples` are some real inputs, each `[steps, features]` float32 or `[steps]`
    int64, that an export is tried on beside random ones. `test` is what the test score was measured on, if it is known, so
    that it can be measured again.
    """

    config: LSTMConfig
    weights: Weights
    framework: str
    training: Mapping[str, Any]
    labels: tuple[str, ...] = ()
    samples: tuple[npt.NDArray[Any], ...] = ()
    test: Examples | None = None

    def __post_init__(self) -> None:
        check_weights(self.config, self.weights)
        if self.framework not in ("torch", "keras"):
            raise CheckpointError(f"framework is {self.framework!r}; it must be torch or keras")
        if self.labels and len(self.labels) != self.config.outputs:
            raise CheckpointError(f"{len(self.labels)} labels for {self.config.outputs} outputs")
        for index, sample in enumerate(self.samples):
            tokens = self.config.input == "tokens"
            wanted = (len(sample),) if tokens else (len(sample), self.config.features)
            if sample.shape != wanted or not len(sample) or sample.dtype != (np.int64 if tokens else np.float32):
                kind = "int64 [steps]" if tokens else f"float32 [steps, {self.config.features}]"
                raise CheckpointError(f"sample {index} is {sample.dtype} {list(sample.shape)}; it must be {kind}")

    def save(self, folder: Path) -> None:
        """Writes the checkpoint into `folder`, made if it is not there; what an earlier save left there is replaced.

        `training.json` goes first and comes last: a folder that has it is complete, whenever the writing was cut off.
        """
        from safetensors.numpy import save

        folder.mkdir(parents=True, exist_ok=True)
        for stale in ("training.json", "samples.safetensors", "test.safetensors"):
            (folder / stale).unlink(missing_ok=True)
        (folder / "config.json").write_text(self.config.to_json())
        weights = {name: np.ascontiguousarray(array) for name, array in self.weights.items()}
        (folder / "weights.safetensors").write_bytes(
            save(weights)
        )  # save_file would make it readable to its owner only
        if self.samples:
            samples = {str(index): np.ascontiguousarray(sample) for index, sample in enumerate(self.samples)}
            (folder / "samples.safetensors").write_bytes(save(samples))
        if self.test is not None:
            (folder / "test.safetensors").write_bytes(save(_packed(self.test)))
        facts = {"framework": self.framework, "labels": list(self.labels), **self.training}
        unfinished = folder / "training.json.unfinished"
        unfinished.write_text(json.dumps(facts, indent=2) + "\n")
        unfinished.replace(folder / "training.json")

    @staticmethod
    def framework_of(folder: Path) -> str:
        """What says to have trained the checkpoint in `folder`, known or not. Raises `CheckpointError` as `load` does.

        Needs no package, so that it can be asked which ones `load` and the network will need.
        """
        _check_whole(folder)
        try:
            return str(_read_object(folder / "training.json").get("framework"))
        except CheckpointError as error:
            raise CheckpointError(f"{folder} is not a usable checkpoint: {error}") from error

    @classmethod
    def load(cls, folder: Path) -> Checkpoint:
        """Reads what `save` wrote. Raises `CheckpointError` when a file is missing, broken or misfits the rest."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        _check_whole(folder)
        try:
            config = LSTMConfig.from_mapping(_read_object(folder / "config.json"))
            weights = load_file(folder / "weights.safetensors")
            training = _read_object(folder / "training.json")
            samples_file = folder / "samples.safetensors"
            samples = load_file(samples_file) if samples_file.is_file() else {}
            test_file = folder / "test.safetensors"
            test = _unpacked(load_file(test_file)) if test_file.is_file() else None
            if missing := {"framework", "labels"} - training.keys():
                raise CheckpointError(f"training.json lacks {', '.join(sorted(missing))}")
            if samples.keys() != {str(i) for i in range(len(samples))}:
                raise CheckpointError(
                    f"samples.safetensors holds {', '.join(sorted(samples))}, which are not 0, 1, 2 ..."
                )
            return cls(
                config=config,
                weights=weights,
                framework=training.pop("framework"),
                labels=tuple(training.pop("labels")),
                training=training,
                samples=tuple(samples[str(i)] for i in range(len(samples))),
                test=test,
            )
        except (ConfigError, CheckpointError, ExamplesError, SafetensorError, KeyError) as error:
            raise CheckpointError(f"{folder} is not a usable checkpoint: {error}") from error


def _check_whole(folder: Path) -> None:
    for name in ("config.json", "weights.safetensors", "training.json"):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder / name} is missing: {folder} holds no finished training run; make one with lstm-train"
            )


def _packed(test: Examples) -> dict[str, npt.NDArray[Any]]:
    """Sequences as `x/0`, `x/1`, ...; targets as `targets`, or per step as `targets/0`, ..."""
    arrays = {f"x/{i}": np.ascontiguousarray(sequence) for i, sequence in enumerate(test.sequences)}
    if isinstance(test.targets, np.ndarray):
        return {**arrays, "targets": np.ascontiguousarray(test.targets)}
    return arrays | {f"targets/{i}": np.ascontiguousarray(target) for i, target in enumerate(test.targets)}


def _unpacked(arrays: Mapping[str, npt.NDArray[Any]]) -> Examples:
    count = sum(name.startswith("x/") for name in arrays)
    sequences = [arrays[f"x/{i}"] for i in range(count)]
    return Examples(
        sequences, arrays["targets"] if "targets" in arrays else [arrays[f"targets/{i}"] for i in range(count)]
    )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise CheckpointError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.name} holds a {type(value).__name__} where an object belongs")
    return value
