"""A trained network behind one numpy face, whichever framework it lives in: what an export is judged against.

    network = models.networks.load(checkpoint)
    answer = network.predict({"x": x, "lengths": lengths, "h0": h0, "c0": c0})    # y, hn, cn

A framework is imported only when a network of it is asked for, so that exporting a network that PyTorch trained needs
no TensorFlow, and importing this module needs neither.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.checkpoint import Checkpoint, Weights
from models.config import LSTMConfig
from models.inputs import Arrays

FRAMEWORKS = ("torch", "keras")


class Network(Protocol):
    """One network in one framework. Not safe to call from two threads at once."""

    config: LSTMConfig

    def predict(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """The canonical signature: `x`, `lengths`, `h0`, `c0` in, float32 `y`, `hn`, `cn` out, without dropout.

        `x` is float32 `[rows, steps, features]` in raw units or int64 `[rows, steps]`; `h0`, `c0`, `hn`, `cn` are
        `[rows, layers * directions, hidden]`, index `layer * directions + direction`. All but `x` may be left out.
        `y` is probabilities `[rows, classes]`, values `[rows, outputs]` in raw units, or `[rows, steps, outputs]` with
        exactly 0 behind a row's length. What lies behind a length changes nothing. Raises
        `models.inputs.InputError`.
        """
        ...

    def canonical_weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """A copy of the weights in the layout of `models.checkpoint`."""
        ...

    def load_canonical(self, weights: Weights) -> None:
        """The inverse of `canonical_weights`. Raises `models.checkpoint.CheckpointError` when they do not fit."""
        ...


def build(framework: str, config: LSTMConfig) -> Network:
    """A freshly initialised network in `framework`, "torch" or "keras". Raises `ValueError` for any other."""
    if framework == "torch":
        from models.torch_lstm import TorchLSTM

        return TorchLSTM(config)
    if framework == "keras":
        silence_tensorflow()
        from models.keras_lstm import KerasLSTM

        network: Network = KerasLSTM(config)
        return network
    raise ValueError(f"framework is {framework!r}; it must be one of {', '.join(FRAMEWORKS)}")


def load(checkpoint: Checkpoint, framework: str | None = None) -> Network:
    """The checkpoint's network, in the framework that trained it or in the one that `framework` names."""
    network = build(framework or checkpoint.framework, checkpoint.config)
    network.load_canonical(checkpoint.weights)
    return network


def silence_tensorflow() -> None:
    """Keeps TensorFlow's start-up messages off stderr; only of use before TensorFlow is first imported.

    What the user has set in the environment is left as it is. Since TensorFlow 2.20 no log level hides the message
    about oneDNN, only going without it does, which also keeps the rounding of the plain kernels.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
