"""What is planned for the sequences of a model, by what its server says of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from google.protobuf import text_format

from loadtest import command_line
from loadtest.errors import LoadTestError, UsageError
from loadtest.sequence_plan import Plan, plan_of
from loadtest.target import Target
from protos import grpc_service_pb2 as pb
from protos import model_config_pb2 as pb_config

STATEFUL = """
    max_batch_size: 8
    sequence_batching {
      state { input_name: "h0" output_name: "hn" data_type: TYPE_FP32 dims: 2 }
      control_input { name: "starts" control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } }
    }
"""


class Server:
    """What a target is asked; its model answers a state of the sum of what it was sent, or refuses."""

    def __init__(self, config: str | None, refuses: str = "") -> None:
        self._config = config
        self._refuses = refuses
        self.asked = 0

    def config(self, name: str, version: str) -> pb_config.ModelConfig | None:
        assert (name, version) == ("m", "3")
        return None if self._config is None else text_format.Parse(self._config, pb_config.ModelConfig())

    def infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        self.asked += 1
        if self._refuses:
            raise LoadTestError(self._refuses)
        total = np.frombuffer(request.raw_input_contents[0], np.float32).sum()
        made = pb.ModelInferResponse(raw_output_contents=[np.full((1, 2), total, np.float32).tobytes()])
        made.outputs.add(name="hn", datatype="FP32", shape=[1, 2])
        return made


def options(*line: str) -> argparse.Namespace:
    common = ("--url", "h:1", "--model", "m", "--model-version", "3", "--sequences", "2")
    return command_line.parser().parse_args([*common, *line])


def metadata(*inputs: str) -> pb.ModelMetadataResponse:
    made = pb.ModelMetadataResponse(name="m")
    for name in inputs:
        made.inputs.add(name=name, datatype="FP32", shape=[-1, -1, 1])
    for name in ("y", "hn"):
        made.outputs.add(name=name, datatype="FP32", shape=[-1, 2])
    return made


def planned(server: Server, *line: str, inputs: tuple[str, ...] = ("x",)) -> Plan:
    return plan_of(options(*line), cast(Target, server), metadata(*inputs))


def requests(plan: Plan, series: int = 0) -> list[pb.ModelInferRequest]:
    return [pb.ModelInferRequest.FromString(plan.head + each) for each in plan.series[series].sent]


def test_series_are_made_and_where_each_has_to_end() -> None:
    server = Server(STATEFUL)
    plan = planned(server, "--steps", "3")
    assert server.asked == len(plan.series) == len(plan.expected or ()) == 16
    sent = requests(plan)
    assert [(each.model_name, each.model_version) for each in sent] == [("m", "3")] * 3
    total = sum(np.frombuffer(each.raw_input_contents[0], np.float32) for each in sent)
    np.testing.assert_allclose((plan.expected or [])[0]["hn"], np.tile(total, (1, 2)), rtol=1e-6)
    assert [output.name for output in sent[-1].outputs] == ["y", "hn"]
    assert not sent[0].outputs
    assert plan.why_not == ""


def test_state_and_controls_are_the_servers_to_fill_in() -> None:
    plan = planned(Server(STATEFUL), inputs=("x", "h0", "starts"))
    assert [tensor.name for tensor in requests(plan)[0].inputs] == ["x"]
    assert len(plan.series[0].sent) == command_line.DEFAULT_STEPS


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (Server(None), "the server tells no ModelConfig"),
        (Server("sequence_batching {}"), "the server names no state in its ModelConfig"),
        (
            Server(STATEFUL, refuses="INVALID_ARGUMENT: it has no id"),
            "the server does not compute them without a sequence: INVALID_ARGUMENT: it has no id",
        ),
    ],
)
def test_what_cannot_be_compared_is_driven_all_the_same(server: Server, why: str) -> None:
    plan = planned(server)
    assert (plan.expected, plan.why_not) == (None, why)
    assert not requests(plan)[-1].outputs


def test_real_data_are_the_series(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"0": np.arange(4, dtype=np.float32)[:, None], "1": np.ones((1, 1), np.float32)}
    np.savez(tmp_path / "d.npz", **arrays)
    plan = planned(Server(STATEFUL), "--data", str(tmp_path / "d.npz"), "--step-size", "3")
    assert [len(each.sent) for each in plan.series] == [2, 1]
    assert [float(each["hn"][0, 0]) for each in plan.expected or ()] == [6, 1]


def test_a_stateless_model_is_refused_before_it_is_asked_anything() -> None:
    server = Server("max_batch_size: 8 dynamic_batching {}")
    with pytest.raises(UsageError, match=r"'m' keeps no state .* add sequence_batching \{\} .* --stateful m;"):
        planned(server)
    assert server.asked == 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="--shape names 'z'; the inputs of a step are x"):
        planned(Server(STATEFUL), "--shape", "z:3")
