from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.peers import requests
from protos import grpc_service_pb2 as pb


def test_one_row_of_the_reference_network() -> None:
    request = pb.ModelInferRequest.FromString(requests.one())
    (x,) = request.inputs
    assert (request.model_name, x.name, list(x.shape)) == ("reference", "x", [1, 24, 8])
    assert len(request.raw_input_contents[0]) == 24 * 8 * 4


def test_lengths_of_their_own_have_as_many_steps_in_all_as_one_length(tmp_path: Path) -> None:
    one, own = tmp_path / "one.npz", tmp_path / "own.npz"
    requests.write_lengths(one, own)
    lengths = []
    for path in (one, own):
        with np.load(path) as file:
            lengths.append([len(file[str(number)]) for number in range(requests.SEQUENCES)])
    assert len(set(lengths[0])) == 1
    assert (min(lengths[1]), max(lengths[1])) == (1, 256)
    assert 0 <= sum(lengths[1]) - sum(lengths[0]) < requests.SEQUENCES
