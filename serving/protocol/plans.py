"""What the description of a request means to one version, worked out once: the usual request is looked up, not read again.

The description is a request without its id, its parameters, the sizes and the elements of its inputs: which inputs of which
datatypes it sends, and which outputs it asks for. Whatever depends on these sizes and elements is checked every time. A request
that a plan does not fit is read whole by `serving.protocol.codec`, which alone says what is wrong with one.

Plans live with the version that they were made for, so no request meets one of another signature.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np

from protos import grpc_service_pb2 as pb
from serving.batching.pending import USUAL, Turn
from serving.protocol import checks, codec
from serving.protocol.checks import Limits
from serving.protocol.codec import Decoded
from serving.protocol.request import FEW, InferRequest, Parameter, from_protobuf, parameters_of
from serving.protocol.templates import Templates
from serving.signature.spec import ModelSpec

MAX_BYTES = 256 * 1024  # what the plans of a version may take
LONGEST = 8 * 1024  # bytes of a request beside its elements, if its description is kept
PLAN_BYTES = 1024  # about what one takes beside its description


class Plans:
    """The plans of one version. Called from any thread; `max_bytes` of 0 keeps none."""

    def __init__(self, spec: ModelSpec, limits: Limits, max_bytes: int = MAX_BYTES) -> None:
        self._spec = spec
        self._limits = limits
        self._plans: dict[bytes, _Plan] = {}
        self._lock = threading.Lock()  # guards what follows, and held to write `_plans`
        self._bytes_left = max_bytes
        # Elements that are looked at one by one cannot be looked up, and neither can shapes that are not the file's own.
        known = [tensor.datatype != "BYTES" and tensor.shown is None for tensor in spec.inputs]
        self._any = spec.batched and all(known) and max_bytes > 0
        self.templates = Templates(spec, limits, max_bytes if self._any and not spec.shared else 0)

    def decode(
        self, sent: pb.ModelInferRequest, payload: bytes, parameters: Mapping[str, Parameter] | None = None
    ) -> Decoded:
        """Checks the request `sent`, of which fields are cleared; `payload` holds it whole; its `parameters`, if they were read.

        Raises what `codec.decode` raises.
        """
        count = len(sent.inputs)
        if not self._any or count != len(sent.raw_input_contents) or count > FEW:
            return self._whole(payload)[1]
        turn = USUAL
        if len(sent.parameters):
            parameters = parameters_of(sent) if parameters is None else parameters
            turn = checks.parameters(parameters, self._spec, sent.model_name, stateful=self._limits.stateful)
            sent.ClearField("parameters")
        contents = list(sent.raw_input_contents)
        if len(payload) - sum(map(len, contents)) > LONGEST:  # a description that would not be kept is not worked out
            contents.clear()
            return self._whole(payload)[1]
        shapes = []
        for one in sent.inputs:
            shapes.append(tuple(one.shape))
            one.ClearField("shape")
        sent.ClearField("id")
        sent.ClearField("raw_input_contents")
        description = sent.SerializeToString()
        plan = self._plans.get(description)
        if plan and (looked_up := plan.decode(shapes, contents, turn)):
            self.templates.keep(payload, looked_up)
            return looked_up
        contents.clear()  # they are read once more
        request, decoded = self._whole(payload)
        if plan is None:
            self._keep(description, _Plan(self._spec, self._limits, request, decoded))
        return decoded

    def _whole(self, payload: bytes) -> tuple[InferRequest, Decoded]:
        request = from_protobuf(payload)
        return request, codec.decode(request, self._spec, self._limits)

    def _keep(self, description: bytes, plan: _Plan) -> None:
        with self._lock:
            needed = len(description) + PLAN_BYTES
            while self._plans and needed > self._bytes_left:
                oldest = next(iter(self._plans))
                del self._plans[oldest]
                self._bytes_left += len(oldest) + PLAN_BYTES
            if needed <= self._bytes_left and description not in self._plans:
                self._plans[description] = plan
                self._bytes_left -= needed


class _Plan:
    """For requests of one description; made from the first of them, which was right in everything."""

    def __init__(self, spec: ModelSpec, limits: Limits, request: InferRequest, decoded: Decoded) -> None:
        self._spec = spec
        self._limits = limits
        self._model = request.model_name
        tensors = [spec.inputs_by_name[sent.name] for sent in request.inputs]
        self._inputs = [(tensor, tensor.shape, tensor.dtype.itemsize) for tensor in tensors]
        self._shared = {tensor.name: _once(tensor.shape[1:]) for tensor in tensors if tensor.name in spec.shared}
        self._of_rows = next(place for place, tensor in enumerate(tensors) if tensor.name not in spec.shared)
        self._outputs = decoded.outputs
        self._classes = decoded.classes

    def decode(self, shapes: Sequence[tuple[int, ...]], contents: Sequence[bytes], turn: Turn) -> Decoded | None:
        """The request with inputs of these shapes and elements; None where it has to be read whole.

        Raises what the checks of values raise.
        """
        rows = shapes[self._of_rows][0] if shapes[self._of_rows] else 0
        arrays = {}
        for (tensor, allowed, item_bytes), sent, content in zip(self._inputs, shapes, contents, strict=True):
            shape, expected = sent, item_bytes
            if tensor.name in self._shared:
                if rows != 1 or sent not in self._shared[tensor.name]:
                    return None
                shape = (1, *allowed[1:])
            if len(shape) != len(allowed) or shape[0] != rows:
                return None
            for size, fixed in zip(shape, allowed, strict=True):
                if size != fixed and (fixed != -1 or size < 1):
                    return None
                expected *= size
            if len(content) != expected or (tensor.steps_axis and shape[tensor.steps_axis] > self._limits.max_steps):
                return None
            arrays[tensor.name] = np.frombuffer(content, tensor.dtype).reshape(shape)
        if rows > self._limits.max_rows:
            return None
        steps, key = codec.checked(arrays, self._spec, self._limits, self._model)
        return Decoded(arrays, rows, steps, self._outputs, self._classes, key, turn)


def _once(shape: tuple[int, ...]) -> frozenset[tuple[int, ...]]:
    """How a request of one row may say the shape of what all rows share, if its sizes are fixed."""
    if -1 in shape:
        return frozenset()
    return frozenset({shape, (1, *shape), *([(1, 1)] if not shape else [])})
