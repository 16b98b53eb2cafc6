"""ONNX Runtime: the fastest answer to one row, and the smallest server (nothing but numpy beside it).

Its Python API carries strings as text and knows no bfloat16; a file that takes or gives the latter is refused.

An `InferenceSession` asked for CUDA quietly computes on the CPU when the CUDA libraries do not load. What it really
took is therefore asked for afterwards, and anything less is refused.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.backends import onnx_graph, recognised
from serving.backends.base import Contents, Options, cuda_lost, first_line, installed_version
from serving.backends.plain_words import remedy
from serving.errors import BackendUnavailable, RepositoryError
from serving.machine import background, devices, files, priority
from serving.signature.spec import ModelSpec
from serving.signature.stated import INPUTS, OUTPUTS, Stated, check
from serving.signature.tensors import Tensors

FILE_NAME = "model.onnx"
PACKAGE = "onnxruntime"
ONE_BY_ONE = False
TRITON_NAMES = ("onnxruntime", "onnxruntime_onnx")
TEXT_ONLY = True
# Its passes over a file: "all" adds to the others, which fuse nodes, how data lies in memory and casts that are moved. The last
# is where release 1.32.0 of the CPU package ends with a segmentation fault, on a float16 LSTM before a float16 linear layer.
LEVELS = ("all", "extended", "basic")

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}


def version() -> str:
    """That of ONNX Runtime, whichever of its packages is here."""
    return installed_version("onnxruntime", "onnxruntime-gpu")


def available(device: str) -> None:
    """Raises `BackendUnavailable` unless ONNX Runtime is here, and for "cuda:N" its GPU build, a driver, that GPU."""
    index = devices.cuda_index(device)
    devices.require_package("onnxruntime", "onnx" if index is None else "onnx-gpu")
    if installed_version("onnxruntime") and installed_version("onnxruntime-gpu"):
        raise BackendUnavailable(
            "onnxruntime and onnxruntime-gpu are both installed, and each overwrites the other's files; repair it "
            "with: pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'lstm-serving[onnx]' (or [onnx-gpu])"
        )
    if index is None:
        return
    devices.require_gpu(index)
    onnxruntime = _onnxruntime()
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise BackendUnavailable(
            "this onnxruntime is built for CPUs: pip uninstall -y onnxruntime && pip install 'lstm-serving[onnx-gpu]'"
        )


def bring_in() -> None:
    """Imports ONNX Runtime."""
    _onnxruntime()


def stated(artifact: Path) -> tuple[Mapping[str, Stated], Mapping[str, Stated]]:
    """What the file says of its inputs and outputs. Raises `RepositoryError` when it cannot be read."""
    available("cpu")
    if not files.is_plain(artifact):
        raise RepositoryError(f"{artifact} is missing: the version holds no {FILE_NAME}")
    session = _session(artifact, None, Options(level="basic"))  # nothing will be computed
    return _both_sides(artifact, session)


def contents(artifact: Path) -> Contents:
    """The constants of the graph, and how rows flow through it. Raises `RepositoryError` when it cannot be read."""
    model = onnx_graph.reading.read(artifact)
    if model is None:
        return Contents()
    numbers, texts = onnx_graph.reading.constants(model)
    return Contents(
        constants=numbers,
        texts=texts,
        mixed=functools.partial(onnx_graph.rows.mixed, model),
        may_be_empty=onnx_graph.empties.taken(model),
    )


def careful() -> AbstractContextManager[None]:
    """Nothing to do: it raises by itself."""
    return contextlib.nullcontext()


def lost(error: Exception) -> str:
    """Whether CUDA has no memory left or the device is gone; on the CPU a failed run leaves the session as it was."""
    return cuda_lost(error)


def load(artifact: Path, spec: ModelSpec, device: str, options: Options) -> OnnxRuntimeBackend:
    """Reads an ONNX file for `device`.

    Raises `RepositoryError` when the file is missing, corrupt or does not fit `spec`, `BackendUnavailable` when the
    device cannot be taken.
    """
    available(device)
    if not files.is_plain(artifact):
        raise RepositoryError(f"{artifact} is missing: the version holds no {FILE_NAME}")
    index = devices.cuda_index(device)
    session = _session(artifact, index, options)
    if index is not None and "CUDAExecutionProvider" not in session.get_providers():
        raise BackendUnavailable(
            f"ONNX Runtime could not take {device} and fell back to {', '.join(session.get_providers())}; its log says "
            "which CUDA or cuDNN library is missing: pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
    inputs, outputs = _both_sides(artifact, session)
    check(artifact, INPUTS, spec, inputs)
    check(artifact, OUTPUTS, spec, outputs)
    if unknown := [tensor.name for tensor in (*spec.inputs, *spec.outputs) if tensor.datatype == "BF16"]:
        raise RepositoryError(
            f"{artifact}: {', '.join(unknown)} are BF16, which ONNX Runtime does not take from Python: let the file "
            "take and give FP32 and cast inside"
        )
    return OnnxRuntimeBackend(session)


class OnnxRuntimeBackend:
    """A loaded ONNX file; see `serving.backends.base.Backend`."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        fed = {name: _text(array) if array.dtype.kind == "O" else array for name, array in inputs.items()}
        answers = self._session.run(outputs, fed)
        return {
            name: _bytes(array) if array.dtype.kind == "O" else array
            for name, array in zip(outputs, answers, strict=True)
        }

    def close(self) -> None:
        self._session = None


