"""What the fake backend computes, and that it is late, fails and breaks on command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from serving.backends import fake
from serving.backends.base import DEVICE_LOST, Options
from serving.backends.fake import FakeBackend
from serving.errors import BackendUnavailable, RepositoryError
from serving.signature.spec import ModelSpec
from serving.signature.tensors import Tensors
from tests.support import fake_models

SPEC = fake_models.spec()
ALL = [tensor.name for tensor in SPEC.outputs]


def batch(*first: float, steps: int = 4, length: int = 4, state: float = 0.0) -> Tensors:
    """A row of ones for each value, which its first element is instead."""
    rows = len(first)
    x = np.ones((rows, steps, fake_models.FEATURES), np.float32)
    x[:, 0, 0] = first
    held = np.full((rows, 1, 4), state, np.float32)
    return {"x": x, "lengths": np.full(rows, length), "h0": held, "c0": held}


def made(folder: Path, text: str = "{}", spec: ModelSpec = SPEC) -> FakeBackend:
    (folder / fake.FILE_NAME).write_text(text)
    return fake.load(folder / fake.FILE_NAME, spec, "cpu", Options())


def test_every_element_is_the_sum_of_the_rows_true_steps_on_top_of_its_state(tmp_path: Path) -> None:
    answer = made(tmp_path).run(batch(1, 5, length=2, state=100), ALL)
    assert {name: array.shape for name, array in answer.items()} == {"y": (2, 2), "hn": (2, 1, 4), "cn": (2, 1, 4)}
    for array in answer.values():
        np.testing.assert_array_equal(array.reshape(2, -1), np.array([[106], [110]]).repeat(array[0].size, axis=1))


def test_in_pieces_it_gives_what_it_gives_for_the_whole(tmp_path: Path) -> None:
    backend, whole = made(tmp_path), batch(1, 5)
    first, rest = ({**whole, "x": whole["x"][:, part], "lengths": np.full(2, 2)} for part in (slice(2), slice(2, 4)))
    held = backend.run(first, ["hn", "cn"])
    answer = backend.run({**rest, "h0": held["hn"], "c0": held["cn"]}, ["y"])
    np.testing.assert_array_equal(answer["y"], backend.run(whole, ["y"])["y"])


def test_an_answer_for_every_step_is_as_long_as_the_sequence(tmp_path: Path) -> None:
    backend = made(tmp_path, spec=fake_models.spec(per_step=True))
    assert backend.run(batch(1, steps=7), ["y"])["y"].shape == (1, 7, 2)


@pytest.mark.parametrize(
    ("delay_on", "first", "slept"),
    [(None, 1.0, [0.25]), (3.0, 1.0, []), (3.0, 3.0, [0.25])],
    ids=["always", "no", "yes"],
)
def test_it_is_late_where_it_is_told_to_be(delay_on: float | None, first: float, slept: list[float]) -> None:
    waited: list[float] = []
    FakeBackend(SPEC, 0.25, delay_on, None, sleep=waited.append).run(batch(9, first), ["y"])
    assert waited == slept


def test_it_fails_on_what_it_is_told_to_fail_on(tmp_path: Path) -> None:
    backend = made(tmp_path, json.dumps({"fail_on": 3}))
    backend.run(batch(1, 2), ["y"])
    with pytest.raises(RuntimeError, match="asked to fail on 3") as raised:
        backend.run(batch(1, 3), ["y"])
    assert fake.lost(raised.value) == ""


@pytest.mark.parametrize(("said", "lost"), [("", ""), ("device_lost\n", DEVICE_LOST)])
def test_it_is_broken_while_a_file_lies_there(said: str, lost: str, tmp_path: Path) -> None:
    backend = made(tmp_path, json.dumps({"fail_while": "broken"}))
    backend.run(batch(1), ["y"])
    (tmp_path / "broken").write_text(said)
    with pytest.raises(RuntimeError) as raised:
        backend.run(batch(1), ["y"])
    assert fake.lost(raised.value) == lost
    (tmp_path / "broken").unlink()
    backend.run(batch(1), ["y"])


@pytest.mark.parametrize("text", ["", "[]", '{"delay_seconds": "long"}', '{"fail_while": 3}'])
def test_a_file_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"model\.fake\.json is not a usable fake model"):
        made(tmp_path, text)


def test_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="is a folder, no plain file"):
        fake.load(tmp_path, SPEC, "cpu", Options())
    with pytest.raises(BackendUnavailable, match="runs on the CPU only; device 'cuda:0' was asked for"):
        fake.available("cuda:0")
    with pytest.raises(RepositoryError, match=r"needs a spec\.json"):
        fake.stated(tmp_path)
    with fake.careful():
        pass
