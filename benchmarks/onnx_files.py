"""Our ONNX files beside those that torch.onnx.export and keras.Model.export write for the same network.

    PYTHONPATH=.envs/onnx_compare python benchmarks/onnx_files.py --report docs/onnx.md

`make compare-onnx` runs it. Every file is first held to the trained network's own answers; then nodes and bytes are counted
and ONNX Runtime is timed on one thread, the files in turn. The others' networks take `x` and give `y`, as most people write
them. Ours also take `lengths` and a state; what that costs is found by cutting it off again (`without_extras`).

A session runs every node of its file, also those whose outputs nobody has asked for.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import io
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_files_report as report
import reference
import torch

from export.writers import onnx_writer
from export.writers.onnx_graph import OPSET
from models import networks
from models.config import LSTMConfig
from models.inputs import INPUTS, OUTPUTS
from models.networks import Network

ROWS = (1, 8, 32, 64)
ROUNDS = 61
BLOCK_SECONDS = 0.008  # how long one file is called before it is the next one's turn
TOLERANCE = 1e-5

CONFIGS = {
    "reference": reference.CONFIG,
    "classification": LSTMConfig(features=12, layers=1, hidden=128, head="classification", outputs=9),
    "both directions": LSTMConfig(features=8, layers=2, hidden=64, bidirectional=True, head="values", outputs=1),
    "values per step": LSTMConfig(features=6, layers=1, hidden=32, head="values_per_step", outputs=2),
    "tags": LSTMConfig(
        input="tokens",
        vocabulary=1000,
        embedding=32,
        hidden=64,
        bidirectional=True,
        head="values_per_step",
        outputs=8,
    ),
}

Array = npt.NDArray[Any]
Session = Any  # an onnxruntime.InferenceSession
Writer = Callable[[Network, Path], None]


class PlainTorch(torch.nn.Module):
    """The network as most people write it: `x` in, `y` out."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` [rows, steps, features] or ids [rows, steps] -> `y`."""
        parts, config = self.network, self.network.config
        tokens = config.input == "tokens"
        steps, (hn, _) = parts.lstm(parts.embedding(x) if tokens else (x - parts.input_mean) / parts.input_scale)
        if config.head == "values_per_step":
            read = steps
        elif config.bidirectional:
            read = torch.cat([hn[-2], hn[-1]], dim=-1)
        else:
            read = hn[-1]
        linear = parts.head(read)
        if config.head == "classification":
            return linear.softmax(-1)
        return linear * parts.output_scale + parts.output_mean


