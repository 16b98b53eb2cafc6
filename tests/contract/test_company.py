"""Requests of unequal length are answered in any company as they are alone: every backend, every kind of network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from models.config import LSTMConfig
from serving import backends
from serving.backends.base import Options
from serving.batching.computation import Ready, Stateless
from serving.batching.pending import Pending, Piece, whole
from serving.signature.tensors import Tensors
from serving.telemetry.timeline import Timeline
from tests.support import artefacts
from tests.support.gated import Answer

TOLERANCE = 1e-6
BIT_EQUAL = ("onnx_runtime", "fake")
NAMES = ["y", "hn", "cn"]
WIDE = LSTMConfig(features=8, layers=2, hidden=128, head="values", outputs=1)  # beyond one block of a matrix product
SHAPES = [[(1, 9), (1, 1)], [(3, 2), (1, 40), (2, 39)], [(1, steps) for steps in range(1, 33)]]  # rows and steps


@pytest.fixture(
    scope="module",
    params=[
        *(
            pytest.param(config, id=artefacts.described(config), marks=[pytest.mark.slow] * (config.layers == 3))
            for config in artefacts.CONFIGS  # a third layer adds nothing to what two show, and the matrix has it in company
        ),
        pytest.param(WIDE, id=f"wide-{artefacts.described(WIDE)}"),
    ],
)
def config(request: pytest.FixtureRequest) -> LSTMConfig:
    config: LSTMConfig = request.param
    return config


@pytest.fixture(scope="module", params=backends.names())
def compute(
    config: LSTMConfig, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Sequence[Piece]], list[Tensors]]]:
    weights = artefacts.weights(config)
    artefact = artefacts.make(request.param, config, weights, tmp_path_factory.mktemp("artefact"))
    spec = artefacts.spec(config, weights)
    computation = Stateless(backends.module(request.param).load(artefact, spec, "cpu", Options()), spec)

    def compute(pieces: Sequence[Piece]) -> list[Tensors]:
        outcomes = computation.run(pieces)
        assert all(isinstance(outcome, Ready) for outcome in outcomes), outcomes
        return [outcome.outputs for outcome in outcomes if isinstance(outcome, Ready)]

    yield compute
    computation.close()


@pytest.mark.parametrize("sends", ["nothing but x", "one of each"])
def test_company_changes_no_answer(
    config: LSTMConfig,
    compute: Callable[[Sequence[Piece]], list[Tensors]],
    sends: str,
    request: pytest.FixtureRequest,
) -> None:
    exact = request.node.callspec.params["compute"] in BIT_EQUAL
    for shapes in SHAPES:
        asked = ["nothing but x", "lengths", "state"] if sends == "one of each" else [sends]
        pieces = [
            piece(config, rows, steps, number, asked[number % len(asked)])
            for number, (rows, steps) in enumerate(shapes)
        ]
        for one, together in zip(pieces, compute(pieces), strict=True):
            (alone,) = compute([one])
            for name in NAMES:
                assert together[name].shape == alone[name].shape
                assert together[name].dtype == alone[name].dtype
                if exact:
                    np.testing.assert_array_equal(together[name], alone[name])
                else:
                    np.testing.assert_allclose(together[name], alone[name], rtol=TOLERANCE, atol=TOLERANCE)


def piece(config: LSTMConfig, rows: int, steps: int, number: int, sends: str) -> Piece:
    """A request: `x` alone, whose steps are all true; with lengths, behind which anything may stand; or with a state, too."""
    inputs: Tensors = artefacts.batch(config, rows, steps, seed=number, full=sends == "nothing but x")
    if sends == "lengths":
        inputs = {"x": inputs["x"], "lengths": inputs["lengths"]}
    elif sends == "nothing but x":
        inputs = {"x": inputs["x"]}
    spec = artefacts.spec(config, artefacts.weights(config))
    return whole(Pending(Answer(0), inputs, rows, steps, NAMES, spec.batch_key(inputs), Timeline(0)))
