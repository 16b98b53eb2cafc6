"""What people are told of how it came that a version is served as it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from protos import model_config_pb2 as pb
from serving.backends.base import Candidate, Measured
from serving.batching.policy import BatchPolicy
from serving.errors import RepositoryError
from serving.loading import telling
from serving.loading.order import MEASURED, RULE, Order
from serving.signature.spec import ModelSpec
from tests.support import fake_models
from tests.support.gated import model
from tests.support.loading import wanted

FAKE, ONNX, TORCH = (Candidate(name, "cpu", 1) for name in ("fake", "onnx_runtime", "torchscript"))
BOTH = (FAKE, ONNX)
FASTER = Measured(FAKE, {1: 1.5e-4, 32: 2e-3})


def told(config: pb.ModelConfig) -> dict[str, str]:
    keys = ("lstm_serving.chosen", "lstm_serving.measured")
    return {key[13:]: config.parameters[key].string_value for key in keys if key in config.parameters}


@pytest.mark.parametrize(
    ("order", "doing", "expected"),
    [
        (Order(first=BOTH, how=RULE), "", {"chosen": "by rule"}),
        (Order(first=BOTH, how=RULE, possible=BOTH), "", {"chosen": "by rule, not measured yet"}),
        (Order(first=BOTH, how=RULE, possible=BOTH), "being measured", {"chosen": "by rule, being measured"}),
        (
            Order(first=BOTH, how=MEASURED, measured=(FASTER, Measured(ONNX, failed="damaged"))),
            "",
            {"chosen": "measured", "measured": "1 row 0.15 ms, 32 rows 2 ms"},
        ),
        (Order(first=(ONNX, FAKE), how=RULE), "", {"chosen": "instead of onnx_runtime"}),
        (
            Order(
                first=BOTH, how=RULE, possible=(FAKE,), measured=(Measured(FAKE, failed="ended\n...", by_chance=True),)
            ),
            "",
            {"chosen": "by rule, fake could not be measured: ended"},
        ),
    ],
)
def test_why_it_is_this_one_that_serves(order: Order, doing: str, expected: dict[str, str]) -> None:
    live = model()
    before = live.config
    live.config.parameters["mine"].string_value = "kept"
    telling.tell_choice(live, order, doing)
    assert told(live.config) == expected
    assert live.config.parameters["mine"].string_value == "kept"
    assert told(before) == {}, "somebody may be reading it"


@pytest.mark.parametrize(
    ("measured", "errors", "expected"),
    [
        ([FASTER], {}, {}),
        ([FASTER, Measured(ONNX, failed="damaged\nin detail")], {}, {"onnx_runtime": "damaged"}),
        ([FASTER, Measured(ONNX, {1: 1.0}), Measured(Candidate("onnx_runtime", "cpu", 2), failed="slow")], {}, {}),
        ([FASTER, Measured(ONNX, failed="ended by somebody", by_chance=True)], {}, {}),
        ([FASTER], {ONNX: RepositoryError("no graph")}, {"onnx_runtime": "no graph"}),
        ([Measured(ONNX, {1: 1.0})], {ONNX: RepositoryError("no graph")}, {"onnx_runtime": "no graph"}),
        ([], {Candidate("fake", "cuda:0", 1): RepositoryError("a build for CPUs")}, {}),
        (
            [Measured(TORCH, failed="a"), Measured(Candidate("torchscript", "cpu", 2), failed="b")],
            {ONNX: RepositoryError("c")},
            {"torchscript": "a", "onnx_runtime": "c"},
        ),
    ],
    ids=[
        "nothing",
        "measured",
        "one way works",
        "by chance",
        "at load",
        "at load although measured",
        "of the backend that serves",
        "both",
    ],
)
def test_whose_file_cannot_be_served(
    measured: list[Measured], errors: dict[Candidate, RepositoryError], expected: dict[str, str]
) -> None:
    assert telling.damaged(measured, errors, FAKE) == expected


def test_the_table_by_which_it_was_chosen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "fake" / "1").mkdir(parents=True)
    caplog.set_level("INFO")
    telling.log_figures("measured", wanted(tmp_path), Order(first=BOTH, measured=(FASTER,)))
    (record,) = caplog.records
    fields, lines = record.__dict__["fields"], record.__dict__["lines"]
    assert (record.message, fields["model"], fields["chosen"]) == ("measured", "fake", "fake")
    assert [line[0] for line in lines] == [" ", "*"]


NO_LENGTHS = dataclasses.replace(fake_models.spec(), lengths=None)


@pytest.mark.parametrize(
    ("spec", "policy", "touching", "told"),
    [
        (fake_models.spec(), BatchPolicy(), "", "any lengths"),
        (fake_models.spec(), BatchPolicy(max_padding_ratio=0), "", "equal shapes"),
        (NO_LENGTHS, BatchPolicy(), "", "equal shapes"),
        (fake_models.spec(), BatchPolicy(dynamic=False), "", "alone"),
        (fake_models.spec(), BatchPolicy(max_rows=1), "", "alone"),
        (fake_models.spec(), BatchPolicy(), "rows touch each other", "alone"),
    ],
)
def test_what_is_computed_together(spec: ModelSpec, policy: BatchPolicy, touching: str, told: str) -> None:
    assert telling.how_batched(spec, policy, touching) == told
