"""Between the wire and arrays: what a request holds, checked against the model before anybody waits for it.

Everything that could be wrong with a request is found here, so that a bad one never fails its neighbours' batch. Arrays
are views of the request's bytes; nothing is copied. The messages follow Triton's, since people search for them. True
lengths and a fresh state are filled in here, so a client needs to send only what is advertised.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from protos import grpc_service_pb2 as pb
from serving.errors import InvalidInput, InvalidRequest, NotImplementedHere
from serving.protocol.classification import classify
from serving.signature import byte_strings
from serving.signature.spec import ModelSpec, Tensors, TensorSpec, fill_in

# The field of `contents` that holds each datatype; FP16 and BF16 have none and travel raw only.
_TYPED_FIELDS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_SEQUENCE_PARAMETERS = ("sequence_id", "sequence_start", "sequence_end")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may ask for: `max_rows` rows, and `max_steps` along every free axis behind the rows.

    With `text_only` every element of a BYTES tensor must be UTF-8.
    """

    max_rows: int
    max_steps: int
    text_only: bool = False


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A request that can be computed: every input of the spec, `rows` of each; the outputs wanted, in the order wanted.

    `classes` has an entry for each output that is wanted as so many classes, not as a tensor. `shared` is the bytes of what
    all rows share: requests that differ there cannot be computed together.
    """

    inputs: Tensors
    rows: int
    outputs: Sequence[str]
    classes: Mapping[str, int]
    shared: bytes


def parse(payload: bytes) -> pb.ModelInferRequest:
    """The message in these bytes. Raises `InvalidRequest` if they are none."""
    try:
        return pb.ModelInferRequest.FromString(payload)
    except Exception as error:
        raise InvalidRequest(f"the request is not a ModelInferRequest message: {error}") from error


def decode(request: pb.ModelInferRequest, spec: ModelSpec, limits: Limits) -> Decoded:
    """Checks a request against a model and turns it into arrays.

    Raises `InvalidInput` (a tensor does not fit), `InvalidRequest` (anything else about it), or `NotImplementedHere`.
    """
    model = request.model_name
    _check_parameters(request.parameters, model)
    inputs = _read_inputs(request, spec, limits)
    rows = next(len(array) for name, array in inputs.items() if name not in spec.shared)
    for name, array in inputs.items():
        if name in spec.shared and len(array) == 1:
            inputs[name] = np.broadcast_to(array, (rows, *array.shape[1:]))
        elif len(array) != rows:
            raise InvalidInput(
                f"input '{name}' batch size does not match other inputs for '{model}': {len(array)} rows beside {rows}"
            )
    state = [pair.input for pair in spec.state]
    if any(name in inputs for name in state) and (left_out := [name for name in state if name not in inputs]):
        raise InvalidInput(
            f"the state of model '{model}' is {state}; send all of it or none: {left_out} would silently start from zero"
        )
    fill_in(inputs, spec, rows)
    if spec.lengths:
        _check_lengths(inputs[spec.lengths.input], inputs[spec.lengths.of], spec.lengths.input, model)
    if spec.vocabulary:
        _check_tokens(inputs, spec, model)
    ordered = {tensor.name: inputs[tensor.name] for tensor in spec.inputs}
    shared = b"".join(_bytes_of(inputs[name][0]) for name in sorted(spec.shared))
    return Decoded(ordered, rows, _wanted(request, spec), _classes(request, spec), shared)


def encode(
    request: pb.ModelInferRequest,
    version: str,
    spec: ModelSpec,
    outputs: Tensors,
    classes: Mapping[str, int],
    labels: Sequence[str],
) -> bytes:
    """The bytes of the answer: raw contents, in the order of `outputs`; `labels` name the classes of `spec.labels_of`.

    Raises `InvalidInput` when an output cannot be given as classes.
    """
    response = pb.ModelInferResponse(model_name=request.model_name, model_version=version, id=request.id)
    datatypes = {tensor.name: tensor for tensor in spec.outputs}
    for name, array in outputs.items():
        datatype, dtype = datatypes[name].datatype, datatypes[name].dtype
        answer = array.astype(dtype, copy=False)
        if name in classes:
            answer = classify(name, answer, classes[name], labels if name == spec.labels_of else ())
            datatype = "BYTES"
        response.outputs.add(name=name, datatype=datatype, shape=answer.shape if spec.batched else answer.shape[1:])
        response.raw_output_contents.append(_bytes_of(answer))
    return response.SerializeToString()


def _bytes_of(array: npt.NDArray[Any]) -> bytes:
    """The elements as they travel."""
    return byte_strings.pack(np.asarray(array).flat) if array.dtype.kind == "O" else array.tobytes()


def _read_inputs(request: pb.ModelInferRequest, spec: ModelSpec, limits: Limits) -> dict[str, npt.NDArray[Any]]:
    model, raw = request.model_name, request.raw_input_contents
    known = {tensor.name: tensor for tensor in spec.inputs}
    if len(raw) > len(request.inputs):
        raise InvalidRequest(
            f"raw_input_contents holds {len(raw)} entries for {len(request.inputs)} inputs of model '{model}'; one each"
        )
    arrays: dict[str, npt.NDArray[Any]] = {}
    for place, sent in enumerate(request.inputs):
        tensor = known.get(sent.name)
        if tensor is None:
            advertised = [t.name for t in spec.advertised_inputs]
            raise InvalidInput(
                f"unexpected inference input '{sent.name}' for model '{model}'; its inputs are {advertised}, "
                f"and {sorted(spec.filled_in)} may be sent too"
            )
        if sent.name in arrays:
            raise InvalidInput(f"input '{sent.name}' already exists in request")
        if "shared_memory_region" in sent.parameters:
            raise NotImplementedHere("Client shared memory is disabled. Send the tensor's bytes in raw_input_contents.")
        if sent.datatype != tensor.datatype:
            raise InvalidInput(
                f"inference input '{sent.name}' data-type is '{sent.datatype}', but model '{model}' expects "
                f"'{tensor.datatype}'"
            )
        shape = _check_shape(tuple(sent.shape), tensor, spec, limits, model)
        arrays[sent.name] = _data(request, place, tensor, shape)
        if tensor.datatype == "BYTES" and limits.text_only:
            _check_text(arrays[sent.name], tensor, model)
        if sent.name in spec.shared:
            arrays[sent.name] = _one_of_all(arrays[sent.name], tensor, model)
    required = [tensor.name for tensor in spec.advertised_inputs]
    if missing := [name for name in required if name not in arrays]:
        raise InvalidInput(
            f"expected {len(required)} inputs but got {len(arrays)} inputs for model '{model}'. Got input(s) "
            f"{sorted(arrays)}, but missing required input(s) {missing}. Please provide all required input(s)."
        )
    return arrays


def _data(request: pb.ModelInferRequest, place: int, tensor: TensorSpec, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The elements of the input at `place`, from the one of the two encodings that the request uses."""
    sent, raw, model = request.inputs[place], request.raw_input_contents, request.model_name
    if not raw:
        return _from_contents(sent, tensor, shape, model)
    if sent.HasField("contents"):
        raise InvalidRequest(
            f"contents field must not be specified when using raw_input_contents for '{sent.name}' for model '{model}'"
        )
    if place >= len(raw):
        raise _no_data(sent.name, model)
    return _from_raw(raw[place], tensor, shape, model)


