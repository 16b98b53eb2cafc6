"""TorchScript through libtorch: `torch.jit.load`, none of the exporter's code needed.

The TF32 switches belong to the *process*, not to a module: the last model loaded decides for all. The number of threads belongs
to the thread that computes, and is told before its first call: one that is not told takes all cores until a large batch.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.backends import cudnn_weights, recognised
from serving.backends.base import (
    DEVICE_LOST,
    OUT_OF_MEMORY,
    Contents,
    Options,
    cuda_lost,
    distinct,
    first_line,
    installed_version,
)
from serving.errors import BackendUnavailable, RepositoryError
from serving.machine import background, devices, files
from serving.signature.spec import ModelSpec
from serving.signature.stated import Stated
from serving.signature.tensors import BF16, Tensors, TensorSpec

FILE_NAME = "model.pt"
PACKAGE = "torch"
ONE_BY_ONE = True
COMPARISONS = tuple(f"aten::{name}" for name in ("eq", "ne", "lt", "le", "gt", "ge"))
TRITON_NAMES = ("pytorch", "pytorch_libtorch")
TEXT_ONLY = False
LEVELS = ("all",)

# As torch loads them.
LIBRARIES = ("lib/libtorch_global_deps.so", "lib/libtorch_cpu.so", "lib/libtorch.so")
CONFIG_EXAMPLE = """\
max_batch_size: 64
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 8 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
"""


def version() -> str:
    """That of PyTorch."""
    return installed_version("torch")


def available(device: str) -> None:
    """Raises `BackendUnavailable` unless PyTorch, and for "cuda:N" a CUDA build, a driver and that GPU, are here."""
    index = devices.cuda_index(device)
    devices.require_package("torch", "torch")
    if index is None:
        return
    devices.require_gpu(index)
    torch = _torch()
    if torch.version.cuda is None:
        raise BackendUnavailable(
            f"this torch ({torch.__version__}) is built for CPUs: pip install --force-reinstall "
            "'lstm-serving[torch]' --index-url https://download.pytorch.org/whl/cu130"
        )
    if index >= torch.cuda.device_count():
        raise BackendUnavailable(f"torch sees {torch.cuda.device_count()} GPUs, so there is no {device} for it")


def bring_in() -> None:
    """Imports PyTorch."""
    _torch()


def stated(artifact: Path) -> tuple[Mapping[str, Stated], Mapping[str, Stated]]:
    """Always raises `RepositoryError`: a TorchScript file states neither shapes nor datatypes nor names of outputs."""
    if told := recognised.unlike(artifact, "torchscript", "TorchScript"):
        raise RepositoryError(told)
    raise RepositoryError(
        f"{artifact} states no shapes and no datatypes, so something else must: write them into config.pbtxt beside the "
        "version (dims without the rows if max_batch_size is set), as in:\n"
        f"{CONFIG_EXAMPLE}"
        "or import the file with: lstm-export import FILE --input NAME:FP32[-1,-1,8] --output NAME:FP32[-1,2] ..."
    )


def contents(artifact: Path) -> Contents:
    """The constants of its code, first what something is compared with, and its small buffers.

    Of how rows flow it shows nothing, since its code may be anything.

    Raises `RepositoryError` when it cannot be read.
    """
    module = _loaded(artifact, "cpu")
    arrays = [buffer.numpy() for buffer in module.buffers() if buffer.dtype != _torch().bfloat16]
    compared = []
    texts: dict[str, None] = {}
    graph = module.inlined_graph  # its nodes go when nobody holds it
    for node in graph.findAllNodes("prim::Constant"):
        held = node.output().toIValue()
        if isinstance(held, int | float) and any(use.user.kind() in COMPARISONS for use in node.output().uses()):
            compared.append(np.array(held))
        for one in held if isinstance(held, list | tuple) else [held]:
            if isinstance(one, str):
                texts[one] = None
            elif isinstance(one, int | float):
                arrays.append(np.array(one))
            elif isinstance(one, _torch().Tensor) and one.dtype != _torch().bfloat16:
                arrays.append(one.numpy())
    numbers = list(dict.fromkeys([*distinct(compared), *distinct(arrays)]))
    return Contents(constants=numbers, texts=list(texts))


@contextlib.contextmanager
def careful() -> Iterator[None]:
    """Without oneDNN, whose LSTM does not look at the sizes of the state and writes where it must not.

    Of the process, like the threads: other models go round oneDNN meanwhile.
    """
    with _torch().backends.mkldnn.flags(enabled=False):
        yield


def lost(error: Exception) -> str:
    """Whether CUDA has no memory left or the device is gone."""
    torch = _torch()
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return OUT_OF_MEMORY
    return DEVICE_LOST if isinstance(error, torch.AcceleratorError) else cuda_lost(error)


def load(artifact: Path, spec: ModelSpec, device: str, options: Options) -> TorchScriptBackend:
    """Reads a TorchScript file for `device`.

    Raises `RepositoryError` when the file is missing, corrupt or does not fit `spec`, `BackendUnavailable` when the
    device cannot be taken.
    """
    available(device)
    if not files.is_plain(artifact):
        raise RepositoryError(f"{artifact} is missing: the version holds no {FILE_NAME}")
    torch = _torch()
    if devices.cuda_index(device) is not None:
        torch.backends.cuda.matmul.allow_tf32 = options.allow_tf32
        torch.backends.cudnn.allow_tf32 = options.allow_tf32
    module = _loaded(artifact, device)
    _check(artifact, spec, module.forward.schema)
    module.eval()
    if devices.cuda_index(device) is not None:
        cudnn_weights.compact(module)
    return TorchScriptBackend(module, spec, device, options.threads)


def _loaded(artifact: Path, device: str) -> Any:
    torch = _torch()
    try:
        return torch.jit.load(str(artifact), map_location=device)
    except (torch.cuda.OutOfMemoryError, torch.AcceleratorError) as error:
        raise BackendUnavailable(f"{device} cannot take {artifact}: {first_line(error)}") from error
    except (RuntimeError, ValueError) as error:
        if told := recognised.unlike(artifact, "torchscript", "TorchScript"):
            raise RepositoryError(told) from error
        raise RepositoryError(f"{artifact} cannot be read by torch.jit.load: {first_line(error)}") from error


class TorchScriptBackend:
    """A loaded TorchScript file; see `serving.backends.base.Backend`. All outputs are always computed."""

    def __init__(self, module: Any, spec: ModelSpec, device: str, threads: int) -> None:
        self._module = module
        self._threads = threads
        self._here = threading.local()
        self._inputs = tuple(tensor.name for tensor in _by_position(spec.inputs))
        self._outputs = tuple(tensor.name for tensor in _by_position(spec.outputs))
        self._device = device

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        import torch

        if not hasattr(self._here, "told"):
            torch.set_num_threads(self._threads)
            self._here.told = True
        with torch.inference_mode():
            # torch.tensor copies: a view of read-only memory would warn, and an answer could share memory with it.
            answer = self._module(*[_tensor(inputs[name], self._device) for name in self._inputs])
        tensors = answer if isinstance(answer, tuple) else (answer,)
        named = dict(zip(self._outputs, tensors, strict=True))
        return {name: _array(named[name].cpu()) for name in outputs}

    def close(self) -> None:
        self._module = None


def _torch() -> Any:
    return background.bring_in(PACKAGE, LIBRARIES)


def _tensor(array: npt.NDArray[Any], device: str) -> Any:
    import torch

    if array.dtype.kind == "V":
        return torch.tensor(array.view(np.int16), device=device).view(torch.bfloat16)
    return torch.tensor(array, device=device)


def _array(tensor: Any) -> npt.NDArray[Any]:
    import torch

    if tensor.dtype == torch.bfloat16:
        bits: npt.NDArray[Any] = tensor.contiguous().view(torch.int16).numpy()
        return bits.view(BF16)
    plain: npt.NDArray[Any] = tensor.numpy()
    return plain


def _check(artifact: Path, spec: ModelSpec, schema: Any) -> None:
    """A TorchScript file states the names of its inputs and how many outputs it has; it states no shapes or dtypes."""
    if strings := [tensor.name for tensor in (*spec.inputs, *spec.outputs) if tensor.datatype == "BYTES"]:
        raise RepositoryError(f"{artifact}: {', '.join(strings)} are BYTES, and torch has no tensors of strings")
    arguments = [argument.name for argument in schema.arguments[1:]]  # the first is the module itself
    names = [_argument(position, tensor, arguments) for position, tensor in enumerate(_by_position(spec.inputs))]
    if names != arguments:
        raise RepositoryError(
            f"{artifact}: forward takes {', '.join(arguments)}, but {spec.written_in} names "
            f"{', '.join(tensor.name for tensor in spec.inputs)}: they must agree, in this order"
        )
    (returned,) = (value.type for value in schema.returns)
    count = len(returned.elements()) if returned.kind() == "TupleType" else 1
    if count != len(spec.outputs):
        raise RepositoryError(f"{artifact} returns {count} outputs, but {spec.written_in} names {len(spec.outputs)}")


def _by_position(tensors: Sequence[TensorSpec]) -> Sequence[TensorSpec]:
    """In the order of the file: by Triton's convention `NAME__<position>` where all names keep it, else as they are written."""
    found = [re.fullmatch(r".+__([0-9]{1,4})", tensor.name) for tensor in tensors]
    positions = [int(match[1]) for match in found if match]
    if sorted(positions) != list(range(len(tensors))):
        return tensors
    return [tensor for _, tensor in sorted(zip(positions, tensors, strict=True), key=lambda pair: pair[0])]


def _argument(position: int, tensor: TensorSpec, arguments: Sequence[str]) -> str:
    """The argument that `tensor` feeds: by its name, or by Triton's convention `NAME__<position>`."""
    by_position = re.fullmatch(rf".+__{position}", tensor.name)
    return arguments[position] if by_position and position < len(arguments) else tensor.name
