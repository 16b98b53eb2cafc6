"""TensorFlow, through a `Session` of its own instead of `tf.saved_model.load`: the same file, answered sooner.

Measured on two layers of 64 units, 24 steps, 8 features, one thread (microseconds a call at 1, 8, 32, 64 rows): the
eager signature 367, 615, 1243, 2379; a session with the usual executor 393, 473, 1098, 1876; with the single-threaded
executor 233, 385, 914, 1594. A session also has its own threads, and gives its memory back when it is closed.

The single-threaded executor refuses the control flow of TensorFlow 1 (`Enter`, `Switch`) but runs the loops of
TensorFlow 2; the file is looked at before it is loaded.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import math
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.backends.base import (
    OUT_OF_MEMORY,
    SMALL,
    Contents,
    Options,
    cuda_lost,
    distinct,
    first_line,
    installed_version,
)
from serving.errors import BackendUnavailable, RepositoryError
from serving.machine import background, devices, files, priority
from serving.signature.spec import ModelSpec
from serving.signature.stated import INPUTS, OUTPUTS, Stated, check
from serving.signature.tensors import BF16, DTYPES, Tensors

FILE_NAME = "model.savedmodel"
PACKAGE = "tensorflow"
ONE_BY_ONE = False
TRITON_NAMES = ("tensorflow", "tensorflow_savedmodel")
TEXT_ONLY = False
LEVELS = ("all",)

SIGNATURE = "serving_default"
COMPARISONS = ("Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual")
TAG = "serve"
# Of Grappler, which rewrites a graph before its first run. Without these, and with one round instead of two, that takes half
# the time, and neither our graphs nor Keras's own, which loop over the steps, are answered any later.
UNUSED_OPTIMIZERS = (
    "arithmetic_optimization",
    "common_subgraph_elimination",
    "dependency_optimization",
    "layout_optimizer",
    "loop_optimization",
    "scoped_allocator_optimization",
    "shape_optimization",
)
LIBRARIES = ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2")

_here = threading.local()


def version() -> str:
    """That of TensorFlow, whichever of its packages is here."""
    return installed_version("tensorflow", "tensorflow-cpu")


def available(device: str) -> None:
    """Raises `BackendUnavailable` unless TensorFlow is here, and for "cuda:N" a CUDA build, a driver and that GPU."""
    index = devices.cuda_index(device)
    devices.require_package("tensorflow", "tensorflow" if index is None else "tensorflow-gpu")
    if index is None:
        return
    devices.require_gpu(index)
    tf = _tensorflow()
    if not tf.test.is_built_with_cuda():
        raise BackendUnavailable(
            f"this tensorflow ({tf.__version__}) is built for CPUs: "
            "pip uninstall -y tensorflow-cpu tensorflow && pip install 'lstm-serving[tensorflow-gpu]'"
        )
    if index >= (count := len(tf.config.list_physical_devices("GPU"))):
        raise BackendUnavailable(
            f"TensorFlow sees {count} GPUs, so there is no {device} for it; if the driver has it, a CUDA library is "
            "missing: pip install 'lstm-serving[tensorflow-gpu]'"
        )


def bring_in() -> None:
    """Imports TensorFlow."""
    _tensorflow()


def stated(artifact: Path) -> tuple[Mapping[str, Stated], Mapping[str, Stated]]:
    """What `serving_default` says of its inputs and outputs. Raises `RepositoryError` when the folder cannot be read."""
    available("cpu")
    _check_there(artifact)
    tf = _tensorflow()
    found = _meta_graph(artifact).signature_def[SIGNATURE]
    return _stated(tf, found.inputs), _stated(tf, found.outputs)


def contents(artifact: Path) -> Contents:
    """The small constants of its graph and of its functions, first what something is compared with.

    Raises `RepositoryError` when it cannot be read.
    """
    _check_there(artifact)
    tf = _tensorflow()
    graph = _meta_graph(artifact).graph_def
    arrays: list[npt.NDArray[Any]] = []
    compared: list[npt.NDArray[Any]] = []
    texts: dict[str, None] = {}
    nodes = list(itertools.chain(graph.node, *(function.node_def for function in graph.library.function)))
    beside = {name.partition(":")[0] for node in nodes if node.op in COMPARISONS for name in node.input}
    for node in nodes:
        held = node.attr["value"].tensor if node.op == "Const" else None
        if held is None or math.prod(dim.size for dim in held.tensor_shape.dim) > SMALL:
            continue
        array = tf.make_ndarray(held)
        if array.dtype.kind == "O":
            texts |= dict.fromkeys(text.decode(errors="replace") for text in array.ravel())
        else:
            (compared if node.name in beside else arrays).append(array)
    numbers = list(dict.fromkeys([*distinct(compared), *distinct(arrays)]))
    return Contents(constants=numbers, texts=list(texts))


def careful() -> AbstractContextManager[None]:
    """Nothing to do: it raises by itself."""
    return contextlib.nullcontext()


def lost(error: Exception) -> str:
    """Whether there is no memory left, on the CPU too, or the device is gone."""
    tf = _tensorflow()
    return OUT_OF_MEMORY if isinstance(error, tf.errors.ResourceExhaustedError) else cuda_lost(error)


def _announces_nothing(record: logging.LogRecord) -> bool:
    """Leaves out that the loader is one of TensorFlow 1, which is all that it says below an error; on this thread alone."""
    return record.levelno >= logging.ERROR or not getattr(_here, "is_loading", False)


def load(artifact: Path, spec: ModelSpec, device: str, options: Options) -> SavedModelBackend:
    """Reads a SavedModel folder with the tag `serve` and the signature `serving_default` for `device`.

    Raises `RepositoryError` when the folder is missing, corrupt or does not fit `spec`, `BackendUnavailable` when the
    device cannot be taken.
    """
    available(device)
    _check_there(artifact)
    tf = _tensorflow()
    meta_graph = _meta_graph(artifact)
    found = meta_graph.signature_def[SIGNATURE]
    check(artifact, INPUTS, spec, _stated(tf, found.inputs))
    check(artifact, OUTPUTS, spec, _stated(tf, found.outputs))
    tf.config.experimental.enable_tensor_float_32_execution(options.allow_tf32)  # of the process, not of the session
    graph = tf.Graph()
    index = devices.cuda_index(device)
    make = functools.partial(tf.compat.v1.Session, graph=graph, config=_config(tf, meta_graph, index, options))
    session = priority.started_behind(make) if options.threads > 1 else make()
    logging.getLogger("tensorflow").addFilter(_announces_nothing)
    _here.is_loading = True
    try:
        with graph.as_default(), tf.device("/CPU:0" if index is None else f"/GPU:{index}"), background.pausing():
            tf.compat.v1.saved_model.loader.load(session, [TAG], str(artifact))
    except tf.errors.ResourceExhaustedError as error:
        session.close()
        raise BackendUnavailable(f"{device} has no memory left for {artifact}: {first_line(error)}") from error
    except (tf.errors.OpError, OSError, ValueError, KeyError, RuntimeError) as error:
        session.close()
        raise RepositoryError(f"{artifact} cannot be read by TensorFlow: {first_line(error)}") from error
    finally:
        _here.is_loading = False
    return SavedModelBackend(session, found, spec)


class SavedModelBackend:
    """A loaded SavedModel; see `serving.backends.base.Backend`. Every set of outputs gets a callable of its own."""

    def __init__(self, session: Any, found: Any, spec: ModelSpec) -> None:
        self._session = session
        self._inputs = tuple(tensor.name for tensor in spec.inputs)
        self._feeds = [found.inputs[name].name for name in self._inputs]
        self._fetches = {tensor.name: found.outputs[tensor.name].name for tensor in spec.outputs}
        self._callables: dict[tuple[str, ...], Any] = {}

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        key = tuple(outputs)
        if key not in self._callables:
            fetches = [self._fetches[name] for name in key]
            self._callables[key] = self._session.make_callable(fetches, feed_list=self._feeds)
        arrays = self._callables[key](*[_fed(inputs[name]) for name in self._inputs])
        # What TensorFlow returns is a view of its tensor, which may be the fed one when a graph hands it through.
        return {name: _fetched(np.array(array)) for name, array in zip(key, arrays, strict=True)}

    def close(self) -> None:
        self._callables.clear()
        self._session.close()
        self._session = None


def _fed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.kind != "V":
        return array
    bits: npt.NDArray[Any] = array.view(_tensorflow().bfloat16.as_numpy_dtype)
    return bits


def _fetched(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.view(BF16) if array.dtype.name == "bfloat16" else array


def _tensorflow() -> Any:
    """TensorFlow, told before it starts to keep its start-up messages to itself.

    oneDNN's replacements are off unless the environment asks for them: they are no faster here, announce themselves
    on every start, and make rounding depend on the processor.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    return background.bring_in(PACKAGE, LIBRARIES)


