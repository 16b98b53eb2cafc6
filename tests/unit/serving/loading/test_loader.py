"""From a version on disk to a live model: what is verified, warmed up, and left behind when it fails."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from serving.backends import fake
from serving.backends.base import Candidate, Measured
from serving.backends.fake import FakeBackend
from serving.batching.model import Model
from serving.errors import BackendUnavailable, ModelConfigError, RepositoryError, VerificationFailed
from serving.loading import loader, proof
from serving.loading.proof import Facts, Proved
from serving.sequences.policy import SECOND_NS, SequencePolicy
from serving.signature.tensors import Tensors, TensorSpec
from tests.support import fake_models, summing
from tests.support.gated import model
from tests.support.loading import wanted

FAKE = Candidate("fake", "cpu", 1)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[FakeBackend]:
    """The backends that were closed."""
    found: list[FakeBackend] = []

    def close(self: FakeBackend) -> None:
        found.append(self)

    monkeypatch.setattr(FakeBackend, "close", close)
    return found


def test_a_model_that_fails_its_samples_leaves_nothing_behind(tmp_path: Path, closed: list[FakeBackend]) -> None:
    fake_models.write(tmp_path, fail_on=1.0)
    with pytest.raises(VerificationFailed, match=r"asked to fail on 1.0"):
        loader.load(wanted(tmp_path, "instance_group { count: 2 }"))
    assert len(closed) == 1


def test_a_model_is_made_stateful_by_its_configuration_or_by_the_server(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    text = "sequence_batching { max_sequence_idle_microseconds: 1000 }"
    for asked, idle_ns in (
        (wanted(tmp_path, text), 1_000_000),
        (wanted(tmp_path, "max_batch_size: 4", stateful=("other", "fake")), 600 * SECOND_NS),
        (wanted(tmp_path, text, stateful=("fake",)), 1_000_000),
    ):
        one = loader.load(asked)
        assert one.model.close()
        assert one.model.sequence_policy == SequencePolicy(idle_ns=idle_ns) == one.request.config.sequences
        assert one.model.state_layout is not None
        assert one.model.state_layout.shapes == {
            "h0": ("hn", "<f4", (1, 4)),
            "c0": ("cn", "<f4", (1, 4)),
        }
        assert one.model.config.HasField("sequence_batching")


def test_control_inputs_are_filled_in_where_it_is_warmed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Golden samples hold them, as the exporter has tried the file; an entry of `model_warmup` need not."""
    plain = fake_models.spec()
    more = (TensorSpec("first", "FP32", (-1, 1)), TensorSpec("there", "INT32", (-1,)))
    fake_models.write(tmp_path, model_spec=dataclasses.replace(plain, inputs=(*plain.inputs, *more)))
    text = """
        sequence_batching { control_input [
          { name: "first" control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0.25, 1 ] } },
          { name: "there" control { kind: CONTROL_SEQUENCE_READY int32_false_true: [ 0, 7 ] } }
        ] }
        model_warmup { name: "w" batch_size: 5 inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 2, 3 ] zero_data: true } } }
    """
    ran: list[Tensors] = []
    run = FakeBackend.run
    monkeypatch.setattr(FakeBackend, "run", lambda self, sent, names: ran.append(sent) or run(self, sent, names))
    one = loader.load(wanted(tmp_path, text)).model
    assert one.close()
    assert one.verified
    assert [control.kind for control in one.spec.controls] == ["start", "ready"]
    (warmed,) = (sent for sent in ran if len(sent["x"]) == 5)
    np.testing.assert_array_equal(warmed["first"], np.full((5, 1), 0.25, np.float32))
    np.testing.assert_array_equal(warmed["there"], np.full(5, 7, np.int32))


