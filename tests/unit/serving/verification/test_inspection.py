"""What is found out about a foreign file as a whole, on functions that stand for one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from serving.backends.rows_first import LaidOutBackend
from serving.errors import RepositoryError
from serving.signature.spec import StatePair
from serving.signature.tensors import Tensors
from serving.verification.hints import Unclear
from serving.verification.inspection import unproved
from tests.support.files_of_others import found, running_sum, stated


@pytest.mark.parametrize(("steps", "rows"), [(1, 0), (0, 1)])
def test_rows_first_and_time_first(steps: int, rows: int) -> None:
    result = found(stated({"x": (-1, -1, 4)}, {"y": (-1, -1, 4)}), running_sum(steps))
    assert result.spec.batched
    assert [(t.shape, t.rows_axis) for t in (*result.spec.inputs, *result.spec.outputs)] == [((-1, -1, 4), rows)] * 2
    for sample in result.samples:
        np.testing.assert_allclose(sample.outputs["y"], np.cumsum(sample.inputs["x"], axis=1), rtol=0, atol=1e-6)


def test_a_state_whose_rows_are_elsewhere() -> None:
    spec = stated({"x": (-1, -1, 4), "h": (1, -1, 4)}, {"y": (-1, -1, 4), "hn": (-1, -1, -1)})
    result = found(spec, running_sum(1)).spec
    assert result.state == (StatePair("h", "hn"),)
    assert result.streamable
    assert {t.name: (t.shape, t.rows_axis) for t in (*result.inputs, *result.outputs)} == {
        "x": ((-1, -1, 4), 0),
        "h": ((-1, 1, 4), 1),
        "y": ((-1, -1, 4), 0),
        "hn": ((-1, 1, 4), 1),
    }


def test_one_row_at_a_time() -> None:
    spec = stated({"x": (-1, 4), "h": (1, 1, 4)}, {"y": (-1, 4), "hn": (1, 1, 4)})

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        sums = np.cumsum(inputs["x"], axis=0) + inputs["h"][0]
        return {"y": sums, "hn": sums[-1][None, None]}

    result = found(spec, run)
    assert not result.spec.batched
    assert {t.name: result.spec.shown_shape(t) for t in (*result.spec.inputs, *result.spec.outputs)} == {
        "x": (-1, 4),
        "h": (1, 1, 4),
        "y": (-1, 4),
        "hn": (1, 1, 4),
    }
    assert all(len(array) == 1 for sample in result.samples for array in sample.inputs.values())


def test_where_every_input_has_one_whole_number_a_row_none_is_a_length() -> None:
    """There are no steps that it could count, so it may hold whatever it likes, and has to, to move its answer."""
    one = (-1, 1)
    spec = stated({"x": one, "sum": one}, {"y": one, "sumN": one}, dict.fromkeys(("x", "sum", "y", "sumN"), "INT32"))

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": inputs["x"], "sumN": inputs["sum"] + inputs["x"]}

    result = found(spec, run).spec
    assert (result.batched, result.streamable, result.state) == (True, True, (StatePair("sum", "sumN"),))


def test_a_value_that_all_rows_share() -> None:
    spec = stated({"x": (-1, 4), "rate": ()}, {"y": (-1, 4)}, {"rate": "INT64"})

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        assert inputs["rate"] == 16000
        return {"y": inputs["x"] * inputs["rate"]}

    with pytest.raises(Unclear, match=r"rate is one value for all rows.*--value rate="):
        found(spec, run)
    result = found(spec, run, values={"rate": 16000})
    assert result.spec.shared == {"rate"}
    (x, rate) = result.spec.inputs
    assert (result.spec.shown_shape(x), result.spec.shown_shape(rate)) == ((-1, 4), (-1, 1))

    class File:
        def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
            return run(inputs, outputs)

        def close(self) -> None: ...

    for sample in result.samples:  # what is kept can be replayed through the server's own layout
        assert len(sample.inputs["rate"]) == len(sample.inputs["x"])
        got = LaidOutBackend(File(), result.spec).run(sample.inputs, ["y"])["y"]
        np.testing.assert_array_equal(got, sample.outputs["y"])


@pytest.mark.parametrize(("datatype", "shape"), [(None, (-1,)), ("FP32", None)])
def test_what_is_not_stated_is_not_guessed(datatype: str | None, shape: tuple[int, ...] | None) -> None:
    with pytest.raises(Unclear, match="nothing says of what datatype and shape x is"):
        unproved({"x": (datatype, shape)}, {"y": ("FP32", (-1,))})


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[2J"])
def test_names_that_no_client_could_write(name: str) -> None:
    with pytest.raises(RepositoryError, match="which no client could write"):
        unproved({"x": ("FP32", (-1,))}, {name: ("FP32", (-1,))})


def test_a_size_that_the_exporter_has_traced_with_is_not_believed() -> None:
    """torch's newer exporter writes down how many steps it has traced with, and answers as many as it is sent all the same."""
    spec = found(
        stated({"x": (-1, -1, 2)}, {"y": (-1, 7, 2)}), lambda sent, names: {"y": np.cumsum(sent["x"], axis=1)}
    ).spec
    assert [(t.shape, t.steps_axis) for t in (*spec.inputs, *spec.outputs)] == [((-1, -1, 2), 1), ((-1, -1, 2), 1)]


@pytest.mark.parametrize("said", [{}, {"rows": {"x": 0}}], ids=["nothing is said", "as with max_batch_size"])
@pytest.mark.parametrize(("column", "refused"), [(slice(None), True), (slice(0, 1), True), (slice(0, 0), False)])
def test_what_answers_nan_to_whatever_it_is_asked_is_refused(
    column: slice, refused: bool, said: dict[str, object]
) -> None:
    spec = stated({"x": (-1, -1, 2)}, {"y": (-1, 2)})

    def run(sent: Tensors, _: object) -> Tensors:
        y = sent["x"][:, -1].copy()
        y[:, column] = np.nan
        return {"y": y}

    if not refused:
        assert found(spec, run, **said).spec.batched
        return
    with pytest.raises(Unclear, match=r"y holds NaN whatever is asked, .* a training that diverged"):
        found(spec, run, **said)
