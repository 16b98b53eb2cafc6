"""One set of canonical weights is one function, in either framework, whole or in pieces, whatever the padding holds."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models import networks
from models.checkpoint import Checkpoint, CheckpointError, check_weights
from models.config import LSTMConfig
from models.inputs import InputError
from models.networks import FRAMEWORKS, Network

FEATURES, VOCABULARY, HIDDEN, OUTPUTS = 3, 11, 5, 4
LENGTHS = np.array([9, 1, 4, 7], np.int64)
ROWS, STEPS = 4, 9
TOLERANCE = 1e-5

Array = npt.NDArray[Any]


def config(input_: str, layers: int, directions: int, head: str) -> LSTMConfig:
    width = {"features": FEATURES} if input_ == "features" else {"vocabulary": VOCABULARY, "embedding": 6}
    fields = {"input": input_, "layers": layers, "bidirectional": directions == 2, "head": head}
    return LSTMConfig.from_mapping({**fields, **width, "hidden": HIDDEN, "outputs": OUTPUTS, "dropout": 0.5})


# Three layers are slow: tests/contract/test_matrix.py holds those of both frameworks, and their files, to the equations.
CONFIGS = [
    pytest.param(config(*fields), id="-".join(map(str, fields)), marks=[pytest.mark.slow] * (fields[1] == 3))
    for fields in itertools.product(
        ("features", "tokens"), (1, 2, 3), (1, 2), ("classification", "values", "values_per_step")
    )
]
ONE_DIRECTION = [param for param in CONFIGS if isinstance(param.values[0], LSTMConfig) and param.values[0].streamable]


@functools.cache
def pair(of: LSTMConfig) -> tuple[Network, Network]:
    """A PyTorch network with scales that matter, and a Keras network with the same weights."""
    rng = np.random.default_rng(7)
    ours, theirs = networks.build("torch", of), networks.build("keras", of)
    weights = ours.canonical_weights()
    for name, array in weights.items():
        if name.endswith(".scale"):
            weights[name] = rng.uniform(0.5, 2, array.shape).astype(np.float32)
        elif name.endswith(".mean"):
            weights[name] = rng.standard_normal(array.shape).astype(np.float32)
    ours.load_canonical(weights)
    theirs.load_canonical(weights)
    return ours, theirs


def made_up_inputs(of: LSTMConfig, padding: float) -> dict[str, Array]:
    """Rows of unequal length with a random state; `padding` stands behind every row's length."""
    rng = np.random.default_rng(11)
    if of.input == "tokens":
        x: Array = rng.integers(0, VOCABULARY, (ROWS, STEPS))
        fill: float = 10**6 if np.isnan(padding) else int(padding)
    else:
        x, fill = rng.standard_normal((ROWS, STEPS, FEATURES)).astype(np.float32), padding
    for row, length in enumerate(LENGTHS):
        x[row, length:] = fill
    state = (ROWS, of.layers * of.directions, HIDDEN)
    h0, c0 = (rng.uniform(-1, 1, state).astype(np.float32) for _ in range(2))
    return {"x": x, "lengths": LENGTHS, "h0": h0, "c0": c0}


def assert_close(answer: dict[str, Array], expected: dict[str, Array]) -> None:
    assert answer.keys() == expected.keys()
    for name, wanted in expected.items():
        assert answer[name].dtype == wanted.dtype == np.float32
        assert answer[name].shape == wanted.shape
        worst = (np.abs(answer[name] - wanted) / np.maximum(1, np.abs(wanted))).max()
        assert worst <= TOLERANCE, f"{name} differs by {worst}"


