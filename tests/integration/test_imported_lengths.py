"""Files of others that are told their lengths: brought in, they are served in company of any lengths, and answer as alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.launch import LaunchedServer
from serving.signature.spec import MaskedBy, ModelSpec
from tests.support import commands
from tests.support.arrays import infer
from tests.support.running import metric
from tests.support.wire import RawClient

FEATURES, HIDDEN, CLIENTS, EACH = 4, 16, 12, 10
CONFIG_TEXT = "max_batch_size: 16 dynamic_batching { max_queue_delay_microseconds: 3000 }"


def _onnx(path: Path) -> None:
    """An LSTM of ONNX with `sequence_lens`, steps first as its operator has them."""
    generator = np.random.default_rng(0)
    shapes = {"w": (1, 4 * HIDDEN, FEATURES), "r": (1, 4 * HIDDEN, HIDDEN), "b": (1, 8 * HIDDEN)}
    weights = {name: generator.uniform(-0.25, 0.25, shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["turned", "w", "r", "b", "count"], ["", "last"], hidden_size=HIDDEN),
        helper.make_node("Squeeze", ["last", "first"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "counted",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", "steps", FEATURES]),
            helper.make_tensor_value_info("count", TensorProto.INT32, ["rows"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", HIDDEN])],
        [
            *(numpy_helper.from_array(array, name) for name, array in weights.items()),
            numpy_helper.from_array(np.array([0]), "first"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def _torchscript(path: Path) -> None:
    """What torch's users write: packed sequences, in any order of their lengths."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence

    class Packed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(FEATURES, HIDDEN, batch_first=True)

        def forward(self, x: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
            packed = pack_padded_sequence(x, count, batch_first=True, enforce_sorted=False)
            return self.lstm(packed)[1][0][-1]

    torch.manual_seed(0)
    torch.jit.script(Packed().eval()).save(str(path))


def _savedmodel(path: Path) -> None:
    """A mask made of the lengths; values for each step."""
    import keras

    x, count = keras.Input((None, FEATURES), name="x"), keras.Input((), dtype="int32", name="count")
    steps = keras.ops.cumsum(keras.ops.ones_like(x[:, :, 0], dtype="int32"), axis=1)
    keras.utils.set_random_seed(0)
    each = keras.layers.LSTM(HIDDEN, return_sequences=True)(x, mask=steps <= keras.ops.expand_dims(count, 1))
    true = keras.ops.cast(steps <= keras.ops.expand_dims(count, 1), "float32")
    keras.Model([x, count], each * keras.ops.expand_dims(true, 2)).export(path, verbose=False)


FILES: dict[str, tuple[str, Callable[[Path], None], Sequence[str]]] = {
    "onnx": ("model.onnx", _onnx, ()),
    "torchscript": (
        "model.pt",
        _torchscript,
        ("--input", f"x:FP32[-1,-1,{FEATURES}]", "--input", "count:INT64[-1]", "--output", f"y:FP32[-1,{HIDDEN}]"),
    ),
    "savedmodel": ("model.savedmodel", _savedmodel, ()),
}


@pytest.mark.parametrize("kind", FILES)
def test_company_of_any_length_changes_no_answer(kind: str, tmp_path: Path) -> None:
    name, write, said = FILES[kind]
    (tmp_path / "theirs").mkdir()
    write(tmp_path / "theirs" / name)
    repository = tmp_path / "repository"
    done = commands.export("import", tmp_path / "theirs" / name, "--repository", repository, "--name", "m", *said)
    assert done.returncode == 0, done.stderr
    spec = ModelSpec.read(repository / "m" / "1" / "spec.json")
    count, x = (next(t for t in spec.inputs if len(t.shape) == rank) for rank in (1, 3))
    assert spec.masks == MaskedBy(count.name, x.name, up_to=4096)
    (repository / "m" / "config.pbtxt").write_text(CONFIG_TEXT)
    with LaunchedServer(repository) as server:
        asked = [_drawn(number, count.dtype) for number in range(CLIENTS)]
        together: list[list[npt.NDArray[Any]]] = [[] for _ in asked]

        def ask(number: int) -> None:
            with RawClient(server.address) as client:
                for array, true in asked[number]:
                    answer = infer(client, "m", {x.name: array, count.name: true})
                    together[number].append(answer[spec.outputs[0].name])

        clients = [threading.Thread(target=ask, args=[number]) for number in range(CLIENTS)]
        for each in clients:
            each.start()
        for each in clients:
            each.join()
        assert metric(server, "padding_ratio_sum", model="m") > 0, "nothing was padded"
        with RawClient(server.address) as client:
            told = client.call("ModelConfig", name="m").config.parameters
            assert told["lstm_serving.batched"].string_value == "any lengths"
            for answers, requests in zip(together, asked, strict=True):
                for answer, (array, true) in zip(answers, requests, strict=True):
                    alone = infer(client, "m", {x.name: array, count.name: true})[spec.outputs[0].name]
                    np.testing.assert_allclose(answer, alone, rtol=1e-6, atol=1e-6)
                    assert answer.shape == alone.shape


def _drawn(number: int, dtype: np.dtype[Any]) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Sequences, some with true steps fewer than were sent."""
    generator = np.random.default_rng(number)
    made = []
    for steps in generator.integers(1, 40, EACH):
        array = generator.normal(size=(1, steps, FEATURES)).astype(np.float32)
        true = steps if generator.random() < 0.7 else generator.integers(1, steps + 1)
        made.append((array, np.array([true], dtype)))
    return made
