"""The line that makes a model stateful: told of one that can be, and written beside what its config.pbtxt says already."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from export import stateful
from export.errors import ExportError
from serving.signature.tensors import TensorSpec
from tests.support import fake_models

SPEC = fake_models.spec()
BOTH_WAYS = dataclasses.replace(SPEC, streamable=False, source={"network": {"bidirectional": True}})


def test_what_is_told() -> None:
    model = Path("r/m")
    told = stateful.told(SPEC, model, written=False)
    assert (
        told
        == "to keep its state between requests, write into r/m/config.pbtxt (or export with --stateful): sequence_batching {}"
    )
    assert stateful.told(SPEC, model, written=True) == "stateful by r/m/config.pbtxt: sequence_batching {}"
    assert stateful.told(BOTH_WAYS, model, written=False) == ""


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("sequence_batching { direct {} }", "stateful by {}, which has sequence_batching"),
        (
            "dynamic_batching {}",
            "to keep its state between requests, write into {} in place of dynamic_batching: sequence_batching {{}}",
        ),
        (
            "max_batch_size: 8",
            "to keep its state between requests, write into {} (or export with --stateful): sequence_batching {{}}",
        ),
        (
            "max_batch_size: eight",
            "to keep its state between requests, write into {} (or export with --stateful): sequence_batching {{}}",
        ),
    ],
)
def test_what_is_told_beside_what_stands_there(there: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text(there)
    assert stateful.told(SPEC, tmp_path, written=False) == said.format(path)


def test_pairs_that_are_believed_alone_are_told() -> None:
    one_step = dataclasses.replace(SPEC, lengths=None, inputs=(TensorSpec("x", "FP32", (-1, 3)), *SPEC.inputs[1:]))
    told = stateful.told(one_step, Path("m"), written=True)
    assert told == (
        "stateful by m/config.pbtxt: sequence_batching {}\npairs not proved: one step a call, so that there is no whole to "
        "compare with; h0 goes on as hn, c0 goes on as cn: see to it that this is so"
    )


def test_a_model_that_cannot_be_stateful_is_refused_with_the_reason() -> None:
    stateful.check(SPEC)
    with pytest.raises(
        ExportError, match=r"^the model cannot be stateful: it reads .*\(bidirectional\).*; leave --stateful out$"
    ):
        stateful.check(BOTH_WAYS)
    of_others = dataclasses.replace(SPEC, state=(), source={"file": "model.onnx"})
    with pytest.raises(
        ExportError,
        match=r"has no state.*; say which output is .*h0 -> hn or cn, c0 -> hn or cn\) with --state h0=hn --state c0=cn, "
        r"or leave --stateful out$",
    ):
        stateful.check(of_others)
    free = dataclasses.replace(SPEC.inputs[2], shape=(-1, -1, 4))
    with pytest.raises(ExportError, match="cannot be stateful: state 'h0' has the sizes"):
        stateful.check(dataclasses.replace(SPEC, inputs=(*SPEC.inputs[:2], free, SPEC.inputs[3])))


@pytest.mark.parametrize(
    ("there", "written"),
    [
        (None, "sequence_batching {}\n"),
        ("", "sequence_batching {}\n"),
        ("max_batch_size: 8", "max_batch_size: 8\nsequence_batching {}\n"),
        ("# mine\nmax_batch_size: 8\n", "# mine\nmax_batch_size: 8\nsequence_batching {}\n"),
        ("sequence_batching { direct {} }", "sequence_batching { direct {} }"),
    ],
)
def test_it_is_written_beside_what_stands_there(there: str | None, written: str, tmp_path: Path) -> None:
    if there is not None:
        (tmp_path / "config.pbtxt").write_text(there)
    assert stateful.configuration(tmp_path) == written


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (
            "max_batch_size: eight",
            "config.pbtxt does not parse, so sequence_batching {} cannot be written into it: line 1:17",
        ),
        (
            "dynamic_batching {}",
            "config.pbtxt has dynamic_batching, which cannot stand beside .* { oldest { ... } } in its",
        ),
    ],
)
def test_what_it_cannot_be_written_into(there: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_text(there)
    with pytest.raises(ExportError, match=said):
        stateful.configuration(tmp_path)
