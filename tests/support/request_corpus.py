"""Good and bad requests, and what was answered to each: whatever is made faster must answer the very same bytes.

python -m tests.support.request_corpus    # writes tests/data/answers.json anew, after a change that was meant
"""

from __future__ import annotations

import base64
import dataclasses
import json
import queue
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from protos import grpc_service_pb2 as pb
from serving.lifecycle.manager import ModelManager
from serving.loading.order import ServerDefaults
from serving.protocol.codes import REFUSALS, Code
from serving.protocol.inference import Inference
from serving.repository import model_config
from serving.signature.spec import ModelSpec
from serving.signature.tensors import TensorSpec
from serving.telemetry.ended import Recorder
from serving.telemetry.timeline import now_ns
from serving.verification import golden
from tests.support import fake_models, graphs
from tests.support.loading import request_of
from tests.support.managed import let_in

FILE = Path(__file__).parents[1] / "data" / "answers.json"
MAX_STEPS = 50
STATE = (1, *fake_models.STATE[1:])
Raw = Mapping[str, tuple[str, tuple[int, ...], bytes]]


def models(root: Path) -> None:
    """Writes the models that are asked."""
    fake_models.write(root, "plain", config="max_batch_size: 4")
    fake_models.write(root, "tokens", model_spec=fake_models.spec(vocabulary=7))
    fake_models.write(root, "per_step", model_spec=fake_models.spec(per_step=True))
    labels = {"keys_strings": ["yes", "no"], "values_int64s": [1, 2], "default_int64": -1}
    graphs.write(
        root / "strings/1/model.onnx",
        [("Identity", ["INPUT0"], ["SAME"]), ("ml.LabelEncoder", ["INPUT0"], ["KIND"], labels)],
        {"INPUT0": ("BYTES", ["rows", "size"])},
        {"SAME": ("BYTES", ["rows", "size"]), "KIND": ("INT64", ["rows", "size"])},
    )
    (root / "strings/config.pbtxt").write_text(
        'max_batch_size: 8 input { name: "INPUT0" data_type: TYPE_STRING dims: [ -1 ] } '
        'output [ { name: "SAME" data_type: TYPE_STRING dims: -1 }, { name: "KIND" data_type: TYPE_INT64 dims: -1 } ]'
    )
    graphs.write(
        root / "pictures/1/model.onnx",
        [("GlobalAveragePool", ["data_0"], ["fc6_1"])],
        {"data_0": ("FP32", [1, 3, 4, 4])},
        {"fc6_1": ("FP32", [1, 3, 1, 1])},
    )
    (root / "pictures/config.pbtxt").write_text("""
        input { name: "data_0" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [3, 4, 4] reshape { shape: [1, 3, 4, 4] } }
        output { name: "fc6_1" data_type: TYPE_FP32 dims: 3 reshape { shape: [1, 3, 1, 1] } }
    """)
    graphs.write(
        root / "shared/1/model.onnx",
        [("Mul", ["x", "rate"], ["y"])],
        {"x": ("FP32", ["rows", 2]), "rate": ("FP32", [])},
        {"y": ("FP32", ["rows", 2])},
    )
    spec = ModelSpec(
        inputs=(TensorSpec("x", "FP32", (-1, 2)), TensorSpec("rate", "FP32", (-1,), rows_axis=None)),
        outputs=(TensorSpec("y", "FP32", (-1, 2)),),
        lengths=None,
        state=(),
        streamable=False,
        tolerance=1e-5,
        weights_sha256="",
    )
    (root / "shared/1/spec.json").write_text(spec.to_json())
    inputs = {"x": np.ones((1, 2), np.float32), "rate": np.full(1, 2, np.float32)}
    sample = golden.Sample(inputs, {"y": np.full((1, 2), 2, np.float32)})
    golden.write_samples(root / "shared/1" / golden.FILE_NAME, [sample])


def requests() -> Iterator[tuple[str, bytes]]:
    """A name and the bytes of each."""
    for case, asked in _cases():
        yield case, asked.SerializeToString()


