"""Requests that are looked up rather than read again: nothing is checked less, and nothing is answered otherwise."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from protos import grpc_service_pb2 as pb
from serving.errors import ServingError
from serving.protocol import plans, request
from serving.protocol.checks import Limits
from serving.protocol.codec import Decoded
from serving.protocol.inference import Inference
from serving.protocol.plans import LONGEST, PLAN_BYTES, Plans
from serving.signature.spec import ModelSpec
from tests.support import request_corpus
from tests.support.fake_models import spec
from tests.support.foreign_specs import SHARED

LIMITS = Limits(max_rows=4, max_steps=50, finite_only=True)
SHAPES = {"x": (1, 2, 3), "h0": (1, 1, 4), "c0": (1, 1, 4)}
MUTATIONS = 3000


@pytest.fixture(scope="module")
def inference() -> Iterator[Inference]:
    with request_corpus.serving() as serving:
        yield serving


RECORDED = json.loads(request_corpus.FILE.read_text())


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_every_answer_is_as_recorded_whether_the_request_was_seen_before_or_not(inference: Inference) -> None:
    for _ in range(2):
        answers = {case: request_corpus.answer(inference, payload) for case, payload in request_corpus.requests()}
        assert answers == RECORDED


def sent(*, id: str = "7", names: tuple[str, ...] = ("x",), **sizes: tuple[int, ...]) -> pb.ModelInferRequest:
    """One row of two steps, or inputs of other sizes; with `names` the state too."""
    made = pb.ModelInferRequest(model_name="m", id=id)
    for name in names:
        array = np.ones(sizes.get(name, SHAPES[name]), np.float32)
        made.inputs.add(name=name, datatype="FP32", shape=array.shape)
        made.raw_input_contents.append(array.tobytes())
    return made


def decode(with_plans: Plans, asked: pb.ModelInferRequest) -> Decoded:
    payload = asked.SerializeToString()
    return with_plans.decode(request.message(payload), payload)


@pytest.fixture
def read_whole(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the requests that were not looked up."""
    ids: list[str] = []
    read = plans.from_protobuf

    def noted(payload: bytes) -> request.InferRequest:
        asked = read(payload)
        ids.append(asked.id)
        return asked

    monkeypatch.setattr(plans, "from_protobuf", noted)
    return ids


def test_what_differs_in_id_sizes_and_parameters_alone_is_read_once(read_whole: list[str]) -> None:
    known = Plans(spec(), LIMITS)
    first = decode(known, sent(id="first"))
    for number, steps in enumerate((1, 2, 50)):
        asked = sent(id=f"later {number}", x=(3, steps, 3))
        asked.parameters["timeout"].int64_param = number
        decoded = decode(known, asked)
        assert (decoded.rows, decoded.steps, decoded.outputs) == (3, steps, first.outputs)
        assert not decoded.inputs["x"].flags.owndata, "elements are not copied"
    assert read_whole == ["first"]


@pytest.mark.parametrize(
    "change",
    [
        lambda asked: asked.outputs.add(name="hn"),
        lambda asked: asked.inputs[0].parameters["mine"].CopyFrom(pb.InferParameter(bool_param=True)),
        lambda asked: (asked.inputs.add(name="lengths", datatype="INT64", shape=[1]),
                       asked.raw_input_contents.append(np.array([2]).tobytes())),
    ],
    ids=["outputs", "a parameter of an input", "another input"],
)  # fmt: skip
def test_another_description_is_read_by_itself(
    change: Callable[[pb.ModelInferRequest], object], read_whole: list[str]
) -> None:
    known = Plans(spec(), LIMITS)
    decode(known, sent(id="first"))
    for number in range(2):
        asked = sent(id=f"other {number}")
        change(asked)
        decode(known, asked)
    assert read_whole == ["first", "other 0"]


def test_what_was_refused_is_not_remembered(read_whole: list[str]) -> None:
    known = Plans(spec(), LIMITS)
    asked = sent(names=("x", "h0"))
    for _ in range(2):
        with pytest.raises(ServingError, match="send all of it or none"):
            decode(known, asked)
    assert len(read_whole) == 2


