"""A client of sequences, as plain as the wire has them: what a step says is what its test says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from protos import grpc_service_pb2 as pb
from tests.support.wire import RawClient

Array = npt.NDArray[np.float32]
Said = bool | int | str


def step(
    model: str, x: Array, outputs: Sequence[str] = (), state: dict[str, Array] | None = None, **said: Said
) -> pb.ModelInferRequest:
    """A request with `x` (and some `state`) that asks for `outputs`; `said` are its parameters."""
    made = pb.ModelInferRequest(model_name=model)
    for name, array in {"x": x, **(state or {})}.items():
        made.inputs.add(name=name, datatype="FP32", shape=array.shape)
        made.raw_input_contents.append(array.astype("<f4").tobytes())
    for name in outputs:
        made.outputs.add(name=name)
    for name, value in said.items():
        kind = "bool" if isinstance(value, bool) else "int64" if isinstance(value, int) else "string"
        setattr(made.parameters[name], f"{kind}_param", value)
    return made


def answered(answer: pb.ModelInferResponse) -> dict[str, Array]:
    """The outputs of an answer."""
    return {
        output.name: np.frombuffer(raw, np.float32).reshape(tuple(output.shape))
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def epoch(answer: pb.ModelInferResponse) -> int:
    """The epoch that an answer tells."""
    told: int = answer.parameters["sequence_epoch"].int64_param
    return told


class Stepper:
    """One sequence of a model, its steps one after the other, numbered or not."""

    def __init__(self, client: RawClient, model: str, id: int | str, *, numbered: bool, version: str = "") -> None:
        self.model = model
        self.id = id
        self.taken = 0
        self.version = version
        self._ask = client.method("ModelInfer")
        self._numbered = numbered

    def request(self, x: Array, *, end: bool = False, outputs: Sequence[str] = (), **more: Any) -> pb.ModelInferRequest:
        """The next step; whoever sends it counts it."""
        said: dict[str, Said] = {"sequence_id": self.id, **more}
        if self.taken == 0:
            said["sequence_start"] = True
        if end:
            said["sequence_end"] = True
        if self._numbered:
            said["sequence_step"] = self.taken
        made = step(self.model, x, outputs, **said)
        made.model_version = self.version
        return made

    def take(self, x: Array, *, end: bool = False, outputs: Sequence[str] = ()) -> dict[str, Array]:
        """Sends the next step and counts it when it is answered."""
        answer = self._ask(self.request(x, end=end, outputs=outputs), timeout=60)
        self.taken += 1
        return answered(answer)
