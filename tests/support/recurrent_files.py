"""ONNX files of others that keep a state: an LSTM with its state in as many layouts as people export, and a plain decay.

    write(path, NAME) -> File

An LSTM takes x `[rows, steps, FEATURES]`; a decay takes x `[rows, FEATURES]`, one step at a time, and rounds its state to a
datatype of few digits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.support import graphs
from tests.support.arrays import session

FEATURES, HIDDEN = 3, 4
Array = npt.NDArray[Any]
_NUMBERS = {
    "FP16": (10, np.float16),
    "FP32": (1, np.float32),
    "FP64": (11, np.float64),
    "INT32": (6, np.int32),
}  # as ONNX does
Node = tuple[str, list[str], list[str]] | tuple[str, list[str], list[str], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class File:
    """Its path, its state by pairs, the shape of each for one row where the rows are on `axis`, and their datatype."""

    path: Path
    pairs: Mapping[str, str]
    shape: tuple[int, ...]
    axis: int
    datatype: str
    stepwise: bool = False  # one step at a time

    def fresh(self) -> dict[str, Array]:
        """Zeros for a single row, as the file takes them."""
        return {
            name: np.expand_dims(np.zeros(self.shape, _NUMBERS[self.datatype][1]), self.axis) for name in self.pairs
        }

    def alone(self, x: Array, state: Mapping[str, Array] | None = None) -> Array:
        """What the file answers to all of `x` `[1, steps, FEATURES]`, run with nothing of ours around it."""
        run, kept = session(self.path), dict(state or self.fresh())
        if not self.stepwise:
            return np.asarray(run.run(["y"], {"x": x, **kept})[0])
        answers = []
        for step in np.moveaxis(x, 1, 0):
            y, *new = run.run(["y", *self.pairs.values()], {"x": step, **kept})
            kept = dict(zip(self.pairs, new, strict=True))
            answers.append(y)
        return np.stack(answers, axis=1)


def _weights(layer: int) -> dict[str, Array]:
    generator, width = np.random.default_rng(layer), FEATURES if layer == 0 else HIDDEN
    shapes = {"W": (1, 4 * HIDDEN, width), "R": (1, 4 * HIDDEN, HIDDEN), "B": (1, 8 * HIDDEN)}
    return {f"{name}{layer}": generator.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def _layer(layer: int, into: str, h: str, c: str, hn: str, cn: str) -> list[Node]:
    """From `into` `[steps, rows, width]` to `steps<layer>`, the state as the operator has it: `[1, rows, HIDDEN]`."""
    weights = [f"W{layer}", f"R{layer}", f"B{layer}"]
    return [
        ("LSTM", [into, *weights, "", h, c], [f"all{layer}", hn, cn], {"hidden_size": HIDDEN}),
        ("Squeeze", [f"all{layer}", "one"], [f"steps{layer}"]),
    ]


def _lstm(path: Path, pairs: Mapping[str, str], *, axis: int = 1, kind: str = "FP32", merged: bool = False) -> File:
    """Of `pairs` each two are the h and the c of a layer; a merged one is both of the only layer, `[2, rows, HIDDEN]`."""
    layers = 1 if merged else len(pairs) // 2
    number, _ = _NUMBERS[kind]
    nodes: list[Node] = [("Transpose", ["x"], ["in_time"], {"perm": [1, 0, 2]})]
    kept: dict[str, Array] = {"one": np.array([1]), "front": np.array([0])}
    into, names, outs = "in_time", list(pairs), list(pairs.values())
    for layer in range(layers):
        kept |= _weights(layer)
        h, c, hn, cn = (f"{what}{layer}" for what in ("h_op", "c_op", "hn_op", "cn_op"))
        if merged:
            nodes.append(("Split", names, [h, c], {"axis": 0, "num_outputs": 2}))
        for before, inside in [] if merged else zip(names[2 * layer : 2 * layer + 2], (h, c), strict=True):
            nodes.append(("Cast", [before], [f"{inside}_here"], {"to": 1}))
            nodes.append(_if(axis == 0, "Unsqueeze", f"{inside}_here", inside))
        nodes += _layer(layer, into, h, c, hn, cn)
        if merged:
            nodes.append(("Concat", [hn, cn], outs, {"axis": 0}))
        for inside, after in [] if merged else zip((hn, cn), outs[2 * layer : 2 * layer + 2], strict=True):
            nodes.append(_if(axis == 0, "Squeeze", inside, f"{inside}_there"))
            nodes.append(("Cast", [f"{inside}_there"], [after], {"to": number}))
        into = f"steps{layer}"
    nodes.append(("Transpose", [into], ["y"], {"perm": [1, 0, 2]}))
    shape = (2, HIDDEN) if merged else (HIDDEN,) if axis == 0 else (1, HIDDEN)
    sizes: list[int | str] = [*shape]
    sizes.insert(axis, "rows")
    inputs = {"x": ("FP32", ["rows", "n", FEATURES]), **dict.fromkeys(pairs, (kind, sizes))}
    outputs = {"y": ("FP32", ["rows", "n", HIDDEN]), **dict.fromkeys(pairs.values(), (kind, sizes))}
    graphs.write(path, nodes, inputs, outputs, kept, opset=18)
    return File(path, pairs, shape, axis, kind)


def _if(so: bool, operator: str, into: str, out: str) -> Node:
    """An operator along the first axis, or nothing at all."""
    return (operator, [into, "front"], [out]) if so else ("Identity", [into], [out])


def _decay(path: Path, kind: str) -> File:
    """The next state is half of the last and ten times x, rounded to `kind`; y is that."""
    number, _ = _NUMBERS[kind]
    nodes: list[Node] = [
        ("Cast", ["memory_in"], ["before"], {"to": 1}),
        ("Mul", ["before", "half"], ["left"]),
        ("Mul", ["x", "ten"], ["more"]),
        ("Add", ["left", "more"], ["sum"]),
        ("Cast", ["sum"], ["memory_out"], {"to": number}),
        ("Cast", ["memory_out"], ["y"], {"to": 1}),
    ]
    kept: dict[str, Array] = {"half": np.float32(0.5).reshape(()), "ten": np.float32(10).reshape(())}
    row = ["rows", FEATURES]
    inputs, outputs = {"x": ("FP32", row), "memory_in": (kind, row)}, {"y": ("FP32", row), "memory_out": (kind, row)}
    graphs.write(path, nodes, inputs, outputs, kept)
    return File(path, {"memory_in": "memory_out"}, (FEATURES,), 0, kind, stepwise=True)


WRITERS: Mapping[str, Callable[[Path], File]] = {
    # Sorted by name the inputs are a (the h) and b, the outputs k (the next c) and z: by their order each would get the other.
    "crossed": lambda path: _lstm(path, {"a": "z", "b": "k"}),
    "rows_in_the_middle": lambda path: _lstm(path, {"h": "hn", "c": "cn"}),
    "rows_first": lambda path: _lstm(path, {"h_in": "h_out", "c_in": "c_out"}, axis=0),
    "merged": lambda path: _lstm(path, {"state": "stateN"}, merged=True),
    "four": lambda path: _lstm(path, {f"{name}_in": f"{name}_out" for name in ("h1", "c1", "h2", "c2")}),
    "double": lambda path: _lstm(path, {"h": "hn", "c": "cn"}, kind="FP64"),
    "half": lambda path: _decay(path, "FP16"),
    "whole": lambda path: _decay(path, "INT32"),
}


def write(path: Path, name: str) -> File:
    """One of `WRITERS`."""
    return WRITERS[name](path)
