"""Clients that know nothing of lengths, many at once: each is answered as if it were alone, though they share batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from models.config import LSTMConfig
from serving import backends
from serving.launch import LaunchedServer
from tests.support import artefacts, oracle, real_model
from tests.support.arrays import infer
from tests.support.running import metric
from tests.support.wire import RawClient

CLIENTS, EACH = 24, 12
PER_STEP = LSTMConfig(
    input="features", features=3, layers=2, hidden=artefacts.HIDDEN, outputs=4, head="values_per_step"
)
CONFIG_TEXT = "max_batch_size: 16 dynamic_batching { max_queue_delay_microseconds: 3000 }"
BIT_EQUAL = ("onnx_runtime",)

Array = npt.NDArray[np.float32]


@pytest.fixture(scope="module", params=backends.PREFERENCE)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, edge: str
) -> Iterator[LaunchedServer]:
    folder = tmp_path_factory.mktemp(edge)
    for name, config in (("last", artefacts.FEATURES), ("each", PER_STEP)):
        version, *_ = real_model.write(folder, [request.param], name=name, config=config)
        (version.parent / "config.pbtxt").write_text(CONFIG_TEXT)
    with LaunchedServer(folder, "--backend", request.param) as server:
        yield server


def drawn(number: int) -> list[Array]:
    """What a client asks: short sequences, and now and then a very long one."""
    generator = np.random.default_rng(number)
    lengths = np.where(generator.random(EACH) < 0.1, 900, generator.integers(1, 40, EACH))
    return [generator.normal(0, 2, (1, steps, 3)).astype(np.float32) for steps in lengths]


@pytest.mark.parametrize("name", ["last", "each"])
def test_everybody_is_answered_as_if_they_were_alone(
    server: LaunchedServer, name: str, request: pytest.FixtureRequest
) -> None:
    asked = [drawn(number) for number in range(CLIENTS)]
    together: list[Sequence[Array]] = [[] for _ in asked]
    start = threading.Barrier(CLIENTS)

    def ask(number: int) -> None:
        with RawClient(server.address) as client:
            start.wait(timeout=30)
            together[number] = [infer(client, name, {"x": x})["y"] for x in asked[number]]

    clients = [threading.Thread(target=ask, args=[number]) for number in range(CLIENTS)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    batches = metric(server, "batch_rows_count", model=name)
    assert metric(server, "batch_rows_sum", model=name) == CLIENTS * EACH, "each counts once"
    assert batches < CLIENTS * EACH, "nobody shared a batch"
    assert metric(server, "padding_ratio_count", model=name) == batches
    assert 0 < metric(server, "padding_ratio_sum", model=name) < batches / 2, "some were padded, none by more than half"

    config = artefacts.FEATURES if name == "last" else PER_STEP
    exact = request.node.callspec.params["server"] in BIT_EQUAL
    with RawClient(server.address) as client:
        for answers, inputs in zip(together, asked, strict=True):
            for answer, x in zip(answers, inputs, strict=True):
                alone = infer(client, name, {"x": x})["y"]
                assert answer.shape == alone.shape == ((1, 4) if name == "last" else (1, x.shape[1], 4))
                if exact:
                    np.testing.assert_array_equal(answer, alone)
                np.testing.assert_allclose(answer, alone, rtol=1e-6, atol=1e-6)
    x = asked[0][0]
    expected = oracle.predict(config, artefacts.weights(config), {"x": x, **fresh(config, x)})["y"]
    np.testing.assert_allclose(together[0][0], expected, rtol=1e-5, atol=1e-5)


def fresh(config: LSTMConfig, x: Array) -> dict[str, npt.NDArray[np.generic]]:
    state = np.zeros((1, config.layers * config.directions, config.hidden), np.float32)
    return {"lengths": np.array([x.shape[1]]), "h0": state, "c0": state}
