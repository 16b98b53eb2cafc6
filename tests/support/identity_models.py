"""Files of every runtime that give back what they are given, in any of the protocol's datatypes: real ones, no LSTM."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from serving import backends
from serving.signature.spec import ModelSpec
from serving.signature.tensors import TensorSpec
from serving.verification import golden

SHAPE = (-1, -1)


def spec(datatypes: Sequence[str]) -> ModelSpec:
    """An input `in_<datatype>` and an output `out_<datatype>` of shape `[rows, anything]` for each."""
    return ModelSpec(
        inputs=tuple(TensorSpec(f"in_{kind.lower()}", kind, SHAPE) for kind in datatypes),
        outputs=tuple(TensorSpec(f"out_{kind.lower()}", kind, SHAPE) for kind in datatypes),
        lengths=None,
        state=(),
        streamable=False,
        tolerance=1e-5,
        weights_sha256="0" * 64,
        may_be_empty=True,
    )


def write(repository: Path, name: str, backend: str, datatypes: Sequence[str], labels: Sequence[str] = ()) -> None:
    """One whole version, as an exporter would write it; labels belong to the first output."""
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    WRITERS[backend](folder / backends.module(backend).FILE_NAME, datatypes)
    made = spec(datatypes)
    text = made.to_json()
    if labels:
        (repository / name / "labels.txt").write_text("\n".join(labels) + "\n")
        text = text.replace('"labels_of": ""', f'"labels_of": "{made.outputs[0].name}"')
    (folder / "spec.json").write_text(text)
    arrays = [np.zeros((1, 2), tensor.dtype) for tensor in made.inputs]
    for array in arrays:
        if array.dtype.kind == "O":
            array[...] = b"a"
    sent = {tensor.name: array for tensor, array in zip(made.inputs, arrays, strict=True)}
    answered = {tensor.name: array for tensor, array in zip(made.outputs, arrays, strict=True)}
    golden.write_samples(folder / golden.FILE_NAME, [golden.Sample(sent, answered)])


def _onnx(path: Path, datatypes: Sequence[str]) -> None:
    from onnx import TensorProto, checker, helper, save

    types = {"FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE", "BF16": "BFLOAT16", "BYTES": "STRING"}
    inputs, outputs, nodes = [], [], []
    for kind in datatypes:
        element = getattr(TensorProto, types.get(kind, kind))
        into, out = f"in_{kind.lower()}", f"out_{kind.lower()}"
        inputs.append(helper.make_tensor_value_info(into, element, ["rows", "size"]))
        outputs.append(helper.make_tensor_value_info(out, element, ["rows", "size"]))
        nodes.append(helper.make_node("Identity", [into], [out]))
    graph = helper.make_graph(nodes, "identity", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, str(path))


def _torchscript(path: Path, datatypes: Sequence[str]) -> None:
    import torch

    names = [f"in_{kind.lower()}" for kind in datatypes]

    class Identity(torch.nn.Module):
        def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...] | torch.Tensor:
            copies = tuple(tensor.clone() for tensor in tensors)
            return copies if len(copies) > 1 else copies[0]

    # Tracing asks the signature for the names of the arguments.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in ("self", *names)])
    Identity.forward.__signature__ = signature  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(Identity(), tuple(torch.zeros(1, 2) for _ in names)).save(str(path))


def _savedmodel(path: Path, datatypes: Sequence[str]) -> None:
    import tensorflow as tf

    types = {"FP16": "float16", "FP32": "float32", "FP64": "float64", "BF16": "bfloat16", "BYTES": "string"}
    signature = [
        tf.TensorSpec([None, None], types.get(kind, kind.lower()), name=f"in_{kind.lower()}") for kind in datatypes
    ]

    @tf.function(input_signature=signature)
    def identity(*tensors: object) -> dict[str, object]:
        return {f"out_{kind.lower()}": tf.identity(t) for kind, t in zip(datatypes, tensors, strict=True)}

    module = tf.Module()
    module.identity = identity
    tf.saved_model.save(module, str(path), signatures={"serving_default": identity})


WRITERS: dict[str, Callable[[Path, Sequence[str]], None]] = {
    "onnx_runtime": _onnx,
    "torchscript": _torchscript,
    "saved_model": _savedmodel,
}
