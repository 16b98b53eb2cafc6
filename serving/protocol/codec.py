"""Between the wire and arrays: what a request holds, checked against the model before anybody waits for it.

Everything that could be wrong with a request is found here, so that a bad one never fails its neighbours' batch. True
lengths and a fresh state need not be sent: who computes the batch fills them in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from protos import grpc_service_pb2 as pb
from serving.batching.pending import USUAL, Turn
from serving.errors import ComputeFailed, InvalidInput, InvalidRequest, NotImplementedHere
from serving.protocol import checks
from serving.protocol.checks import Limits
from serving.protocol.classification import classify
from serving.protocol.elements import bytes_of, elements
from serving.protocol.request import InferRequest
from serving.protocol.sequence_parameters import EPOCH
from serving.signature.spec import ModelSpec
from serving.signature.tensors import BatchKey, Tensors, TensorSpec


class Decoded(NamedTuple):
    """A request that can be computed: the inputs that were sent, `rows` of each; the outputs wanted, in the order wanted.

    `steps` is its length along the axis of steps, padding included. `classes` has an entry for each output that is wanted as
    so many classes, not as a tensor. Requests of another `key` cannot be computed together with it. `turn` is what it asks of
    the queue.
    """

    inputs: Tensors
    rows: int
    steps: int
    outputs: Sequence[str]
    classes: Mapping[str, int]
    key: BatchKey
    turn: Turn = USUAL


def decode(request: InferRequest, spec: ModelSpec, limits: Limits) -> Decoded:
    """Checks a request against a model and turns it into arrays.

    Raises `InvalidInput` (a tensor does not fit), `InvalidRequest` (anything else about it), or `NotImplementedHere`.
    """
    model = request.model_name
    turn = USUAL
    if request.parameters:
        turn = checks.parameters(request.parameters, spec, model, stateful=limits.stateful)
    inputs = _read_inputs(request, spec, limits)
    rows = _same_rows(inputs, spec, model)
    if any(name in inputs for name in spec.state_inputs) and (
        left_out := [name for name in spec.state_inputs if name not in inputs]
    ):
        raise InvalidInput(
            f"the state of model '{model}' is {list(spec.state_inputs)}; send all of it or none: {left_out} would silently "
            "start from zero"
        )
    steps, key = checked(inputs, spec, limits, model)
    return Decoded(inputs, rows, steps, _wanted(request, spec), _classes(request, spec), key, turn)


def checked(inputs: Tensors, spec: ModelSpec, limits: Limits, model: str) -> tuple[int, BatchKey]:
    """The steps and the key of inputs whose names, datatypes and shapes are right, if their values are. Raises `InvalidInput`."""
    steps = spec.steps(inputs)
    check_values(inputs, steps, spec, limits, model)
    shared = b"".join([bytes_of(inputs[name][0]) for name in sorted(spec.shared)]) if spec.shared else b""
    return steps, spec.batch_key(inputs, shared)


def check_values(inputs: Tensors, steps: int, spec: ModelSpec, limits: Limits, model: str) -> None:
    """Looks at the elements of inputs whose names, datatypes and shapes are right. Raises `InvalidInput`."""
    told = spec.told
    lengths = inputs.get(told.input) if told else None
    if told and lengths is not None:
        checks.lengths(lengths, steps, told.input, model)
    if limits.finite_only:
        for name, array in inputs.items():
            counted = lengths if told and name == told.of else None
            checks.finite(array, spec.inputs_by_name[name], counted, model)
    if spec.vocabulary:
        checks.tokens(inputs, spec, model)


def encode(
    id: str,
    model: str,
    version: str,
    spec: ModelSpec,
    outputs: Tensors,
    classes: Mapping[str, int],
    labels: Mapping[str, Sequence[str]],
    epoch: int = 0,
) -> bytes:
    """The bytes of the answer: raw contents, in the order of `outputs`; `labels` name the classes of outputs.

    A step of a sequence is told its `epoch`, which is not 0.

    Raises `InvalidInput` when an output cannot be given as classes, `ComputeFailed` when one is not of the shape that the
    operator has reshaped.
    """
    response = pb.ModelInferResponse(model_name=model, model_version=version, id=id)
    if epoch:
        response.parameters[EPOCH].int64_param = epoch
    for name, array in outputs.items():
        tensor = spec.outputs_by_name[name]
        datatype, answer = tensor.datatype, array.astype(tensor.dtype, copy=False)
        if name in classes:
            answer = classify(name, answer, classes[name], labels.get(name, ()))
            datatype, shape = "BYTES", answer.shape
        else:
            shape = _shown(answer.shape, tensor)
        if not spec.batched:
            shape = shape[1:] or (1,)  # a scalar is one element, as metadata says
        response.outputs.add(name=name, datatype=datatype, shape=shape)
        response.raw_output_contents.append(bytes_of(answer))
    return response.SerializeToString()


def _shown(computed: tuple[int, ...], tensor: TensorSpec) -> tuple[int, ...]:
    try:
        return tensor.as_shown(computed)
    except ValueError as error:
        raise ComputeFailed(
            f"output '{tensor.name}' was computed with another shape than config.pbtxt reshapes: {error}"
        ) from error


def _read_inputs(request: InferRequest, spec: ModelSpec, limits: Limits) -> dict[str, npt.NDArray[Any]]:
    model, known = request.model_name, spec.inputs_by_name
    if request.raw_count > len(request.inputs):
        raise InvalidRequest(
            f"raw_input_contents holds {request.raw_count} entries for {len(request.inputs)} inputs of model '{model}'; "
            "one each"
        )
    arrays: dict[str, npt.NDArray[Any]] = {}
    for sent in request.inputs:
        tensor = known.get(sent.name)
        if tensor is None:
            advertised = [t.name for t in spec.advertised_inputs]
            too = f", and {checks.listed(sorted(spec.filled_in))} may be sent too" if spec.filled_in else ""
            raise InvalidInput(
                f"unexpected inference input '{sent.name}' for model '{model}'; its inputs are "
                f"{checks.listed(advertised)}{too}"
            )
        if sent.name in arrays:
            raise InvalidInput(f"input '{sent.name}' already exists in request")
        if sent.in_shared_memory:
            raise NotImplementedHere("Client shared memory is disabled. Send the tensor's bytes in raw_input_contents.")
        if sent.datatype != tensor.datatype:
            raise InvalidInput(
                f"inference input '{sent.name}' data-type is '{sent.datatype}', but model '{model}' expects "
                f"'{tensor.datatype}'"
            )
        array = elements(sent, request, tensor, checks.shape(sent.shape, tensor, spec, limits, model))
        if limits.text_only and tensor.datatype == "BYTES":
            checks.text(array, tensor, model)
        arrays[sent.name] = checks.one_of_all(array, tensor, model) if sent.name in spec.shared else array
    if missing := [tensor.name for tensor in spec.advertised_inputs if tensor.name not in arrays]:
        required = len(spec.advertised_inputs)
        raise InvalidInput(
            f"expected {required} inputs but got {required - len(missing)} inputs for model '{model}'. Got input(s) "
            f"{checks.listed(sorted(arrays))}, but missing required input(s) {checks.listed(missing)}. Please provide all "
            "required input(s)."
        )
    return arrays


def _same_rows(inputs: dict[str, npt.NDArray[Any]], spec: ModelSpec, model: str) -> int:
    """How many rows there are, the same in every input; what all rows share is repeated for each. Raises `InvalidInput`."""
    rows = next(len(array) for name, array in inputs.items() if name not in spec.shared)
    for name, array in inputs.items():
        if len(array) == rows:
            continue
        if name not in spec.shared or len(array) != 1:
            raise InvalidInput(
                f"input '{name}' batch size does not match other inputs for '{model}': {len(array)} rows beside {rows}"
            )
        inputs[name] = np.broadcast_to(array, (rows, *array.shape[1:]))
    return rows


def _wanted(request: InferRequest, spec: ModelSpec) -> Sequence[str]:
    """Names of the outputs to answer with: those asked for, in that order, or everything advertised."""
    if not request.outputs:
        return [tensor.name for tensor in spec.advertised_outputs]
    wanted: list[str] = []
    for output in request.outputs:
        if output.name not in spec.outputs_by_name:
            raise InvalidInput(
                f"unexpected inference output '{output.name}' for model '{request.model_name}'; its outputs are "
                f"{checks.listed(spec.outputs_by_name)}"
            )
        if output.name in wanted:
            raise InvalidInput(f"output '{output.name}' already exists in request")
        if output.in_shared_memory:
            raise NotImplementedHere("Client shared memory is disabled. The answer carries the tensor's bytes.")
        wanted.append(output.name)
    return wanted


def _classes(request: InferRequest, spec: ModelSpec) -> Mapping[str, int]:
    """How many classes are wanted of each output that is not wanted as a tensor."""
    classes = {}
    for output in request.outputs:
        if (parameter := output.classification) is not None:
            if spec.outputs_by_name[output.name].datatype in ("BYTES", "BOOL", "BF16"):
                raise InvalidInput(f"class result not available for output '{output.name}' due to unsupported type")
            if parameter.kind != "int64":
                raise InvalidRequest("invalid value type for 'classification' parameter, expected int64_param.")
            if parameter.value < 1:
                raise InvalidRequest("invalid value for 'classification' parameter, expected >= 1")
            classes[output.name] = parameter.value
    return classes
