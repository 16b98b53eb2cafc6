"""Between our order of axes and a file's own: rows first at every border, wherever the file has them.

Files that `lstm-export checkpoint` wrote have the rows first and go round this. An input that all rows share comes here
once for each row, since that is what travels through batches, and the file gets it once.
"""

from __future__ import annotations

from collections.abc import Sequence

from serving.backends.base import Backend
from serving.signature.axes import from_file, to_file
from serving.signature.spec import ModelSpec, Tensors


def laid_out(backend: Backend, spec: ModelSpec) -> Backend:
    """The backend itself where the file has the rows first everywhere, else one that moves them."""
    if all(tensor.rows_axis == 0 for tensor in (*spec.inputs, *spec.outputs)):
        return backend
    return LaidOutBackend(backend, spec)


class LaidOutBackend:
    """A backend whose file has an order of axes of its own; see `serving.backends.base.Backend`."""

    def __init__(self, backend: Backend, spec: ModelSpec) -> None:
        self._backend = backend
        self._inputs = {tensor.name: tensor for tensor in spec.inputs}
        self._outputs = {tensor.name: tensor for tensor in spec.outputs}

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        fed = {name: to_file(array, self._inputs[name]) for name, array in inputs.items()}
        return {name: from_file(array, self._outputs[name]) for name, array in self._backend.run(fed, outputs).items()}

    def close(self) -> None:
        self._backend.close()