def _text(strings: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.array([element.decode() for element in strings.flat], object).reshape(strings.shape)


def _bytes(strings: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.array([element.encode() for element in strings.flat], object).reshape(strings.shape)


def _onnxruntime() -> Any:
    """ONNX Runtime, told before it starts to report its use to nobody.

    The builds on PyPI do, from 1.32 on Linux too, and on by default (`Privacy.md` in the package). The environment may
    say otherwise: ORT_DISABLE_TELEMETRY=0.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    onnxruntime = background.bring_in(PACKAGE)
    # What is logged beside the sessions: errors only, among them which CUDA library is missing. From 1.31 on the GPU build warns
    # at every load that CUDA comes with the package rather than as a plugin.
    onnxruntime.set_default_logger_severity(3)
    return onnxruntime


def _session(artifact: Path, index: int | None, options: Options) -> Any:
    onnxruntime = _onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{(options.level or LEVELS[0]).upper()}"
    )
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A plan for one shape is wasted where every batch has another. The arena stays, for long sequences: without it, 64
    # rows of 512 steps take 77 ms instead of 38, as every call asks the system for its memory again.
    settings.enable_mem_pattern = False
    settings.log_severity_level = 4  # what it cannot do is raised, and told by us; warnings come with every load
    providers: list[Any] = ["CPUExecutionProvider"]
    if index is not None:
        onnxruntime.preload_dlls(directory="")  # CUDA and cuDNN from their Python packages, if they are installed
        cuda = {"device_id": index, "use_tf32": int(options.allow_tf32)}
        providers.insert(0, ("CUDAExecutionProvider", cuda))
    try:
        # Without the fallback, which prints a banner and tries the same provider a second time.
        make = functools.partial(
            onnxruntime.InferenceSession, str(artifact), settings, providers=providers, enable_fallback=0
        )
        return priority.started_behind(make) if options.threads > 1 else make()
    except (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
        UnicodeDecodeError,  # a damaged name inside the message about a damaged file
    ) as error:
        if told := recognised.unlike(artifact, "onnx_runtime", "ONNX file"):
            raise RepositoryError(told) from error
        said = "; ".join(filter(None, (first_line(error).rstrip(". "), remedy(str(error)))))
        raise RepositoryError(f"{artifact} cannot be read by ONNX Runtime: {said}") from error
    except (state.EPFail, state.EngineError) as error:
        raise BackendUnavailable(f"ONNX Runtime cannot take cuda:{index}: {first_line(error)}") from error


def _both_sides(artifact: Path, session: Any) -> tuple[Mapping[str, Stated], Mapping[str, Stated]]:
    try:
        return _stated(session.get_inputs()), _stated(session.get_outputs())
    except UnicodeDecodeError as error:
        raise RepositoryError(f"{artifact} names a tensor in bytes that are no text; the file is damaged") from error


def _stated(tensors: Sequence[Any]) -> dict[str, Stated]:
    """Names, datatypes and shapes of `tensors` (onnxruntime NodeArg); a symbolic or unknown size is free."""
    return {
        tensor.name: (
            _DATATYPES.get(tensor.type, tensor.type),
            tuple(size if isinstance(size, int) else -1 for size in tensor.shape),
        )
        for tensor in tensors
    }