@pytest.mark.parametrize(
    "model",
    [
        dataclasses.replace(
            spec(), inputs=tuple(dataclasses.replace(t, rows_axis=None) for t in spec().inputs), batched=False,
            outputs=tuple(dataclasses.replace(t, rows_axis=None) for t in spec().outputs), lengths=None, state=(),
        ),
    ],
    ids=["no rows"],
)  # fmt: skip
def test_what_cannot_be_looked_up_is_read_whole(model: ModelSpec, read_whole: list[str]) -> None:
    known = Plans(model, LIMITS)
    asked = pb.ModelInferRequest(model_name="m")
    shapes = {"x": (2, 3), "lengths": (), "h0": (1, 4), "c0": (1, 4)}
    for tensor in model.inputs:
        array = np.ones(shapes[tensor.name], tensor.dtype)
        asked.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=array.shape)
        asked.raw_input_contents.append(array.tobytes())
    for _ in range(2):
        decode(known, asked)
    assert len(read_whole) == 2


def test_they_are_bounded_and_the_oldest_go_first(read_whole: list[str]) -> None:
    known = Plans(spec(), LIMITS, max_bytes=3 * PLAN_BYTES)

    def of(name: str) -> pb.ModelInferRequest:
        asked = sent(id=name)
        asked.inputs[0].parameters[name].bool_param = True
        return asked

    for name in ("a", "b", "c"):
        decode(known, of(name))
    decode(known, of("c"))
    decode(known, of("b"))
    assert read_whole == ["a", "b", "c"]
    decode(known, of("a"))
    assert read_whole == ["a", "b", "c", "a"]
    decode(known, of("c" * LONGEST))
    decode(known, of("c" * LONGEST))
    assert len(read_whole) == 6, "a long description is not kept"
    decode(known, of("c"))
    assert len(read_whole) == 6, "nor does it drive others out"


def test_no_mutation_of_a_request_that_was_seen_is_taken_for_it() -> None:
    """Whatever is changed in it is refused, or means, what it is or means to a server without plans."""
    drawn = random.Random(1)
    seen = [sent(), sent(names=("x", "h0", "c0")), sent(names=("c0", "x", "h0"), id="")]
    seen[1].outputs.add(name="hn")
    outcomes = set()
    for _ in range(MUTATIONS):
        base = drawn.choice(seen)
        mutated = mutation(base, drawn)
        known, none = Plans(spec(), LIMITS), Plans(spec(), LIMITS, max_bytes=0)
        decode(known, base)
        got = [outcome(with_plans, mutated) for with_plans in (known, none, known)]
        assert got[0] == got[1] == got[2], mutated
        outcomes.add(got[0].partition(":")[0])
    assert len(outcomes) >= 3, outcomes


def outcome(with_plans: Plans, asked: bytes) -> str:
    """What comes of it, as text."""
    try:
        decoded = with_plans.decode(request.message(asked), asked)
    except ServingError as error:
        return f"{type(error).__name__}: {error}"
    inputs = {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in sorted(decoded.inputs.items())}
    return f"right: {decoded.rows} {decoded.steps} {decoded.outputs} {decoded.classes} {decoded.key} {inputs}"


def mutation(base: pb.ModelInferRequest, drawn: random.Random) -> bytes:
    """One or two fields of it changed, or a byte of the whole."""
    made = pb.ModelInferRequest()
    made.CopyFrom(base)
    for _ in range(drawn.randint(1, 2)):
        drawn.choice(CHANGES)(made, drawn)
    payload = bytearray(made.SerializeToString())
    if drawn.random() < 0.2:
        payload[drawn.randrange(len(payload))] ^= 1 << drawn.randrange(8)
        try:
            pb.ModelInferRequest.FromString(bytes(payload))
        except Exception:  # noqa: BLE001 - no message at all is refused before plans are asked
            return made.SerializeToString()
    return bytes(payload)


