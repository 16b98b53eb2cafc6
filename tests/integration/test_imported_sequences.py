"""Stateful files that others made, whatever their state looks like: many sequences of them in pieces, each equal to the whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from serving.launch import LaunchedServer
from tests.support import recurrent_files
from tests.support.recurrent_files import FEATURES, HIDDEN, File
from tests.support.running import metric
from tests.support.stepping import Array, answered, step
from tests.support.wire import RawClient, open_stream

SEQUENCES, STEPS = 6, 30
PAIRED = """sequence_batching { state [
  { input_name: "b" output_name: "k" }, { input_name: "a" output_name: "z" }
] }"""
AS_TRITON_HAS_IT = """max_batch_size: 16
input { name: "x" data_type: TYPE_FP32 dims: [ -1, 3 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1, 4 ] }
sequence_batching { state [
  { input_name: "h" output_name: "hn" data_type: TYPE_FP32 dims: [ 1, 4 ]
    initial_state { name: "trained" data_type: TYPE_FP32 dims: [ 1, 4 ] data_file: "h" } },
  { input_name: "c" output_name: "cn" data_type: TYPE_FP32 dims: [ 1, 4 ]
    initial_state { name: "trained too" data_type: TYPE_FP32 dims: [ 1, 4 ] data_file: "c" } }
] }"""
INITIAL = "from_a_file"
CASES = [*recurrent_files.WRITERS, INITIAL]
Served = tuple[LaunchedServer, Mapping[str, File]]


def begins_with() -> dict[str, Array]:
    """What a sequence of the model with an initial state begins with, as its file takes it."""
    return {name: np.random.default_rng(n).normal(size=(1, 1, HIDDEN)).astype("<f4") for n, name in enumerate("hc")}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, edge: str) -> Iterator[Served]:
    repository = tmp_path_factory.mktemp(edge)
    files = {}
    for name in CASES:
        layout = "rows_in_the_middle" if name == INITIAL else name
        files[name] = recurrent_files.write(repository / name / "1" / "model.onnx", layout)
        texts = {"crossed": PAIRED, INITIAL: AS_TRITON_HAS_IT}
        (repository / name / "config.pbtxt").write_text(texts.get(name, "sequence_batching {}"))
    folder = repository / INITIAL / "initial_state"
    folder.mkdir()
    for name, array in begins_with().items():
        (folder / name).write_bytes(array.tobytes())
    with LaunchedServer(repository) as server:
        yield server, files
        assert server.stop() == 0


@pytest.mark.parametrize("name", CASES)
def test_pieces_are_the_whole(name: str, served: Served) -> None:
    """The steps of all sequences come as fast as the stream takes them, so that they share batches."""
    server, files = served
    file = files[name]
    recorded = [
        np.random.default_rng(n).normal(0, 2, (1, STEPS, FEATURES)).astype(np.float32) for n in range(SEQUENCES)
    ]
    requests, owners = [], []
    for cut in zip(*[pieces(number, file) for number in range(SEQUENCES)], strict=True):
        for number, (begin, end) in enumerate(cut):
            x = recorded[number][:, begin:end]
            requests.append(
                step(
                    name, x[:, 0] if file.stepwise else x, sequence_id=f"{name} {number}", sequence_start=begin == 0,
                    sequence_end=end == STEPS,
                )
            )  # fmt: skip
            owners.append(number)
    with RawClient(server.address) as client:
        answers = list(open_stream(client, iter(requests), timeout=120))
    assert [answer.error_message for answer in answers if answer.error_message] == []
    assert metric(server, "sequence_steps_total", model=name) == len(requests)
    assert metric(server, "batch_rows_count", model=name) < len(requests), "nobody shared a batch"
    for number, x in enumerate(recorded):
        parts = [answered(each.infer_response)["y"] for each, its in zip(answers, owners, strict=True) if its == number]
        got = np.stack(parts, axis=1) if file.stepwise else np.concatenate(parts, axis=1)
        np.testing.assert_allclose(got, file.alone(x, begins_with() if name == INITIAL else None), rtol=1e-5, atol=1e-6)


def pieces(number: int, file: File) -> list[tuple[int, int]]:
    """Begin and end of each; all recordings are cut in equally many."""
    if file.stepwise:
        return list(itertools.pairwise(range(STEPS + 1)))
    cuts = np.sort(np.random.default_rng(number).choice(np.arange(1, STEPS), 9, replace=False))
    return list(itertools.pairwise([0, *map(int, cuts), STEPS]))