def test_others_keep_no_state(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    one = loader.load(wanted(tmp_path, stateful=("other",))).model
    assert one.close()
    assert (one.sequence_policy, one.state_layout, one.config.HasField("dynamic_batching")) == (None, None, True)


def test_what_cannot_stand_beside_sequence_batching_is_not_thrown_away(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    text = "dynamic_batching { max_queue_delay_microseconds: 5 }"
    with pytest.raises(ModelConfigError, match="--stateful fake makes it stateful, but it has dynamic_batching"):
        loader.load(wanted(tmp_path, text, stateful=("fake",)))
    assert loader.load(wanted(tmp_path, "dynamic_batching {}", stateful=("fake",))).model.close()


def test_every_instance_has_a_backend_of_its_own(tmp_path: Path, closed: list[FakeBackend]) -> None:
    fake_models.write(tmp_path)
    model = loader.load(wanted(tmp_path, "instance_group { count: 3 }")).model
    assert (model.instances, model.config.instance_group[0].count) == (3, 3)
    assert model.close()
    assert len(set(map(id, closed))) == 3


def test_the_configuration_tells_what_no_field_of_it_has_room_for(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    text = "instance_group { count: 2 }" + fake_models.parameters({"version_labels": "stable=1,old=1,canary=2"})
    model = loader.load(wanted(tmp_path, text)).model
    told = {
        key: value.string_value for key, value in model.config.parameters.items() if key.startswith("lstm_serving.")
    }
    assert model.close()
    assert told == {
        "lstm_serving.backend": "fake",
        "lstm_serving.device": "cpu",
        "lstm_serving.instances": "2",
        "lstm_serving.batched": "any lengths",
        "lstm_serving.tolerance": "1e-05",
        "lstm_serving.verified": "yes",
        "lstm_serving.labels": "stable,old",
        "lstm_serving.chosen": "as asked",
    }


@pytest.mark.parametrize(
    ("nonfinite", "refused"), [({}, True), ({"nonfinite": "pass"}, False), ({"nonfinite": "refuse"}, True)]
)
def test_the_operator_decides_what_happens_to_nan(nonfinite: dict[str, str], refused: bool, tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    model = loader.load(wanted(tmp_path, fake_models.parameters(nonfinite))).model
    assert model.close()
    assert model.finite_only is refused


def test_no_size_is_new_to_the_backend_when_the_model_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def run(self: FakeBackend, inputs: Tensors, outputs: list[str], original: Any = FakeBackend.run) -> Tensors:
        seen.append(len(inputs["x"]))
        answer: Tensors = original(self, inputs, outputs)
        return answer

    fake_models.write(tmp_path)
    monkeypatch.setattr(FakeBackend, "run", run)
    text = """
        max_batch_size: 6
        model_warmup { name: "mine" batch_size: 3 count: 2 inputs { key: "x" value {
            data_type: TYPE_FP32 dims: [ 5, 3 ] random_data: true } } }
    """
    loader.load(wanted(tmp_path, text)).model.close()
    # The golden sample; each size twice; longer ones; what was configured.
    assert seen == [2, 1, 1, 2, 2, 4, 4, 6, 6, *[1, 1, 6, 6] * 2, 3, 3]


def test_what_cannot_be_warmed_up_is_not_served(tmp_path: Path, closed: list[FakeBackend]) -> None:
    fake_models.write(tmp_path, fail_on=0.0)
    text = (
        'model_warmup { name: "z" inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 5, 3 ] zero_data: true } } }'
    )
    with pytest.raises(RepositoryError, match=r"fake fails to compute what it is warmed up with.*asked to fail on 0.0"):
        loader.load(wanted(tmp_path, text))
    assert len(closed) == 1


def test_a_backend_that_cannot_load_is_replaced_where_that_was_configured(tmp_path: Path) -> None:
    folder = fake_models.write(tmp_path)
    (folder / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(RepositoryError, match="cannot be read by ONNX Runtime"):
        loader.load(wanted(tmp_path, 'backend: "onnxruntime"'))
    for text, wishes in (
        ('backend: "onnxruntime"', {"fallback": "always"}),
        ('backend: "onnxruntime" parameters { key: "fallback" value { string_value: "fake" } }', {}),
    ):
        loaded = loader.load(wanted(tmp_path, text, **wishes))
        assert (loaded.model.backend, loaded.model.config.backend) == ("fake", "fake")
        assert "cannot be read by ONNX Runtime" in loaded.fell_back
        loaded.model.close()


@pytest.mark.parametrize(
    ("fallback", "text", "after"),
    [
        ("none", "", []),
        ("runtime", "", ["fake"]),
        ("none", 'parameters { key: "fallback" value { string_value: "fake" } }', ["fake"]),
        ("runtime", 'parameters { key: "fallback" value { string_value: "onnxruntime" } }', []),
    ],
)
def test_without_fallback_the_second_best_never_takes_over(
    fallback: str, text: str, after: list[str], tmp_path: Path
) -> None:
    """Not even where `auto` has found it nearly as good."""
    names = {"onnx_runtime": 1e-5, "fake": 1e-3}
    figures = [Measured(Candidate(name, "cpu", 1), {1: p50}) for name, p50 in names.items()]
    summing.write(fake_models.write(tmp_path))
    asked = wanted(tmp_path, text, backend="auto", fallback=fallback, threads=1)
    known = {one.candidate: one for one in figures}
    loaded = loader.load(dataclasses.replace(asked, known=lambda folder, candidates: known))
    assert [candidate.backend for candidate in loaded.order.all] == ["onnx_runtime", *after]
    assert loaded.order.measured == tuple(figures)
    assert loaded.model.config.parameters["lstm_serving.chosen"].string_value == "measured"
    loaded.model.close()


def test_who_cannot_be_loaded_gives_way_to_the_next_and_is_told(tmp_path: Path) -> None:
    """By rule it would be ONNX Runtime. Nobody has asked for it, so nothing has fallen back."""
    (fake_models.write(tmp_path) / "model.onnx").write_bytes(b"damaged")
    loaded = loader.load(wanted(tmp_path, backend="auto"))
    assert (loaded.model.backend, loaded.fell_back) == ("fake", "")
    assert loaded.remark.startswith("onnx_runtime cannot serve it: ")
    assert "cannot be read by ONNX Runtime" in loaded.damaged["onnx_runtime"]
    told = loaded.model.config.parameters["lstm_serving.chosen"].string_value
    assert told == "instead of onnx_runtime, not measured yet"
    loaded.model.close()


def test_loads_that_set_what_belongs_to_the_process_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once would each compute with the number of threads of the other."""
    monkeypatch.setattr(fake, "ONE_BY_ONE", True)
    loader._turn.cache_clear()
    fake_models.write(tmp_path)
    held: list[bool] = []
    start = Model.start

    def started(self: Model, instances: Any) -> None:
        held.append(cast(threading.Lock, loader._turn("fake")).locked())
        start(self, instances)

    monkeypatch.setattr(Model, "start", started)
    try:
        loader.load(wanted(tmp_path)).model.close()
        held.append(cast(threading.Lock, loader._turn("fake")).locked())
    finally:
        loader._turn.cache_clear()
    assert held == [True, False]


def test_a_gpu_that_is_missing_is_refused_or_replaced_as_configured(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    text = "instance_group { kind: KIND_GPU gpus: [ 7 ] }"
    with pytest.raises(BackendUnavailable, match=r"runs on the CPU only; device 'cuda:7' was asked for"):
        loader.load(wanted(tmp_path, text))
    text += ' parameters { key: "fallback" value { string_value: "fake@cpu" } }'
    loaded = loader.load(wanted(tmp_path, text))
    assert (loaded.model.device, loaded.model.config.instance_group[0].kind) == ("cpu", 2)
    assert "runs on the CPU only" in loaded.fell_back
    loaded.model.close()
    model = loader.load(wanted(tmp_path, "instance_group { kind: KIND_GPU }", fallback="always")).model
    assert model.device == "cpu"
    model.close()


def test_a_format_that_is_missing_is_one_that_cannot_be_loaded(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    text = 'backend: "onnxruntime"'
    with pytest.raises(RepositoryError, match=r"has no model.onnx; it can be served by fake"):
        loader.load(wanted(tmp_path, text))
    loaded = loader.load(wanted(tmp_path, text, fallback="always"))
    assert (loaded.model.backend, "has no model.onnx" in loaded.fell_back) == ("fake", True)
    loaded.model.close()


class Drifted:
    """A backend that answers what it was asked at load, and by now is off by so much."""

    def __init__(self, outputs: Tensors, off: float) -> None:
        self._outputs = outputs
        self._off = np.float32(off)

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {name: self._outputs[name] + self._off for name in outputs}

    def close(self) -> None: ...


@pytest.mark.parametrize(("off", "healthy"), [(0.0, [True, True]), (0.005, [False, True]), (0.1, [False, False])])
def test_each_instance_is_held_to_what_its_own_device_may_differ_by(
    off: float, healthy: list[bool], tmp_path: Path
) -> None:
    """One on a CPU and one on a GPU with TF32: neither is believed to be broken, or healthy, for what the other may do."""
    fake_models.write(tmp_path)
    request = dataclasses.replace(wanted(tmp_path), on_broken=lambda *_: None)
    facts = proof.read(request, FAKE)
    instances = [Proved(Drifted(facts.samples[0].outputs, off), allowed, 0.0) for allowed in (1e-5, 1e-2)]
    live = model()
    guards = [loader.guard_of(request, FAKE, facts, one, live) for one in instances]
    assert [guard.healthy() for guard in guards] == healthy


def test_a_model_without_samples_is_believed_to_be_healthy(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    request = dataclasses.replace(wanted(tmp_path), on_broken=lambda *_: None)
    facts = Facts(fake_models.spec(), (), described=False)
    guard = loader.guard_of(request, FAKE, facts, Proved(Drifted({}, 0.0), 1e-5, 0.0), model())
    assert guard.healthy()


@pytest.mark.parametrize(
    ("changes", "failures", "told"),
    [({}, 3, True), ({"failures": 5}, 5, True), ({"wrap": lambda backend: backend}, 1, False)],
    ids=["nobody stands in", "more chances", "a shadow"],
)
def test_without_anybody_to_hand_over_to_a_failure_is_the_requests_own(
    changes: dict[str, Any], failures: int, told: bool, tmp_path: Path
) -> None:
    fake_models.write(tmp_path)
    request = dataclasses.replace(wanted(tmp_path), **changes)
    facts = proof.read(request, FAKE)
    guard = loader.guard_of(request, FAKE, facts, Proved(Drifted({}, 0.0), 1e-5, 0.0), model())
    assert (guard.hand_over, guard.failures, guard.told) == (None, failures, told)


def test_labels_that_are_not_as_many_as_places_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fake_models.write(tmp_path)
    for names, told in ((("a", "b"), False), (("a", "b", "c"), True)):
        caplog.clear()
        loader.load(dataclasses.replace(wanted(tmp_path), labels={"y": names})).model.close()
        assert ("there are 3 labels for the 2 places of output 'y'" in caplog.text) == told