def _cases() -> Iterator[tuple[str, pb.ModelInferRequest]]:
    yield "as clients send it", _plain()
    yield "the same with another id", _plain(id="another")
    yield "the same without an id", _plain(id="")
    yield "the same of version 1", _plain(version="1")
    for rows, steps in ((1, 1), (1, 50), (3, 7), (4, 2)):
        yield f"{rows} rows of {steps} steps", _plain(_x(rows, steps))
    yield "one row too many", _plain(_x(5, 2))
    yield "one step too many", _plain(_x(1, 51))
    yield "no rows", _plain(np.zeros((0, 2, 3), np.float32))
    yield "no steps", _plain(np.zeros((1, 0, 3), np.float32))
    yield "features too many", _plain(np.zeros((1, 2, 4), np.float32))
    yield "an axis too few", _plain(np.zeros((2, 3), np.float32))
    yield "an axis too many", _plain(np.zeros((1, 1, 2, 3), np.float32))
    for bad in (np.nan, np.inf, -np.inf):
        yield f"{bad} in a true step", _plain(np.full((1, 2, 3), bad, np.float32))
    yield "large numbers", _plain(np.full((1, 2, 3), 3e37, np.float32))
    for place, value in ((0, np.nan), (2, np.inf)):
        x = _x(2, 3)
        x[1, place] = value
        yield f"{value} in step {place} of two true ones", _sent({"x": x, "lengths": np.array([3, 2])})
    for lengths in ([2, 3], [1, 1], [0, 3], [4, 1], [-1, 3], [3]):
        yield f"lengths {lengths}", _sent({"x": _x(2, 3), "lengths": np.array(lengths)})
    ones = np.ones(STATE, np.float32)
    yield "with state", _sent({"x": _x(), "h0": ones, "c0": 2 * ones})
    yield "in another order", _sent({"c0": 2 * ones, "x": _x(), "h0": ones})
    yield "half of the state", _sent({"x": _x(), "h0": ones})
    yield "state of two rows", _sent({"x": _x(), "h0": np.ones((2, *STATE[1:]), np.float32), "c0": ones})
    yield "state that is NaN", _sent({"x": _x(), "h0": ones * np.nan, "c0": ones})
    for wanted in (["y"], ["hn", "y"], ["cn", "hn", "y"], ["y", "y"], ["z"], ["x"]):
        yield f"outputs {wanted}", _wanting(_plain(), *wanted)
    for count in (1, 2, 5, 0, -1):
        yield f"{count} classes", _classes(_plain(_x(2, 3)), count)
    yield (
        "classes as text",
        _changed(_classes(_plain(), 1), lambda r: _set(r.outputs[0], "classification", string_param="1")),
    )
    yield from _changed_fields()
    yield from _other_encodings()
    yield from _other_models()