def _element(made: pb.ModelInferRequest, drawn: random.Random) -> None:
    place = drawn.randrange(len(made.raw_input_contents) or 1)
    if made.raw_input_contents and len(made.raw_input_contents[place]) >= 4:
        array = np.frombuffer(
            made.raw_input_contents[place][: len(made.raw_input_contents[place]) // 4 * 4], np.float32
        ).copy()
        array[drawn.randrange(len(array))] = drawn.choice([np.nan, np.inf, -np.inf, 3e38, 0])
        made.raw_input_contents[place] = array.tobytes()


def _shape(made: pb.ModelInferRequest, drawn: random.Random) -> None:
    if made.inputs:
        tensor = drawn.choice(made.inputs)
        if tensor.shape and drawn.random() < 0.8:
            tensor.shape[drawn.randrange(len(tensor.shape))] = drawn.choice([-1, 0, 1, 2, 3, 4, 5, 51, 2**62])
        else:
            tensor.shape.append(drawn.choice([1, 3]))


def _any_input(
    change: Callable[[Any, random.Random], object],
) -> Callable[[pb.ModelInferRequest, random.Random], object]:
    return lambda made, drawn: change(drawn.choice(made.inputs), drawn) if made.inputs else None


CHANGES: list[Callable[[pb.ModelInferRequest, random.Random], object]] = [
    _element,
    _shape,
    _any_input(lambda tensor, drawn: setattr(tensor, "name", drawn.choice(["x", "h0", "c0", "lengths", "z", ""]))),
    _any_input(lambda tensor, drawn: setattr(tensor, "datatype", drawn.choice(["FP32", "FP64", "INT64", "BYTES", ""]))),
    _any_input(lambda tensor, drawn: tensor.contents.fp32_contents.append(1)),
    _any_input(lambda tensor, drawn: tensor.parameters["shared_memory_region"].CopyFrom(pb.InferParameter())),
    lambda made, drawn: made.raw_input_contents.append(b"\0" * drawn.choice([0, 8, 16])),
    lambda made, drawn: made.raw_input_contents and made.raw_input_contents.pop(),
    lambda made, drawn: made.inputs and made.inputs.pop(),
    lambda made, drawn: made.inputs.add(name="lengths", datatype="INT64", shape=[1]),
    lambda made, drawn: made.outputs.add(name=drawn.choice(["y", "hn", "z"])),
    lambda made, drawn: made.outputs.add(name="y").parameters["classification"].CopyFrom(
        pb.InferParameter(int64_param=drawn.choice([-1, 0, 1]))
    ),
    lambda made, drawn: made.parameters[drawn.choice(["priority", "mine", "sequence_id", "triton_a"])].CopyFrom(
        drawn.choice([pb.InferParameter(), pb.InferParameter(int64_param=drawn.choice([-1, 0, 1]))])
    ),
    lambda made, drawn: setattr(made, "id", str(drawn.random())),
    lambda made, drawn: made.inputs.sort(key=lambda tensor: tensor.name) if made.inputs else None,
]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "shape", "again"),
    [(1, (1,), True), (1, (), True), (1, (1, 1), True), (2, (1,), False), (2, (2, 1), False)],
)
@pytest.mark.parametrize("first", ["x", "rate"])
def test_what_all_rows_share_is_looked_up_beside_one_row(
    rows: int, shape: tuple[int, ...], again: bool, first: str, read_whole: list[str]
) -> None:
    """Two rows could disagree about it, so that each of theirs is looked at."""

    def asked(id: str, value: int) -> pb.ModelInferRequest:
        made = pb.ModelInferRequest(model_name="m", id=id)
        arrays = {"x": np.ones((rows, 3), np.float32), "rate": np.full(shape, value, np.int64)}
        for name in (first, *({*arrays} - {first})):
            made.inputs.add(name=name, datatype="FP32" if name == "x" else "INT64", shape=arrays[name].shape)
            made.raw_input_contents.append(arrays[name].tobytes())
        return made

    spec_of_it = dataclasses.replace(SHARED, state_advertised=False)
    known, never = Plans(spec_of_it, LIMITS), Plans(spec_of_it, LIMITS, max_bytes=0)
    for number, value in enumerate((16000, 16000, 8000)):
        request_now = asked(f"{number}", value)
        got, whole = decode(known, request_now), decode(never, request_now)
        assert (got.rows, got.steps, got.key, got.turn) == (whole.rows, whole.steps, whole.key, whole.turn)
        for name in ("x", "rate"):
            np.testing.assert_array_equal(got.inputs[name], whole.inputs[name], strict=True)
    assert read_whole.count("1") == read_whole.count("2") == (1 if again else 2)
    with pytest.raises(ServingError):
        decode(known, asked_with_shape(rows, (3,)))


def asked_with_shape(rows: int, shape: tuple[int, ...]) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name="m")
    for name, array in (("x", np.ones((rows, 3), np.float32)), ("rate", np.ones(shape, np.int64))):
        made.inputs.add(name=name, datatype="FP32" if name == "x" else "INT64", shape=array.shape)
        made.raw_input_contents.append(array.tobytes())
    return made
