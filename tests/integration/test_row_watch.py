"""A file that mixes rows in a way that no trial shows: found out while it serves, and computed one by one since."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from serving.launch import LaunchedServer
from tests.support.arrays import infer
from tests.support.running import logged, metric, until
from tests.support.wire import RawClient

TRIGGER = np.float32(np.float32(7.1) * np.float32(3.3))  # what the file multiplies is no constant of its own
CLIENTS = 8


def write(repository: Path) -> None:
    """`y` is the mean of each row over its steps, halved for all rows once a row of the batch holds the trigger.

    It looks for the trigger with a MaxPool over an axis that is folded out of rows and steps, which the graph does not show.
    """
    nodes = [
        helper.make_node("Mul", ["a", "b"], ["trigger"]),
        helper.make_node("Equal", ["x", "trigger"], ["hit"]),
        helper.make_node("Cast", ["hit"], ["hits"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["hits", "flat"], ["folded"]),
        helper.make_node("ReduceMax", ["folded"], ["any"], axes=[1], keepdims=0),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Mul", ["any", "half"], ["less"]),
        helper.make_node("Sub", ["one", "less"], ["factor"]),
        helper.make_node("Mul", ["mean", "factor"], ["y"]),
    ]
    constants = {
        "a": np.float32(7.1),
        "b": np.float32(3.3),
        "flat": np.array([1, -1]),
        "half": np.float32(0.5),
        "one": np.float32(1),
    }
    graph = helper.make_graph(
        nodes,
        "mixes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", "steps", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    folder = repository / "mixes" / "1"
    folder.mkdir(parents=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx"
    )


def test_a_row_that_was_answered_otherwise_in_company_ends_the_company(tmp_path: Path) -> None:
    write(tmp_path)
    generator = np.random.default_rng(0)
    with LaunchedServer(tmp_path, "--row-watch", "1") as server, RawClient(server.address) as client:
        assert list(client.call("ModelMetadata", name="mixes").inputs[0].shape) == [-1, -1, 4], "the trials miss it"
        assert metric(server, "rows_touch", model="mixes") == 0
        found = threading.Event()

        def ask(number: int) -> None:
            x = generator.normal(size=(1, 5, 4)).astype(np.float32)
            if number == 0:
                x[0, 0, 0] = TRIGGER
            with RawClient(server.address) as mine:
                while not found.is_set():
                    infer(mine, "mixes", {"x": x})

        clients = [threading.Thread(target=ask, args=[number]) for number in range(CLIENTS)]
        for each in clients:
            each.start()
        try:
            until(lambda: metric(server, "rows_touch", model="mixes") == 1)
        finally:
            found.set()
            for each in clients:
                each.join()
        # Those that waited to be looked at when the first was found are looked at, too.
        assert metric(server, "rows_watched_total", model="mixes", outcome="different") >= 1
        (entry,) = client.call("RepositoryIndex").models
        assert entry.state == "READY"
        assert "rows of model 'mixes' version 1 touch each other: an answer y was" in entry.reason
        assert "from now on every request is computed alone" in entry.reason
        until(lambda: logged(server, "touch each other") == 1)
        until(lambda: batched(client) == "alone")
        before = metric(server, "batch_rows_bucket", model="mixes", le="1.0")
        answered = metric(server, "batch_rows_count", model="mixes")
        _together(server, generator)
        assert metric(server, "batch_rows_bucket", model="mixes", le="1.0") - before == CLIENTS * 20
        assert metric(server, "batch_rows_count", model="mixes") - answered == CLIENTS * 20
    with LaunchedServer(tmp_path) as server, RawClient(server.address) as client:  # what was found is not forgotten
        assert metric(server, "rows_touch", model="mixes") == 1
        (entry,) = client.call("RepositoryIndex").models
        assert "rows of model 'mixes' version 1 touch each other: an answer y was" in entry.reason
        _together(server, generator)
        assert metric(server, "batch_rows_bucket", model="mixes", le="1.0") == CLIENTS * 20


def _together(server: LaunchedServer, generator: np.random.Generator) -> None:
    """Clients that would share batches, one of them with the trigger; every answer is its own."""
    wrong: list[float] = []

    def ask(number: int) -> None:
        x = generator.normal(size=(1, 5, 4)).astype(np.float32)
        if number == 0:
            x[0, 0, 0] = TRIGGER
        own = x.mean(axis=1) * (0.5 if number == 0 else 1)
        with RawClient(server.address) as client:
            for _ in range(20):
                wrong.append(float(np.abs(infer(client, "mixes", {"x": x})["y"] - own).max()))

    clients = [threading.Thread(target=ask, args=[number]) for number in range(CLIENTS)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    assert len(wrong) == CLIENTS * 20
    assert max(wrong) < 1e-5


def test_the_watch_may_be_switched_off(tmp_path: Path) -> None:
    write(tmp_path)
    with LaunchedServer(tmp_path, "--row-watch", "0") as server, RawClient(server.address) as client:
        infer(client, "mixes", {"x": np.zeros((2, 5, 4), np.float32)})
        assert metric(server, "rows_watched_total", model="mixes", outcome="same") == 0


def batched(client: RawClient) -> str:
    """What is computed together, as the server tells it."""
    told: str = client.call("ModelConfig", name="mixes").config.parameters["lstm_serving.batched"].string_value
    return told