def _changed_fields() -> Iterator[tuple[str, pb.ModelInferRequest]]:
    def changed(case: str, change: Callable[[pb.ModelInferRequest], object]) -> tuple[str, pb.ModelInferRequest]:
        return case, _changed(_plain(), change)

    yield changed("an unknown model", lambda r: setattr(r, "model_name", "nobody"))
    yield changed("no model", lambda r: setattr(r, "model_name", ""))
    yield changed("an unknown version", lambda r: setattr(r, "model_version", "2"))
    yield changed("no version", lambda r: setattr(r, "model_version", "one"))
    yield changed("another datatype", lambda r: setattr(r.inputs[0], "datatype", "FP64"))
    yield changed("no datatype", lambda r: setattr(r.inputs[0], "datatype", ""))
    yield changed("another name", lambda r: setattr(r.inputs[0], "name", "z"))
    yield changed("no inputs", lambda r: r.ClearField("inputs"))
    yield changed("no bytes", lambda r: r.ClearField("raw_input_contents"))
    yield changed("bytes too few", lambda r: r.raw_input_contents.__setitem__(0, r.raw_input_contents[0][:-1]))
    yield changed("bytes too many", lambda r: r.raw_input_contents.__setitem__(0, r.raw_input_contents[0] + b"\0"))
    yield changed("contents too many", lambda r: r.raw_input_contents.append(b""))
    yield changed("the input twice", lambda r: (r.inputs.append(r.inputs[0]), r.raw_input_contents.append(b"")))
    yield changed("a negative size", lambda r: r.inputs[0].shape.__setitem__(0, -1))
    yield changed("a huge size", lambda r: r.inputs[0].shape.__setitem__(1, 2**62))
    yield changed("no shape", lambda r: r.inputs[0].ClearField("shape"))
    yield changed("both encodings", lambda r: r.inputs[0].contents.fp32_contents.append(1))
    yield changed("empty contents beside bytes", lambda r: r.inputs[0].contents.SetInParent())
    yield changed("an input in shared memory", lambda r: _set(r.inputs[0], "shared_memory_region", string_param="a"))
    yield changed("a parameter of an input", lambda r: _set(r.inputs[0], "mine", string_param="a"))
    shared = lambda r: _set(r.outputs.add(name="y"), "shared_memory_region", string_param="a")  # noqa: E731
    yield changed("an output in shared memory", shared)
    for name, value in (
        ("mine", {"string_param": "a"}), ("mine", {}), ("priority", {"uint64_param": 2}), ("priority", {"int64_param": -1}),
        ("priority", {"string_param": "1"}), ("timeout", {"int64_param": 5}), ("timeout", {"bool_param": True}),
        ("sequence_id", {"int64_param": 0}), ("sequence_id", {"int64_param": 5}), ("sequence_start", {"bool_param": True}),
        ("sequence_end", {"int64_param": 1}), ("triton_enable_empty_final_response", {"bool_param": True}),
        ("triton_enable_empty_final_response", {"int64_param": 1}), ("triton_mine", {"bool_param": True}),
    ):  # fmt: skip
        yield changed(f"parameter {name} {value}", lambda r, name=name, value=value: _set(r, name, **value))


def _other_encodings() -> Iterator[tuple[str, pb.ModelInferRequest]]:
    def typed(values: Mapping[str, list[Any]]) -> pb.ModelInferRequest:
        asked = _plain()
        asked.ClearField("raw_input_contents")
        for field, elements in values.items():
            getattr(asked.inputs[0].contents, field).extend(elements)
        return asked

    yield "typed contents", typed({"fp32_contents": [0.5] * 6})
    yield "typed contents too few", typed({"fp32_contents": [0.5] * 5})
    yield "typed contents of another type", typed({"fp64_contents": [0.5] * 6})
    yield "typed contents of two types", typed({"fp32_contents": [0.5] * 6, "int_contents": [1]})
    yield "typed contents that are NaN", typed({"fp32_contents": [float("nan")] * 6})


def _other_models() -> Iterator[tuple[str, pb.ModelInferRequest]]:
    for ids in ([[1, 2, 3]], [[0, 6]], [[7, 1]], [[-1, 1]]):
        yield f"ids {ids}", _sent({"x": np.array(ids)}, "tokens")
    yield "an id outside, in the padding", _sent({"x": np.array([[1, 9]]), "lengths": np.array([1])}, "tokens")
    yield "an output for each step", _plain(_x(2, 5), model="per_step")
    yield "an output for each true step", _sent({"x": _x(2, 5), "lengths": np.array([5, 2])}, "per_step")
    for texts in ([[b"yes", b"no"]], [["é".encode(), b""], [b"yes", b"a"]], [[b"\xff"]]):
        packed = b"".join(len(text).to_bytes(4, "little") + text for row in texts for text in row)
        yield f"strings {texts}", _raw({"INPUT0": ("BYTES", (len(texts), len(texts[0])), packed)}, "strings")
    yield "a string that is cut off", _raw({"INPUT0": ("BYTES", (1, 1), b"\5\0\0\0abc")}, "strings")
    yield "a picture", _sent({"data_0": np.arange(48, dtype=np.float32).reshape(3, 4, 4)}, "pictures")
    yield "a picture of another size", _sent({"data_0": np.zeros((3, 4, 5), np.float32)}, "pictures")
    for rate in (np.float32(2), np.full(1, 2, np.float32), np.full(2, 2, np.float32), np.array([2, 3], np.float32)):
        sent = {"x": np.ones((2, 2), np.float32), "rate": np.asarray(rate)}
        yield f"a rate of {rate.shape} {rate}", _sent(sent, "shared")


