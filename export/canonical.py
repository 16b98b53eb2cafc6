"""The one signature that every exported file has, whatever its format: four inputs, three outputs, none optional.

One graph therefore serves whole sequences and streams alike. The batch is axis 0 of the recurrent state too; each
format transposes it inside, where its own operators want it elsewhere.
"""

from __future__ import annotations

from models.config import LSTMConfig
from serving.signature.spec import LengthsSpec, StatePair, TensorSpec

LENGTHS = LengthsSpec(input="lengths", of="x")
STATE = (StatePair(input="h0", output="hn"), StatePair(input="c0", output="cn"))


def inputs(config: LSTMConfig) -> tuple[TensorSpec, ...]:
    """`x`, `lengths`, `h0`, `c0`, in the order of every file."""
    x = (
        TensorSpec("x", "INT64", (-1, -1), steps_axis=1)  # [rows, steps]
        if config.input == "tokens"
        else TensorSpec("x", "FP32", (-1, -1, config.features), steps_axis=1)  # [rows, steps, features]
    )
    return (x, TensorSpec("lengths", "INT64", (-1,)), _state(config, "h0"), _state(config, "c0"))


def outputs(config: LSTMConfig) -> tuple[TensorSpec, ...]:
    """`y`, `hn`, `cn`, in the order of every file."""
    per_step = config.head == "values_per_step"
    y = (
        TensorSpec("y", "FP32", (-1, -1, config.outputs), steps_axis=1)  # [rows, steps, outputs]
        if per_step
        else TensorSpec("y", "FP32", (-1, config.outputs))
    )
    return (y, _state(config, "hn"), _state(config, "cn"))


def _state(config: LSTMConfig, name: str) -> TensorSpec:
    """Recurrent state: [rows, layers * directions, hidden], layer by layer, the forward direction first."""
    return TensorSpec(name, "FP32", (-1, config.layers * config.directions, config.hidden))
