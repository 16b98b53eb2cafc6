"""A backend whose file has an order of axes of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serving.backends.rows_first import LaidOutBackend, laid_out
from serving.signature.tensors import Tensors
from tests.support import fake_models
from tests.support.foreign_specs import ALONE, SHARED


class File:
    """Takes and gives what the file of `SHARED` does: the state with its rows on axis 1, and one rate for all."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.closed = False

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        self.shapes = {name: array.shape for name, array in inputs.items()}
        answers = {"y": inputs["x"][:, :1] * inputs["rate"], "stateN": inputs["state"] + 1}
        return {name: answers[name] for name in outputs}

    def close(self) -> None:
        self.closed = True


def test_what_has_the_rows_first_everywhere_is_not_gone_through() -> None:
    file = File()
    assert laid_out(file, fake_models.spec()) is file
    for spec in (SHARED, ALONE):
        assert isinstance(laid_out(file, spec), LaidOutBackend)


def test_rows_are_moved_to_where_the_file_has_them_and_back() -> None:
    file = File()
    backend = laid_out(file, SHARED)
    state = np.arange(3 * 2 * 4, dtype=np.float32).reshape(3, 2, 4)
    inputs = {"x": np.ones((3, 3), np.float32), "state": state, "rate": np.full(3, 7)}
    answer = backend.run(inputs, ["stateN", "y"])
    assert file.shapes == {"x": (3, 3), "state": (2, 3, 4), "rate": ()}
    assert list(answer) == ["stateN", "y"]
    np.testing.assert_array_equal(answer["stateN"], state + 1)
    np.testing.assert_array_equal(answer["y"], np.full((3, 1), 7))


def test_closing_closes_the_backend_behind_it() -> None:
    file = File()
    laid_out(file, SHARED).close()
    assert file.closed
