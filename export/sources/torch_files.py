"""What torch itself writes of a module: ONNX by its exporter, TorchScript by scripting or, where that fails, by tracing.

Torch has two exporters to ONNX; this asks the older one. Its graph is smaller, and where it bakes in a loop or a branch,
the proof of the file finds that.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from export.errors import ExportError
from export.sources import own_signature
from export.sources.plain_torch import flat
from serving.backends.base import first_line
from serving.signature.spec import ModelSpec, Tensors

OPSET = 17
STDOUT = 1


class Eager(nn.Module):
    """The module with its arguments by name and its results as one flat tuple; what torch's own exporters are given."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module = module
        self.names = names

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(flat(self.module(*tensors)))

    def run(self, sent: Tensors) -> list[npt.NDArray[Any]]:
        with torch.inference_mode():
            return [tensor.numpy() for tensor in self(*self.tensors(sent))]

    def tensors(self, sent: Tensors) -> tuple[Tensor, ...]:
        return tuple(torch.tensor(sent[name]) for name in self.names)


def _write_onnx(eager: Eager, spec: ModelSpec, path: Path) -> str:
    tensors = (*spec.inputs, *spec.outputs)
    axes = {t.name: [axis for axis, size in enumerate(t.file_shape) if size == -1] for t in tensors}
    with _quiet():
        try:
            torch.onnx.export(
                eager,
                eager.tensors(own_signature.example(spec, 2, 9)),
                str(path),
                input_names=[tensor.name for tensor in spec.inputs],
                output_names=[tensor.name for tensor in spec.outputs],
                dynamic_axes={name: free for name, free in axes.items() if free},
                opset_version=OPSET,
                dynamo=False,
            )
        except Exception as error:
            raise ExportError(_cannot("onnx", error)) from error
    return ""


def _write_torchscript(eager: Eager, spec: ModelSpec, path: Path) -> str:
    """Scripted where its arguments have the names of the inputs and it returns tensors unnested, else traced."""
    arguments = list(inspect.signature(eager.module.forward).parameters)
    answer = eager.module(*eager.tensors(own_signature.example(spec, 2, 9)))
    unnested = isinstance(answer, Tensor) or all(isinstance(part, Tensor) for part in answer)
    why = f"forward takes {', '.join(arguments)} and the inputs are {', '.join(eager.names)}"
    with _quiet():
        if not unnested:
            why = "forward returns tuples within tuples"
        elif arguments == list(eager.names):
            try:
                torch.jit.script(eager.module).save(str(path))  # type: ignore[no-untyped-call]
                return ""
            except Exception as error:  # noqa: BLE001 - what cannot be scripted is traced, and the trace is proved
                why = first_line(error)
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        names = [inspect.Parameter(name, kind) for name in ("self", *eager.names)]
        named = type("Traced", (Eager,), {"forward": _forward(inspect.Signature(names))})(eager.module, eager.names)
        try:
            example = eager.tensors(own_signature.example(spec, 2, 9))
            torch.jit.trace(named, example, check_trace=False).save(str(path))  # type: ignore[no-untyped-call]
        except Exception as error:
            raise ExportError(_cannot("torchscript", error)) from error
    return f"it could not be scripted and was traced: {why}"


def _forward(signature: inspect.Signature) -> Any:
    def forward(self: Eager, *tensors: Tensor) -> Any:
        answers = tuple(flat(self.module(*tensors)))
        return answers if len(answers) > 1 else answers[0]

    forward.__signature__ = signature  # type: ignore[attr-defined]  # tracing asks it for the names of the arguments
    return forward


WRITERS = {"onnx": ("onnx_runtime", _write_onnx), "torchscript": ("torchscript", _write_torchscript)}


def _cannot(form: str, error: Exception) -> str:
    (other,) = set(WRITERS) - {form}
    return (
        f"torch cannot write the module as {form}: {type(error).__name__}: {first_line(error)}; "
        f"take --format {other}, or replace in the module what this speaks of"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides warnings, and the whole graph that torch prints, past Python's own stdout, when it cannot write it."""
    sys.stdout.flush()
    kept = os.dup(STDOUT)
    with warnings.catch_warnings(), Path(os.devnull).open("wb") as nowhere:
        warnings.simplefilter("ignore")
        os.dup2(nowhere.fileno(), STDOUT)
        try:
            yield
        finally:
            os.dup2(kept, STDOUT)
            os.close(kept)