@pytest.mark.parametrize("of", CONFIGS)
def test_frameworks_agree(of: LSTMConfig) -> None:
    ours, theirs = pair(of)
    inputs = made_up_inputs(of, padding=np.nan)
    answer = ours.predict(inputs)
    assert_close(theirs.predict(inputs), answer)
    if of.head == "classification":
        np.testing.assert_allclose(answer["y"].sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("of", CONFIGS)
def test_weights_come_back_exactly(of: LSTMConfig) -> None:
    for network in pair(of):
        weights = network.canonical_weights()
        check_weights(of, weights)
        network.load_canonical(weights)
        again = network.canonical_weights()
        for name, array in weights.items():
            np.testing.assert_array_equal(again[name], array, strict=True)


@pytest.mark.parametrize("of", CONFIGS)
def test_padding_changes_no_bit(of: LSTMConfig) -> None:
    for network in pair(of):
        clean = network.predict(made_up_inputs(of, padding=0))
        dirty = network.predict(made_up_inputs(of, padding=np.nan))
        for name, array in clean.items():
            np.testing.assert_array_equal(dirty[name], array)
        if of.head == "values_per_step":
            assert all((row[length:] == 0).all() for row, length in zip(clean["y"], LENGTHS, strict=True))


@pytest.mark.parametrize("of", CONFIGS)
def test_a_row_alone_answers_as_in_company(of: LSTMConfig) -> None:
    inputs = made_up_inputs(of, padding=np.nan)
    for network in pair(of):
        together = network.predict(inputs)
        for row, length in enumerate(LENGTHS):
            alone = {name: array[row : row + 1] for name, array in inputs.items()} | {"x": inputs["x"][[row], :length]}
            expected = {name: array[row : row + 1] for name, array in together.items()}
            if of.head == "values_per_step":
                expected["y"] = expected["y"][:, :length]
            assert_close(network.predict(alone), expected)


@pytest.mark.parametrize("of", ONE_DIRECTION)
@pytest.mark.parametrize("piece", [1, 3, 7])
def test_pieces_equal_the_whole(of: LSTMConfig, piece: int) -> None:
    inputs = made_up_inputs(of, padding=0)
    del inputs["lengths"]
    for network in pair(of):
        whole = network.predict(inputs)
        state = {"h0": inputs["h0"], "c0": inputs["c0"]}
        answers = []
        for start in range(0, STEPS, piece):
            answer = network.predict({"x": inputs["x"][:, start : start + piece], **state})
            state = {"h0": answer["hn"], "c0": answer["cn"]}
            answers.append(answer["y"])
        y = np.concatenate(answers, axis=1) if of.head == "values_per_step" else answers[-1]
        assert_close({"y": y, "hn": state["h0"], "cn": state["c0"]}, whole)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_is_left_out_is_full_length_and_zero_state(framework: str) -> None:
    of = config("features", 2, 2, "values")
    network = networks.build(framework, of)
    x = made_up_inputs(of, padding=0)["x"]
    zeros = np.zeros((ROWS, 4, HIDDEN), np.float32)
    spelt_out = network.predict({"x": x, "lengths": np.full(ROWS, STEPS), "h0": zeros, "c0": zeros})
    for name, array in network.predict({"x": x}).items():
        np.testing.assert_array_equal(array, spelt_out[name])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_checkpoint_becomes_a_network(framework: str) -> None:
    of = config("features", 1, 1, "classification")
    weights = pair(of)[0].canonical_weights()
    network = networks.load(Checkpoint(config=of, weights=weights, framework=framework, training={}))
    assert type(network).__name__ == {"torch": "TorchLSTM", "keras": "KerasLSTM"}[framework]
    inputs = made_up_inputs(of, padding=0)
    assert_close(network.predict(inputs), pair(of)[0].predict(inputs))
    with pytest.raises(CheckpointError, match=r"weights lack head\.bias"):
        network.load_canonical({name: array for name, array in weights.items() if name != "head.bias"})


def test_another_framework_is_refused() -> None:
    with pytest.raises(ValueError, match="framework is 'jax'; it must be one of torch, keras"):
        networks.build("jax", config("features", 1, 1, "values"))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_inputs_that_do_not_fit_are_refused(framework: str) -> None:
    """By the checks that both have in common, see `models.inputs`."""
    network = pair(config("features", 1, 1, "classification"))[FRAMEWORKS.index(framework)]
    with pytest.raises(InputError, match="lengths run from 6 to 6; x allows 1 to 5"):
        network.predict({"x": np.zeros((1, 5, FEATURES), np.float32), "lengths": np.array([6])})