def _x(rows: int = 1, steps: int = 2) -> Any:
    return np.arange(rows * steps * 3, dtype=np.float32).reshape(rows, steps, 3) / 8


def _plain(x: Any = None, *, model: str = "plain", id: str = "7", version: str = "") -> pb.ModelInferRequest:
    return _sent({"x": _x() if x is None else x}, model, id, version)


def _sent(arrays: Mapping[str, Any], model: str = "plain", id: str = "7", version: str = "") -> pb.ModelInferRequest:
    datatypes = {"float32": "FP32", "int64": "INT64"}
    raw = {name: (datatypes[a.dtype.name], a.shape, a.tobytes()) for name, a in arrays.items()}
    return _raw(raw, model, id, version)


def _raw(tensors: Raw, model: str, id: str = "7", version: str = "") -> pb.ModelInferRequest:
    asked = pb.ModelInferRequest(model_name=model, model_version=version, id=id)
    for name, (datatype, shape, content) in tensors.items():
        asked.inputs.add(name=name, datatype=datatype, shape=shape)
        asked.raw_input_contents.append(content)
    return asked


def _wanting(asked: pb.ModelInferRequest, *outputs: str) -> pb.ModelInferRequest:
    for output in outputs:
        asked.outputs.add(name=output)
    return asked


def _classes(asked: pb.ModelInferRequest, count: int) -> pb.ModelInferRequest:
    _set(asked.outputs.add(name="y"), "classification", int64_param=count)
    return asked


def _set(message: Any, parameter: str, **value: Any) -> None:
    message.parameters[parameter].CopyFrom(pb.InferParameter(**value))


def _changed(asked: pb.ModelInferRequest, change: Callable[[pb.ModelInferRequest], object]) -> pb.ModelInferRequest:
    change(asked)
    return asked


@contextmanager
def serving() -> Iterator[Inference]:
    """All models, ready to be asked."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        models(root)
        manager = ModelManager()
        for path in sorted(root.iterdir()):
            asked = request_of(root, path.name)
            backend = "onnx_runtime" if (path / "1/model.onnx").exists() else "fake"
            text = path / "config.pbtxt"
            config = model_config.parse(text.read_text() if text.exists() else None, path.name)
            asked = dataclasses.replace(asked, defaults=ServerDefaults(backend=backend), config=config)
            let_in(manager, asked)
        manager.started()
        yield Inference(manager, Recorder(0.0, REFUSALS), max_steps=MAX_STEPS)
        assert manager.close(10)


class KeptCall:
    """A call that keeps what it was told; see `serving.protocol.call.Call`."""

    deadline_ns = None
    caller = ""
    on_stream = 0
    gone = False

    def __init__(self) -> None:
        self.received_ns = now_ns()
        self.told: queue.SimpleQueue[bytes | tuple[Code, str]] = queue.SimpleQueue()

    def reply(self, payload: bytes) -> None:
        self.told.put(payload)

    @staticmethod
    def reply_all(answers: Sequence[tuple[KeptCall, bytes]]) -> None:
        for call, payload in answers:
            call.reply(payload)

    def fail(self, code: Code, message: str, retry_ms: int = 0) -> None:
        self.told.put((code, message))

    def on_cancel(self, action: Callable[[], None]) -> None: ...


def answer(inference: Inference, payload: bytes) -> str:
    """What is answered, as text: the bytes in base64, or the code and the message."""
    call = KeptCall()
    inference.infer_all([(payload, call)])
    got = call.told.get(timeout=30)
    return base64.b64encode(got).decode() if isinstance(got, bytes) else f"{got[0].name}: {got[1]}"


def main() -> None:
    with serving() as inference:
        answers = {case: answer(inference, payload) for case, payload in requests()}
    FILE.write_text(json.dumps(answers, indent=1) + "\n")
    print(f"{len(answers)} answers")


if __name__ == "__main__":
    main()
