"""Brings a Keras model that a user's code builds into a model repository: `lstm-export keras MODULE:FACTORY --weights FILE`.

The code runs in a child process (`export.user_code`), which loads the weights and saves the model as a `.keras` file. What can be
read here without any code but Keras's own, and answers the same, is a model like any other then. The rest (a layer or a
function of the user's) stays in the child, which runs it and writes the SavedModel.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from export.errors import ExportError
from export.sources import keras_models, plain
from export.sources.keras_models import Ask
from export.user_code import keras_part
from export.user_code.asking import Raised, UserCode
from export.versions import Target, Version
from serving.signature.spec import ModelSpec
from serving.signature.tensors import DTYPES, Tensors
from serving.verification import golden
from serving.verification.hints import Hints


class KerasInChild:
    """A model by the names of its inputs; it runs in `code`'s process."""

    def __init__(self, code: UserCode) -> None:
        self._code = code
        self.digest = str(code.facts["digest"])
        self.stated = keras_models.stated_inputs(code.facts["inputs"])

    def run(self, sent: Tensors) -> list[npt.NDArray[Any]]:
        """Its answers, flat. Raises `Raised` for an error of the user's code."""
        return list(self._code.ask("run", {name: sent[name] for name in self.stated}).arrays.values())

    def traced(self) -> Ask | None:
        """As `run`, by the graph that is written; None where it cannot be traced."""
        if not self._code.ask("trace").header["able"]:
            return None
        return lambda sent: list(
            self._code.ask("run_traced", {name: sent[name] for name in self.stated}).arrays.values()
        )

    def run_float64(self, sent: Tensors) -> list[npt.NDArray[Any]] | None:
        """As `run`, in float64; None where it cannot."""
        header, arrays, _ = self._code.ask("run_float64", {name: sent[name] for name in self.stated})
        return list(arrays.values()) if header["able"] else None

    def write(self, spec: ModelSpec, path: Path) -> str:
        """Has Keras write it as a SavedModel. Raises `ExportError` when that fails."""
        outputs = [tensor.name for tensor in spec.outputs]
        try:
            self._code.ask("write", doing="while TensorFlow wrote it", path=str(path.absolute()), outputs=outputs)
        except Raised as error:
            raise ExportError(
                f"TensorFlow cannot write the model as a SavedModel: {error}; let its layers use operations of Keras (keras.ops) "
                "or TensorFlow alone, not NumPy or Python's own numbers"
            ) from error
        return ""


def publish_factory(
    code: UserCode,
    *,
    chosen: Sequence[str] | None,
    outputs: Sequence[str],
    hints: Hints,
    target: Target,
    lengths: bool = False,
) -> tuple[Version, str]:
    """Writes the model of `code` as a version, and says as what. Raises what `keras_models.publish_model` raises."""
    target.check()
    network = KerasInChild(code)
    asked: dict[str, Any] = {"chosen": chosen, "outputs": outputs, "hints": hints, "target": target}
    model, why = _rebuilt(code, network)
    if model is not None:
        return keras_models.publish_model(model, **asked, lengths=lengths)
    if lengths:
        raise ExportError(f"--lengths is for plain stacks of LSTM and dense layers, and {code.where} gives none: {why}")
    if not network.stated:
        raise ExportError(
            f"{code.where} gives a model that does not say what its inputs are; let FACTORY return keras.Model(x, network(x)) "
            "with x = keras.Input((None, 8), name='x')"
        )
    why = plain.TOLD_MORE if outputs or hints != Hints() else why
    return keras_models.publish_network(network, why, **asked, where=f"its keras.Input in {code.where}")


def _rebuilt(code: UserCode, network: KerasInChild) -> tuple[Any, str]:
    """The model, made of its `.keras` file without the user's code; or None, and why it cannot be."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        try:
            code.ask("save", doing="while Keras saved it", path=str(file))
            model = keras_models.load_model(file)
        except (Raised, ExportError):
            return None, "it cannot be rebuilt without the code that made it (a layer or a function of its own)"
    return (
        (model, "") if _same(model, network) else (None, "rebuilt without the code that made it, it answers otherwise")
    )


def _same(model: Any, network: KerasInChild) -> bool:
    """Whether both answer the same to ones, five rows of five steps.

    Inputs are compared in their order: one that nobody has named, Keras names anew when it reads the model.
    """
    if [*keras_models.stated_inputs(keras_part.inputs(model)).values()] != [*network.stated.values()]:
        return False
    sent = {
        name: np.ones([size if size > 0 else 5 for size in shape or ()], DTYPES[datatype])
        for name, (datatype, shape) in network.stated.items()
        if datatype in DTYPES
    }
    try:
        here = [np.asarray(answer) for answer in keras_part.flat(model, [tf.constant(each) for each in sent.values()])]
        there = network.run(sent)
    except Exception:  # noqa: BLE001 - whatever a model raises; it is told when the model of the user is run
        return False
    return len(here) == len(there) and all(
        golden.disagreement(a, b) <= plain.SAME for a, b in zip(here, there, strict=True)
    )