def _check_there(artifact: Path) -> None:
    if not files.is_plain(artifact / "saved_model.pb"):
        raise RepositoryError(f"{artifact} is missing or holds no saved_model.pb: the version holds no {FILE_NAME}")


def _meta_graph(artifact: Path) -> Any:
    """The graph with the tag `serve`, parsed but not loaded. Raises `RepositoryError` unless it has the signature."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel()
    try:
        saved.ParseFromString((artifact / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise RepositoryError(f"{artifact / 'saved_model.pb'} is corrupt: {first_line(error)}") from error
    for meta_graph in saved.meta_graphs:
        if TAG in meta_graph.meta_info_def.tags and SIGNATURE in meta_graph.signature_def:
            return meta_graph
    raise RepositoryError(
        f"{artifact} has no graph with the tag {TAG!r} and the signature {SIGNATURE!r}; try saved_model_cli show --all"
    )


def _config(tf: Any, meta_graph: Any, index: int | None, options: Options) -> Any:
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=options.threads,
        inter_op_parallelism_threads=1,
        use_per_session_threads=True,
        allow_soft_placement=True,  # what a GPU has no kernel for runs on the CPU
    )
    if index is not None:
        config.gpu_options.allow_growth = True  # else the first model takes the whole GPU
        return config
    config.device_count["GPU"] = 0
    rewriting = config.graph_options.rewrite_options
    rewriting.meta_optimizer_iterations = rewriting.ONE
    rewriting.memory_optimization = rewriting.NO_MEM_OPT
    for optimizer in UNUSED_OPTIMIZERS:
        setattr(rewriting, optimizer, rewriting.OFF)
    if not any(node.op in ("Enter", "Switch", "RefSwitch") for node in meta_graph.graph_def.node):
        config.experimental.executor_type = "SINGLE_THREADED_EXECUTOR"
    return config


def _stated(tf: Any, tensors: Any) -> dict[str, Stated]:
    """Names, datatypes and shapes of a signature's side (a map of TensorInfo)."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    told: dict[str, Stated] = {}
    for name, info in tensors.items():
        dtype = tf.dtypes.as_dtype(info.dtype)
        datatype = "BF16" if dtype == tf.bfloat16 else names.get(np.dtype(dtype.as_numpy_dtype), dtype.name)
        shape = None if info.tensor_shape.unknown_rank else tuple(int(d.size) for d in info.tensor_shape.dim)
        told[name] = (datatype, shape)
    return told