def _check_shape(
    shape: tuple[int, ...], tensor: TensorSpec, spec: ModelSpec, limits: Limits, model: str
) -> tuple[int, ...]:
    """The shape with the rows first, if it fits: of the right rank, equal where the model is fixed, within the limits where free.

    There is at least one row; other free axes may be empty where the specification says so.
    """
    name = tensor.name
    counted = 1 if spec.may_be_empty else len(tensor.shape)
    sent, shape = shape, _with_rows(shape, tensor, spec)
    if not shape:
        raise InvalidInput(f"input '{name}' has no shape but model requires batch dimension for '{model}'")
    if any(size < 0 for size in shape):
        raise InvalidInput(
            f"All input dimensions should be specified for input '{name}' for model '{model}', got {list(shape)}"
        )
    fits = (
        len(shape) == len(tensor.shape)
        and all(allowed in (-1, size) for size, allowed in zip(shape, tensor.shape, strict=True))
        and all(shape[:counted])
    )
    if fits and shape[0] > limits.max_rows:  # before any of its data is read
        raise _too_many_rows(shape[0], limits, model)
    if not fits:
        shown = "[" + ",".join(str(size) for size in sent[:16]) + (",...]" if len(sent) > 16 else "]")
        expected = "[" + ",".join(str(size) for size in spec.shown_shape(tensor)) + "]"
        raise InvalidInput(
            f"unexpected shape for input '{name}' for model '{model}'. Expected {expected}, got {shown}. "
            "-1 stands for any size, for rows and steps from 1."
        )
    for size, allowed in zip(shape[1:], tensor.shape[1:], strict=True):
        if allowed == -1 and size > limits.max_steps:
            raise InvalidInput(
                f"input '{name}' has {size} steps, but at most {limits.max_steps} are allowed for model '{model}': "
                "cut it into pieces, or start the server with a larger --max-steps"
            )
    return shape