class WholeTorch(torch.nn.Module):
    """The network with everything that ours takes and gives."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor, lengths: torch.Tensor, h0: torch.Tensor, c0: torch.Tensor) -> Any:
        """See `models.torch_lstm.TorchLSTM.answer`."""
        return self.network.answer(x, lengths, h0, c0)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compares our ONNX files with those of torch and Keras.")
    parser.add_argument("--report", type=Path, required=True, help="Markdown file; what follows its marker is replaced")
    asked = parser.parse_args()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before anything imports ONNX Runtime
    networks.silence_tensorflow()
    logging.disable(logging.CRITICAL)  # the exporters report their progress
    with tempfile.TemporaryDirectory() as folder:
        measured = [compare(name, config, Path(folder)) for name, config in CONFIGS.items()]
    report.write(asked.report, measured)
    return 0


def compare(name: str, config: LSTMConfig, folder: Path) -> report.Compared:
    """Every writer's file of one network, proven, counted and timed."""
    network = trained(config)
    files, failures = {}, {}
    for writer, write in WRITERS.items():
        path = folder / f"{name} {writer}.onnx"
        try:
            with (
                warnings.catch_warnings(),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                warnings.simplefilter("ignore")
                write(network, path)
        except Exception as error:  # noqa: BLE001 - whatever a foreign exporter raises is a finding
            failures[writer] = f"{type(error).__name__}: {report.plain(str(error))}"
            continue
        files[writer] = path
    sessions = {writer: session(path) for writer, path in files.items()}
    for writer, file in sessions.items():
        check(writer, file, network)
    seconds = {rows: timed(sessions, config, rows) for rows in ROWS}
    counted = {
        writer: report.File(**facts(path), seconds={rows: seconds[rows][writer] for rows in ROWS})
        for writer, path in files.items()
    }
    print(f"measured: {name}", flush=True)
    return report.Compared(name, config, counted, failures)


def trained(config: LSTMConfig) -> Network:
    """A network with PyTorch's initial weights and scales that are neither 0 nor 1."""
    torch.manual_seed(0)
    network, rng = networks.build("torch", config), np.random.default_rng(0)
    weights = network.canonical_weights()
    for name, array in weights.items():
        if name.endswith((".scale", ".mean")):
            weights[name] = rng.uniform(0.5, 2, array.shape).astype(np.float32)
    network.load_canonical(weights)
    return network


def write_ours(network: Network, path: Path) -> None:
    onnx_writer.write(network.config, network.canonical_weights(), path)


def write_ours_without_extras(network: Network, path: Path) -> None:
    write_ours(network, path)
    onnx.save(without_extras(onnx.load(path), network.config), path)


def without_extras(model: onnx.ModelProto, config: LSTMConfig) -> onnx.ModelProto:
    """Our file cut down to `x` and `y`: no `lengths`, no state, and so nothing behind a row's length to be zeroed."""
    graph = model.graph
    for node in graph.node:
        if node.op_type == "LSTM":
            del node.input[4:]  # sequence_lens, initial_h, initial_c
        if "bias_by_step" in node.input:  # the bias within a row's length, 0 behind
            node.input[list(node.input).index("bias_by_step")] = "head.bias"
            (table,) = [constant for constant in graph.initializer if constant.name == "head.bias"]
            table.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(table)[0], "head.bias"))
    if any("h_and_one" in node.output for node in graph.node):
        _take_off_one(graph, config)
    needed, kept = {"y"}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.insert(0, node)
            needed |= set(node.input)
    cut = onnx.helper.make_graph(
        kept,
        graph.name,
        [value for value in graph.input if value.name in needed],
        [value for value in graph.output if value.name == "y"],
        [array for array in graph.initializer if array.name in needed],
    )
    bare = onnx.helper.make_model(cut, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(bare, full_check=True)
    return bare


def _take_off_one(graph: onnx.GraphProto, config: LSTMConfig) -> None:
    """The head's bias added to its product, instead of being the weight of a 1 beside each direction's `h`."""
    (joined,) = [node for node in graph.node if "h_and_one" in node.output]
    for node in graph.node:
        node.input[:] = [joined.input[0] if name == "h_and_one" else name for name in node.input]
    (product,) = [node for node in graph.node if "head.weight" in node.input]
    (constant,) = [array for array in graph.initializer if array.name == "head.weight"]
    weight = onnx.numpy_helper.to_array(constant)
    blocks = weight.reshape(config.directions, config.hidden + 1, config.outputs)
    constant.CopyFrom(onnx.numpy_helper.from_array(blocks[:, :-1].reshape(-1, config.outputs), "head.weight"))
    graph.initializer.append(onnx.numpy_helper.from_array(blocks[:, -1].sum(axis=0), "head.bias"))
    biased = onnx.helper.make_node("Add", ["without_bias", "head.bias"], [product.output[0]], name="biased")
    product.output[0] = "without_bias"
    graph.node.insert(list(graph.node).index(product) + 1, biased)


def write_torch(network: Network, path: Path, *, dynamo: bool) -> None:
    module, x = PlainTorch(network).eval(), torch.tensor(example(network.config, 2))
    names = {"input_names": ["x"], "output_names": ["y"]}
    if dynamo:
        free = ({0: torch.export.Dim("rows"), 1: torch.export.Dim("steps")},)
        torch.onnx.export(
            module, (x,), path, **names, dynamo=True, dynamic_shapes=free, external_data=False, verbose=False
        )
    else:
        axes = {"x": {0: "rows", 1: "steps"}}
        torch.onnx.export(module, (x,), path, **names, dynamo=False, dynamic_axes=axes, opset_version=OPSET)


def write_torch_whole(network: Network, path: Path, *, dynamo: bool) -> None:
    """The network with `lengths` and state, as `models.torch_lstm` has it: the very function that our file computes."""
    config, rows = network.config, 2
    state = torch.zeros(rows, config.layers * config.directions, config.hidden)
    x, lengths = torch.tensor(example(config, rows)), torch.tensor([reference.STEPS, 1])
    names = {"input_names": list(INPUTS), "output_names": list(OUTPUTS)}
    module, arguments = WholeTorch(network).eval(), (x, lengths, state, state)
    if dynamo:
        free = {0: torch.export.Dim("rows")}
        shapes = ({**free, 1: torch.export.Dim("steps")}, free, free, free)
        torch.onnx.export(
            module, arguments, path, **names, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False
        )
    else:
        axes = {name: {0: "rows"} for name in INPUTS} | {"x": {0: "rows", 1: "steps"}}
        torch.onnx.export(module, arguments, path, **names, dynamo=False, dynamic_axes=axes, opset_version=OPSET)


def write_keras(network: Network, path: Path) -> None:
    model = plain_keras(network)
    model(example(network.config, 1))  # a model that was never called is refused
    model.export(path, format="onnx", verbose=False)


def plain_keras(network: Network) -> Any:
    """The network as a functional Keras model with the layers that Keras has for each part.

    `Normalization` would be the layer for the input, but its constants become inputs of the file that Keras writes.
    """
    import keras

    config, weights = network.config, network.canonical_weights()
    if config.input == "tokens":
        x = keras.Input((None,), dtype="int64", name="x")
        embedding = keras.layers.Embedding(config.vocabulary, config.embedding)
        steps = embedding(x)
        embedding.set_weights([weights["embedding"]])
    else:
        mean, scale = weights["input.mean"], weights["input.scale"]
        x = keras.Input((None, config.features), name="x")
        steps = keras.layers.Rescaling((1 / scale).tolist(), (-mean / scale).tolist())(x)
    layers = []
    for layer in range(config.layers):
        every_step = layer < config.layers - 1 or config.head == "values_per_step"
        lstm = keras.layers.LSTM(config.hidden, return_sequences=every_step)
        layers.append(keras.layers.Bidirectional(lstm) if config.bidirectional else lstm)
        steps = layers[-1](steps)
    head = keras.layers.Dense(config.outputs, activation="softmax" if config.head == "classification" else None)
    y = head(steps)
    if config.head != "classification":
        y = keras.layers.Rescaling(weights["output.scale"].tolist(), weights["output.mean"].tolist())(y)
    for number, layer in enumerate(layers):
        directions = ("forward", "backward")[: config.directions]
        layer.set_weights([part for direction in directions for part in of_keras(weights, number, direction)])
    head.set_weights([weights["head.weight"].T, weights["head.bias"]])
    return keras.Model(x, y)


def of_keras(weights: Mapping[str, Array], layer: int, direction: str) -> list[Array]:
    """Kernel, recurrent kernel and bias of one LSTM as Keras keeps them."""
    w, r, b_input, b_hidden = (
        weights[f"lstm.{layer}.{direction}.{kind}"]
        for kind in ("weight_input", "weight_hidden", "bias_input", "bias_hidden")
    )
    return [w.T, r.T, b_input + b_hidden]


WRITERS: dict[str, Writer] = {
    report.OURS: write_ours,
    report.BARE: write_ours_without_extras,
    "torch, dynamo=False": functools.partial(write_torch, dynamo=False),
    "torch, dynamo=True": functools.partial(write_torch, dynamo=True),
    "Keras": write_keras,
    f"torch, dynamo=False{report.WHOLE}": functools.partial(write_torch_whole, dynamo=False),
    f"torch, dynamo=True{report.WHOLE}": functools.partial(write_torch_whole, dynamo=True),
}


def session(path: Path) -> Session:
    """The file in ONNX Runtime on one thread; everything else as it comes."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def example(config: LSTMConfig, rows: int) -> Array:
    """`x` of full rows: [rows, steps, features], or ids [rows, steps]."""
    rng = np.random.default_rng(rows)
    if config.input == "tokens":
        return rng.integers(0, config.vocabulary, (rows, reference.STEPS))
    return rng.normal(size=(rows, reference.STEPS, config.features)).astype(np.float32)


def feed(file: Session, config: LSTMConfig, rows: int) -> dict[str, Array]:
    """What the file takes of `rows` full rows from a zero state."""
    x = example(config, rows)
    state = np.zeros((rows, config.layers * config.directions, config.hidden), np.float32)
    every = {"x": x, "lengths": np.full(rows, reference.STEPS, np.int64), "h0": state, "c0": state}
    names = [tensor.name for tensor in file.get_inputs()]
    return {name: every[name] for name in names} if len(names) > 1 else {names[0]: x}


def check(writer: str, file: Session, network: Network) -> None:
    """Raises unless the file answers what the network does, also for other numbers of rows than it was written with."""
    for rows in ROWS:
        fed = feed(file, network.config, rows)
        answer = file.run([file.get_outputs()[0].name], fed)[0]
        expected = network.predict({"x": example(network.config, rows)})["y"]
        difference = float(np.abs(answer - expected).max())
        if not (answer.shape == expected.shape and difference <= TOLERANCE):
            raise AssertionError(f"{writer}: {rows} rows differ by {difference:g}")


def timed(sessions: Mapping[str, Session], config: LSTMConfig, rows: int) -> dict[str, float]:
    """Seconds of a call that asks for `y`: the median of the medians of each round, by writer."""
    calls = {}
    for writer, file in sessions.items():
        names, fed = [file.get_outputs()[0].name], feed(file, config, rows)
        calls[writer] = lambda file=file, names=names, fed=fed: file.run(names, fed)
    rounds = collections.defaultdict(list)
    for number in range(ROUNDS):
        for writer in np.random.default_rng(number).permutation(list(calls)):
            rounds[writer].append(block(calls[writer]))
    return {writer: statistics.median(times) for writer, times in rounds.items()}


def block(call: Callable[[], object]) -> float:
    """The median seconds of a call within a block of them."""
    times, end = [], time.perf_counter() + BLOCK_SECONDS
    while len(times) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def facts(path: Path) -> dict[str, Any]:
    """Nodes by operator, bytes, opset and IR version of a file."""
    model = onnx.load(path)
    operators = collections.Counter(node.op_type for node in model.graph.node)
    functions = {function.name for function in model.functions}
    assert not functions & set(operators), f"{path.name} hides nodes in functions: {functions}"
    return {
        "operators": operators,
        "size_bytes": path.stat().st_size,
        "opset": next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        "ir_version": model.ir_version,
    }


if __name__ == "__main__":
    sys.exit(main())
