"""Which Keras models are plain stacks, and that their weights are taken over."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from export.sources.plain_keras import recognise
from models import networks
from models.checkpoint import Checkpoint


def sequential(*stack: Any) -> Any:
    return keras.Sequential([keras.Input((None, 8), name="x"), *stack])


def test_a_plain_stack_becomes_a_checkpoint_that_answers_as_it_does() -> None:
    model = sequential(layers.LSTM(4), layers.Dropout(0.3), layers.Dense(3))
    found = recognise(model, {"file": "theirs.keras"})
    assert isinstance(found, Checkpoint)
    assert found.config.told() == "LSTM of 1 x 4 in one direction, values"
    assert (found.framework, found.training) == ("keras", {"file": "theirs.keras"})
    x = np.random.default_rng(0).normal(size=(3, 11, 8)).astype(np.float32)
    np.testing.assert_allclose(networks.load(found).predict({"x": x})["y"], model(x), atol=1e-6)


def test_a_dense_layer_for_every_step_is_a_dense_layer() -> None:
    model = sequential(layers.LSTM(4, return_sequences=True), layers.TimeDistributed(layers.Dense(2)))
    found = recognise(model, {})
    assert isinstance(found, Checkpoint)
    assert found.config.head == "values_per_step"


@pytest.mark.parametrize(
    ("stack", "why"),
    [
        (
            [layers.LSTM(4), layers.BatchNormalization(), layers.Dense(3)],
            "it has a BatchNormalization beside LSTM and dense layers",
        ),
        ([layers.LSTM(4, activation="relu"), layers.Dense(3)], "is another LSTM than the usual one"),
        ([layers.Bidirectional(layers.LSTM(4), merge_mode="sum"), layers.Dense(3)], "two directions side by side"),
        ([layers.LSTM(4)], "linear layers 0"),
        ([layers.LSTM(4, return_sequences=True), layers.LSTM(5), layers.Dense(3)], "4 and 5 wide"),
        ([layers.LSTM(4), layers.Dense(3, activation="tanh")], "computes something else than a plain stack"),
    ],
    ids=["another layer", "activation", "sum", "no head", "widths", "head"],
)
def test_why_a_model_is_none(stack: list[Any], why: str) -> None:
    found = recognise(sequential(*stack), {})
    assert isinstance(found, str)
    assert why in found