def _too_many_rows(rows: int, limits: Limits, model: str) -> InvalidInput:
    return InvalidInput(
        f"inference request batch-size must be <= {limits.max_rows} for '{model}'; got {rows}: "
        "split the request, or raise max_batch_size in config.pbtxt"
    )


def _with_rows(shape: tuple[int, ...], tensor: TensorSpec, spec: ModelSpec) -> tuple[int, ...]:
    """The shape that was sent, with an axis of rows in front where the client has left it out because there is none."""
    ours = len(tensor.shape)
    if not spec.batched:
        return (1,) if ours == 1 and shape == (1,) else (1, *shape)  # a scalar may come as one element
    if tensor.name in spec.shared:
        if len(shape) == ours - 1:
            return (1, *shape)
        if ours == 1 and len(shape) == 2 and shape[1] == 1:  # a scalar for each row
            return shape[:1]
    return shape


def _one_of_all(array: npt.NDArray[Any], tensor: TensorSpec, model: str) -> npt.NDArray[Any]:
    """What all rows share, given once or for each of them: then they must agree."""
    if any(_bytes_of(row) != _bytes_of(array[0]) for row in array[1:]):
        raise InvalidInput(
            f"input '{tensor.name}' for model '{model}' differs between rows, but the model takes one for all of them: "
            "send the rows in requests of their own"
        )
    return array


def _from_raw(raw: bytes, tensor: TensorSpec, shape: tuple[int, ...], model: str) -> npt.NDArray[Any]:
    if tensor.datatype == "BYTES":
        try:
            return _strings(byte_strings.unpack(raw, math.prod(shape)), shape)
        except ValueError as error:
            raise InvalidInput(f"input '{tensor.name}' for model '{model}': {error}") from error
    expected = math.prod(shape) * tensor.dtype.itemsize
    if len(raw) != expected:
        raise InvalidInput(
            f"input byte size mismatch for input '{tensor.name}' for model '{model}'. Expected {expected}, "
            f"got {len(raw)}"
        )
    return np.frombuffer(raw, tensor.dtype).reshape(shape)


def _from_contents(
    sent: pb.ModelInferRequest.InferInputTensor, tensor: TensorSpec, shape: tuple[int, ...], model: str
) -> npt.NDArray[Any]:
    used = [descriptor.name for descriptor, _ in sent.contents.ListFields()]
    if not used:
        raise _no_data(sent.name, model)
    field = _TYPED_FIELDS.get(tensor.datatype)
    if field is None or used != [field]:
        raise InvalidInput(
            f"unexpected explicit tensor data for input tensor '{sent.name}' for model '{model}': {', '.join(used)}; "
            f"{tensor.datatype} travels in {field or 'raw_input_contents only'}"
        )
    values = getattr(sent.contents, field)
    if len(values) != math.prod(shape):
        raise InvalidInput(
            f"input byte size mismatch for input '{sent.name}' for model '{model}'. "
            f"Expected {math.prod(shape)} elements, got {len(values)}"
        )
    if tensor.datatype == "BYTES":
        return _strings(values, shape)
    if tensor.dtype.kind in "iu":  # NumPy 1 wraps what does not fit
        bounds = np.iinfo(tensor.dtype)
        outside = next((value for value in values if not bounds.min <= value <= bounds.max), None)
        if outside is not None:
            raise InvalidInput(
                f"input '{sent.name}' for model '{model}' holds {outside}, which is outside the range of {tensor.datatype}"
            )
    return np.array(values, tensor.dtype).reshape(shape)


def _strings(elements: Sequence[bytes], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def _check_text(strings: npt.NDArray[Any], tensor: TensorSpec, model: str) -> None:
    for place, element in enumerate(strings.flat):
        try:
            element.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"element {place} of input '{tensor.name}' for model '{model}' is not UTF-8, and the backend that "
                f"serves it takes text only: {error.reason} at byte {error.start}"
            ) from error


