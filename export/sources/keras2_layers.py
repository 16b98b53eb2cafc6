"""What Keras 2 had and Keras 3 has not, or has with another meaning; registered, so that a rebuilt model can name it.

Keras 3 has a `hard_sigmoid` too, which is another function. The operations of TensorFlow that a functional model of Keras 2
holds as layers (`h[:, -1]`, `a + b`, `tf.reduce_mean`) come back as one layer, for operations out of a list.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

PACKAGE = "lstm_serving"

# Those that compute from tensors alone; by the names under which Keras 2 keeps them.
_MATH = (
    "abs add add_n argmax argmin cos divide divide_no_nan equal exp floormod greater greater_equal less less_equal log "
    "logical_and logical_not logical_or maximum minimum multiply negative not_equal pow reciprocal reduce_all reduce_any "
    "reduce_max reduce_mean reduce_min reduce_prod reduce_std reduce_sum reduce_variance sigmoid sign sin sqrt square "
    "squared_difference subtract tanh truediv"
)
_NN = "elu gelu l2_normalize leaky_relu log_softmax moments relu relu6 selu sigmoid silu softmax softplus softsign tanh"
_PLAIN = (
    "broadcast_to cast clip_by_value concat expand_dims gather linalg.matmul ones_like pad reshape reverse shape split squeeze "
    "stack tile transpose unstack where zeros_like"
)
_OLDER = "gather pad shape size split squeeze transpose"
_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "neg": operator.neg,
    "pow": operator.pow,
}


def _operations() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {f"math.{name}": getattr(tf.math, name) for name in _MATH.split()}
    found |= {f"nn.{name}": getattr(tf.nn, name) for name in _NN.split()}
    found |= {name: operator.attrgetter(name)(tf) for name in _PLAIN.split()}
    found |= {f"compat.v1.{name}": getattr(tf.compat.v1, name) for name in _OLDER.split()}
    for name, how in _OPERATORS.items():

        def both(x: Any, y: Any = None, name: Any = None, how: Callable[..., Any] = how) -> Any:
            return how(x) if y is None else how(x, y)

        def turned(x: Any, y: Any, name: Any = None, how: Callable[..., Any] = how) -> Any:
            return how(y, x)

        found |= {f"__operators__.{name}": both, f"__operators__.r{name}": turned}
    return found | {"__operators__.getitem": lambda x, slice_spec: x[_place(slice_spec)]}


OPERATIONS = _operations()


def _place(spec: Any) -> Any:
    """What stood in the brackets: Keras 2 keeps a slice as a dictionary, and `...` and `None` as they are told."""
    if isinstance(spec, Mapping) and "class_name" in spec:
        return Ellipsis
    if isinstance(spec, Mapping):
        return slice(spec["start"], spec["stop"], spec["step"])
    if isinstance(spec, (list, tuple)):
        return tuple(_place(part) for part in spec)
    return Ellipsis if spec == "..." else spec


@keras.saving.register_keras_serializable(PACKAGE)  # type: ignore[untyped-decorator]
def hard_sigmoid(x: Any) -> Any:
    """max(0, min(1, x / 5 + 1/2)), as Keras 2 has it (`keras/backend.py`); that of Keras 3 divides by 6."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


@keras.saving.register_keras_serializable(PACKAGE)
class TensorFlowOperation(keras.layers.Layer):  # type: ignore[misc]
    """A call of one of `OPERATIONS`. Raises `ValueError` for another one."""

    def __init__(self, function: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if function not in OPERATIONS:
            raise ValueError(f"the operation tf.{function} is not known here")
        self._function = function

    def call(self, *tensors: Any, first: Any = None, **keywords: Any) -> Any:
        """`first` is the first argument where it is a constant, since Keras takes only tensors without a keyword."""
        return OPERATIONS[self._function](*(tensors if first is None else (first, *tensors)), **keywords)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "function": self._function}
