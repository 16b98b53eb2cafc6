"""Requests that are computed before a model is called ready, so that no client pays for a first run.

Runtimes allocate, specialise and compile when they first see a size. The golden samples are run at 1, 2, 4 ... rows up to the
largest batch, each size twice, and then whatever `model_warmup` in `config.pbtxt` adds. Twice, because TorchScript only
watches the first run of a size and compiles in the second. Where rows of unequal length are computed together, the longest
sample is also run repeated along its steps, with rows of many lengths, as batches will be. The second runs are the first that
is known of what a batch costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protos import model_config_pb2 as pb
from serving.backends.base import Backend
from serving.batching.costs import Costs
from serving.clock import SYSTEM, Clock
from serving.errors import ModelConfigError
from serving.machine import background
from serving.repository.datatypes import from_schema
from serving.signature import byte_strings
from serving.signature.spec import ModelSpec, fill_in
from serving.signature.tensors import Tensors, TensorSpec
from serving.verification import golden

RUNS = 2
REPEATED = (4, 16)  # times the steps of the longest sample, to see what steps cost
LONGEST = 512  # steps of it then
MIXED = 8  # rows of as many lengths, beside one and the most
DEAR_NS = 20_000_000  # calls that will take longer are not made for that
FOLDER = "warmup"  # beside the versions, as Triton has it
MOST_RUNS = 1000
MOST_BYTES = 256 * 1024 * 1024
MOST_BATCH_BYTES = 2**31  # the largest message that gRPC takes; a batch of short rows is not larger by intention


def row_counts(max_rows: int) -> list[int]:
    """1, 2, 4 ... and `max_rows`."""
    return [*(2**power for power in range((max_rows - 1).bit_length())), max_rows]


def check_rows(samples: Sequence[golden.Sample], max_rows: int) -> None:
    """Raises `ModelConfigError` where a full batch of a golden sample's rows would take the machine's memory."""
    for sample in samples:
        bytes_of_batch = max_rows * sum(array.nbytes // len(array) for array in sample.inputs.values())
        if bytes_of_batch > MOST_BATCH_BYTES:
            raise ModelConfigError(
                f"max_batch_size is {max_rows}: so many rows of a golden sample have {bytes_of_batch} bytes; at most "
                f"{MOST_BATCH_BYTES} are computed at once"
            )


def of_samples(samples: Sequence[golden.Sample], max_rows: int) -> Iterator[Tensors]:
    """The inputs of the golden samples at every number of rows; samples that are as long as an earlier one are left out."""
    shapes = set()
    for sample in samples:
        shape = tuple(array.shape[1:] for array in sample.inputs.values())
        if shape in shapes:
            continue
        shapes.add(shape)
        for rows in row_counts(max_rows):
            yield golden.with_rows(sample.inputs, rows)


def of_unequal_lengths(samples: Sequence[golden.Sample], spec: ModelSpec, max_rows: int) -> Iterator[Tensors]:
    """Inputs made of the longest sample, mostly longer, their rows of many lengths; nothing where such are not computed together.

    Of a file of others no more steps than are proved for it.
    """
    told = spec.told
    if not (samples and told and spec.joins_lengths):
        return
    longest = golden.longest(samples).inputs
    axis = spec.inputs_by_name[told.of].steps_axis or 1
    most = min(LONGEST, spec.masks.up_to) if spec.masks else LONGEST
    for steps in sorted({min(times * longest[told.of].shape[axis], most) for times in REPEATED}):
        repeated = np.take(longest[told.of], range(steps), axis, mode="wrap")
        for rows in sorted({1, min(MIXED, max_rows), max_rows}):
            inputs = dict(golden.with_rows({**longest, told.of: repeated}, rows))
            lengths = steps - np.arange(rows) * (steps - 1) // rows
            yield {**inputs, told.input: lengths.astype(inputs[told.input].dtype).reshape(inputs[told.input].shape)}


def configured(
    written: Sequence[pb.ModelWarmup], spec: ModelSpec, max_rows: int, model_folder: Path
) -> list[tuple[Tensors, int]]:
    """The inputs of every entry of `model_warmup`, and how often they are to be run.

    Lengths and state may be left out as in requests. Raises `ModelConfigError`, naming the entry and what is allowed.
    """
    made: list[tuple[Tensors, int]] = []
    for entry in written:
        where = f"model_warmup '{entry.name}'"
        rows = entry.batch_size or 1
        if not 1 <= rows <= max_rows:
            raise ModelConfigError(f"{where}: batch_size is {rows}; it must be within 1 and max_batch_size {max_rows}")
        if entry.count > MOST_RUNS:
            raise ModelConfigError(f"{where}: count is {entry.count}; at most {MOST_RUNS} are run")
        known = {tensor.name: tensor for tensor in spec.inputs}
        if unknown := sorted(set(entry.inputs) - set(known)):
            raise ModelConfigError(f"{where} has an input '{unknown[0]}'; the model's are {', '.join(known)}")
        if missing := [t.name for t in spec.advertised_inputs if t.name not in entry.inputs]:
            raise ModelConfigError(f"{where} leaves out the inputs {', '.join(missing)}")
        inputs = {
            name: _array(f"{where}: input '{name}'", said, known[name], spec, rows, model_folder)
            for name, said in entry.inputs.items()
        }
        fill_in(inputs, spec, rows)
        made.append(({tensor.name: inputs[tensor.name] for tensor in spec.inputs}, entry.count or 1))
    return made


def run(
    backend: Backend,
    spec: ModelSpec,
    samples: Sequence[golden.Sample],
    max_rows: int,
    extra: Sequence[tuple[Tensors, int]],
    costs: Costs,
    clock: Clock = SYSTEM,
) -> None:
    """Computes all of it, and tells `costs`. Called on the thread that will compute. Raises whatever the backend does."""
    pauses = background.Pauses()

    def twice(inputs: Tensors) -> None:
        for _ in range(RUNS):
            began = clock.now_ns()
            backend.run(inputs, names)
            took = clock.now_ns() - began
            pauses.look()
        costs.learn(*_size(inputs, spec), took)

    names = [tensor.name for tensor in spec.advertised_outputs]
    for inputs in of_samples(samples, max_rows):
        twice(inputs)
    costs.fit()
    for inputs in of_unequal_lengths(samples, spec, max_rows):
        if costs.now.of(*_size(inputs, spec)) < DEAR_NS:
            twice(inputs)
    costs.fit()
    for inputs, times in extra:
        for _ in range(times):
            backend.run(inputs, names)
            pauses.look()


def _size(inputs: Tensors, spec: ModelSpec) -> tuple[int, int]:
    """Rows and steps."""
    return len(inputs[spec.inputs[0].name]), spec.steps(inputs)


def _array(
    where: str, said: pb.ModelWarmup.Input, tensor: TensorSpec, spec: ModelSpec, rows: int, model_folder: Path
) -> npt.NDArray[Any]:
    """[rows, *dims]; a file holds one row of it, which all rows get, or all of them."""
    dims = tuple(said.dims)
    shape = spec.shown_shape(tensor)[1:] if spec.batched else spec.shown_shape(tensor)
    datatype = from_schema(said.data_type)
    if datatype != tensor.datatype:
        raise ModelConfigError(f"{where} is {datatype}; the model's is {tensor.datatype}")
    fits = len(dims) == len(shape) and all(a > 0 and b in (-1, a) for a, b in zip(dims, shape, strict=True))
    if not fits:
        raise ModelConfigError(
            f"{where} has dims {list(dims)}; the model's are {list(shape)}, where -1 takes any size from 1"
        )
    if rows * math.prod(dims) * max(1, tensor.dtype.itemsize) > MOST_BYTES:
        raise ModelConfigError(f"{where} is larger than {MOST_BYTES} bytes")
    full = (rows, *(dims if tensor.file_shape or spec.batched else ()))
    kind = said.WhichOneof("input_data_type")
    if kind is None:
        raise ModelConfigError(f"{where} does not say what it holds: set zero_data, random_data or input_data_file")
    if kind == "input_data_file":
        return _from_file(where, said.input_data_file, tensor, full, model_folder)
    if tensor.datatype == "BYTES":
        return np.full(full, b"", object)
    if spec.lengths and tensor.name == spec.lengths.input:
        return np.ones(full, tensor.dtype)  # a row has at least one true step
    generator = np.random.default_rng(0)
    if kind == "random_data" and tensor.dtype.kind == "f":
        return generator.normal(size=full).astype(tensor.dtype)
    if kind == "random_data" and tensor.dtype.kind in "iub":
        top = spec.vocabulary or 2
        return generator.integers(0, top, full).astype(tensor.dtype)
    return np.zeros(full, tensor.dtype)


def _from_file(
    where: str, name: str, tensor: TensorSpec, shape: tuple[int, ...], model_folder: Path
) -> npt.NDArray[Any]:
    try:
        path = (model_folder / FOLDER / name).resolve()
        there = path.is_relative_to((model_folder / FOLDER).resolve()) and path.is_file()
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, or links that lead in a circle
        there = False
    if not there:
        raise ModelConfigError(f"{where}: there is no file '{name}' in the folder {FOLDER} beside the versions")
    if path.stat().st_size > MOST_BYTES:
        raise ModelConfigError(f"{where}: {path.name} is larger than {MOST_BYTES} bytes")
    data, one = path.read_bytes(), shape[1:]
    if tensor.datatype == "BYTES":
        try:
            strings = byte_strings.unpack(data, math.prod(one))
        except ValueError as error:
            raise ModelConfigError(f"{where}: {path.name}: {error}") from error
        row = np.empty(len(strings), object)
        row[:] = strings
        return np.broadcast_to(row.reshape(one), shape)
    sizes = {math.prod(each) * tensor.dtype.itemsize: each for each in (one, shape)}
    if len(data) not in sizes:
        raise ModelConfigError(f"{where}: {path.name} has {len(data)} bytes; {' or '.join(map(str, sizes))} are needed")
    return np.broadcast_to(np.frombuffer(data, tensor.dtype).reshape(sizes[len(data)]), shape)