def _no_data(name: str, model: str) -> InvalidInput:
    return InvalidInput(f"unable to find data for input tensor '{name}' for model '{model}' in request.")


def _check_lengths(lengths: npt.NDArray[Any], of: npt.NDArray[Any], name: str, model: str) -> None:
    steps = of.shape[1]
    if lengths.min() < 1 or lengths.max() > steps:
        wrong = [int(length) for length in lengths if not 1 <= length <= steps]
        raise InvalidInput(
            f"input '{name}' for model '{model}' holds {wrong[0]}, but every length must be within 1 and the {steps} "
            "steps that were sent"
        )


def _check_tokens(inputs: Mapping[str, npt.NDArray[Any]], spec: ModelSpec, model: str) -> None:
    tensor = spec.advertised_inputs[0]
    tokens = inputs[tensor.name]
    outside = (tokens < 0) | (tokens >= spec.vocabulary)
    if spec.lengths:
        outside &= np.arange(tokens.shape[1]) < inputs[spec.lengths.input][:, None]
    if outside.any():
        raise InvalidInput(
            f"input '{tensor.name}' for model '{model}' holds token {int(tokens[outside][0])}, which is outside its "
            f"vocabulary of {spec.vocabulary}: ids are 0 to {spec.vocabulary - 1}"
        )


def _wanted(request: pb.ModelInferRequest, spec: ModelSpec) -> Sequence[str]:
    """Names of the outputs to answer with: those asked for, in that order, or everything advertised."""
    if not request.outputs:
        return [tensor.name for tensor in spec.advertised_outputs]
    known = [tensor.name for tensor in spec.outputs]
    wanted: list[str] = []
    for output in request.outputs:
        if output.name not in known:
            raise InvalidInput(
                f"unexpected inference output '{output.name}' for model '{request.model_name}'; its outputs are {known}"
            )
        if output.name in wanted:
            raise InvalidInput(f"output '{output.name}' already exists in request")
        if "shared_memory_region" in output.parameters:
            raise NotImplementedHere("Client shared memory is disabled. The answer carries the tensor's bytes.")
        wanted.append(output.name)
    return wanted


def _classes(request: pb.ModelInferRequest, spec: ModelSpec) -> Mapping[str, int]:
    """How many classes are wanted of each output that is not wanted as a tensor."""
    classes = {}
    datatypes = {tensor.name: tensor.datatype for tensor in spec.outputs}
    for output in request.outputs:
        if "classification" in output.parameters:
            if datatypes[output.name] in ("BYTES", "BOOL", "BF16"):
                raise InvalidInput(f"class result not available for output '{output.name}' due to unsupported type")
            parameter = output.parameters["classification"]
            if parameter.WhichOneof("parameter_choice") != "int64_param":
                raise InvalidRequest("invalid value type for 'classification' parameter, expected int64_param.")
            if parameter.int64_param < 1:
                raise InvalidRequest("invalid value for 'classification' parameter, expected >= 1")
            classes[output.name] = parameter.int64_param
    return classes


def _check_parameters(parameters: Mapping[str, pb.InferParameter], model: str) -> None:
    """Refuses what would be misunderstood; parameters of the client's own are let through and mean nothing here."""
    for name, parameter in parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        if kind is None:
            raise InvalidRequest(f"parameter '{name}' has no value; set one of its typed fields")
        if name in _SEQUENCE_PARAMETERS:
            raise InvalidRequest(
                f"parameter '{name}' asks model '{model}' to keep state between requests, which is not served yet: "
                "send the state yourself (inputs h0 and c0, outputs hn and cn), or leave the parameter out"
            )
        if name == "priority" and (kind not in ("int64_param", "uint64_param") or getattr(parameter, kind) < 0):
            raise InvalidRequest("invalid value for 'priority', expected value >= 0.")
        if name == "timeout" and kind != "int64_param":
            raise InvalidRequest("invalid value type for 'timeout' parameter, expected int64_param (microseconds).")
        if name.startswith("triton_"):
            if name != "triton_enable_empty_final_response":
                raise InvalidRequest(
                    f"parameter keys starting with 'triton_' are reserved; '{name}' is not a known one"
                )
            if kind != "bool_param":
                raise InvalidRequest(f"invalid value type for '{name}' parameter, expected bool_param.")
