"""Sequences whose state the server keeps: in pieces of any size, many at once, over swaps and reloads, told apart by caller."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from models.config import LSTMConfig
from serving import backends
from serving.launch import LaunchedServer
from tests.support import artefacts, oracle, real_model
from tests.support.arrays import infer
from tests.support.running import logged, metric, until
from tests.support.stepping import Array, Stepper, answered, epoch, step
from tests.support.wire import RawClient, open_stream, refusal

STEPS, CLIENTS, EACH = 60, 12, 3
EACH_STEP = LSTMConfig(
    input="features", features=3, layers=2, hidden=artefacts.HIDDEN, outputs=4, head="values_per_step"
)
CONFIG_TEXT = "max_batch_size: 16 sequence_batching { oldest { max_queue_delay_microseconds: 2000 } }"
ONNX = ("--backend", "onnx_runtime")
REST_SECONDS = 0.03


def recorded(number: int, steps: int = STEPS) -> Array:
    return np.random.default_rng(number).normal(0, 2, (1, steps, 3)).astype(np.float32)


def expected(x: Array) -> Array:
    """What the equations say of the whole of it."""
    state = np.zeros((1, EACH_STEP.layers, EACH_STEP.hidden), np.float32)
    inputs = {"x": x, "lengths": np.array([x.shape[1]]), "h0": state, "c0": state}
    return oracle.predict(EACH_STEP, artefacts.weights(EACH_STEP), inputs)["y"].astype(np.float32)


def write(folder: Path, formats: tuple[str, ...] = backends.PREFERENCE, text: str = CONFIG_TEXT) -> Path:
    version, *_ = real_model.write(folder, formats, name="m", config=EACH_STEP)
    (version.parent / "config.pbtxt").write_text(text)
    return folder


def pieces(number: int) -> list[int]:
    """Where a recording is cut: in pieces of 1 to 9 steps."""
    cuts = np.cumsum(np.random.default_rng(number).integers(1, 10, STEPS))
    return [0, *[int(cut) for cut in cuts if cut < STEPS], STEPS]


@pytest.fixture(scope="module", params=backends.PREFERENCE)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, edge: str
) -> Iterator[LaunchedServer]:
    folder = write(tmp_path_factory.mktemp(edge), (request.param,))
    with LaunchedServer(folder, "--backend", request.param) as server:
        yield server


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, edge: str) -> Iterator[LaunchedServer]:
    with LaunchedServer(write(tmp_path_factory.mktemp(edge), ("onnx_runtime",)), *ONNX) as server:
        yield server


def test_pieces_of_many_sequences_at_once_are_the_whole_of_each(
    server: LaunchedServer, request: pytest.FixtureRequest
) -> None:
    before = metric(server, "sequence_steps_total")
    wrong: list[str] = []

    def ask(client_number: int) -> None:
        with RawClient(server.address) as client:
            numbers = range(client_number * EACH, client_number * EACH + EACH)
            ids = [number + 1 if number % 2 else f"s{number}" for number in numbers]
            steppers = [Stepper(client, "m", id, numbered=n % 3 > 0) for n, id in zip(numbers, ids, strict=True)]
            cuts = [list(itertools.pairwise(pieces(number))) for number in numbers]
            answers: list[list[Array]] = [[] for _ in numbers]
            for place in range(max(map(len, cuts))):  # in turn, a piece of each
                for at, stepper in enumerate(steppers):
                    if place < len(cuts[at]):
                        begin, end = cuts[at][place]
                        x = recorded(numbers[at])[:, begin:end]
                        answers[at].append(stepper.take(x, end=end == STEPS)["y"])
            for number, its in zip(numbers, answers, strict=True):
                whole = np.concatenate(its, axis=1)
                if not np.allclose(whole, expected(recorded(number)), rtol=1e-5, atol=1e-5):
                    wrong.append(f"{number} is {np.abs(whole - expected(recorded(number))).max()} off")
                alone = infer(client, "m", {"x": recorded(number), **FRESH})["y"]
                if request.node.callspec.params["server"] == "onnx_runtime" and not np.array_equal(whole, alone):
                    wrong.append(f"{number} is not bit-equal to its own uninterrupted run")

    clients = [threading.Thread(target=ask, args=[number]) for number in range(CLIENTS)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    assert wrong == []
    steps = sum(len(pieces(number)) - 1 for number in range(CLIENTS * EACH))
    assert metric(server, "sequence_steps_total") - before == steps
    assert metric(server, "sequences_live") == 0
    assert metric(server, "batch_rows_count") < metric(server, "batch_rows_sum"), "nobody shared a batch"


FRESH = {name: np.zeros((1, EACH_STEP.layers, EACH_STEP.hidden), np.float32) for name in ("h0", "c0")}


def test_a_stream_takes_steps_in_its_order_as_fast_as_they_come(one: LaunchedServer) -> None:
    x = recorded(1)
    with RawClient(one.address) as client:
        stepper = Stepper(client, "m", "streamed", numbered=False)
        requests = []
        for begin, end in itertools.pairwise(pieces(1)):
            requests.append(stepper.request(x[:, begin:end], end=end == STEPS))
            stepper.taken += 1
        answers = list(open_stream(client, iter(requests)))
    assert [each.error_message for each in answers] == [""] * len(requests)
    whole = np.concatenate([answered(each.infer_response)["y"] for each in answers], axis=1)
    np.testing.assert_allclose(whole, expected(x), rtol=1e-5, atol=1e-5)


def test_a_sequence_is_taken_along_put_back_and_forked(one: LaunchedServer) -> None:
    x = recorded(2)
    with RawClient(one.address) as client:
        ask = client.method("ModelInfer")
        first = answered(ask(step("m", x[:, :20], ["y", "hn", "cn"], sequence_id=5, sequence_start=True)))
        state = {"h0": first["hn"], "c0": first["cn"]}
        for id in (6, 7):  # two that go on from there, and the first goes on too
            begun = ask(step("m", x[:, 20:30], state=state, sequence_id=id, sequence_start=True))
            np.testing.assert_allclose(answered(begun)["y"], expected(x)[:, 20:30], rtol=1e-5, atol=1e-5)
        for id, begin in ((5, 20), (6, 30), (7, 30)):
            rest = answered(ask(step("m", x[:, begin:], sequence_id=id, sequence_end=True)))["y"]
            np.testing.assert_allclose(rest, expected(x)[:, begin:], rtol=1e-5, atol=1e-5)
        code, said = refusal(lambda: ask(step("m", x, state=state, sequence_id=8)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "only a START may bring the state" in said


def test_a_step_that_comes_again_is_answered_as_before_and_counts_once(one: LaunchedServer) -> None:
    x = recorded(3)
    with RawClient(one.address) as client:
        ask = client.method("ModelInfer")

        def numbered(number: int, count: int = 1, **more: bool | int | str) -> step:  # type: ignore[valid-type]
            return step("m", x[:, number * 5 : number * 5 + 5 * count], sequence_id=9, sequence_step=number, **more)

        begin = numbered(0, sequence_start=True, sequence_nonce="n")
        first = ask(begin)
        assert ask(begin) == first, "a START with the same nonce"
        second = ask(numbered(1))
        for again in (begin, numbered(1)):
            assert ask(again) in (first, second)
        others = {
            "other inputs": (numbered(1, 2), grpc.StatusCode.INVALID_ARGUMENT, "it expects step 2"),
            "a gap": (numbered(4), grpc.StatusCode.FAILED_PRECONDITION, "it expects step 2"),
            "an old epoch": (
                numbered(2, sequence_epoch=epoch(first) - 1), grpc.StatusCode.FAILED_PRECONDITION, str(epoch(first)),
            ),
            "no number": (step("m", x, sequence_id=9), grpc.StatusCode.INVALID_ARGUMENT, "it expects step 2"),
        }  # fmt: skip
        for what, (request, code, words) in others.items():
            got, said = refusal(lambda request=request: ask(request))
            assert (got, words in said) == (code, True), f"{what}: {said}"
        last = numbered(2, sequence_end=True, sequence_epoch=epoch(first))
        assert ask(last) == ask(last), "an END that is sent again"
        got, said = refusal(lambda: ask(numbered(3)))
        assert got is grpc.StatusCode.INVALID_ARGUMENT
        assert "must specify the START flag on the first request of the sequence: it has ended" in said
        anew = ask(numbered(0, sequence_start=True, sequence_nonce="m"))
        assert epoch(anew) > epoch(first)
    whole = np.concatenate([answered(each)["y"] for each in (first, second)], axis=1)
    np.testing.assert_allclose(whole, expected(x)[:, :10], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "must specify a non-zero or non-empty correlation ID"),
        ({"sequence_start": True}, "must specify a non-zero or non-empty correlation ID"),
        ({"sequence_id": 3}, "must specify the START flag on the first request of the sequence"),
        (
            {"sequence_id": True},
            "invalid value type for 'sequence_id' parameter, expected int64_param or string_param.",
        ),
        (
            {"sequence_id": 3, "sequence_start": 1},
            "invalid value type for 'sequence_start' parameter, expected bool_param.",
        ),
        ({"sequence_id": 3, "sequence_start": True, "sequence_step": 1}, "it must be 0"),
        ({"sequence_id": 3, "sequence_nonce": 1}, "is for a START"),
    ],
)
def test_what_no_step_may_say(one: LaunchedServer, said: dict[str, bool | int | str], words: str) -> None:
    with RawClient(one.address) as client:
        code, message = refusal(lambda: client.method("ModelInfer")(step("m", recorded(0), **said)))
    assert (code, words in message) == (grpc.StatusCode.INVALID_ARGUMENT, True), message


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": 2},
        {"sequence_end": 1},
        {"sequence_nonce": 7},
        {"sequence_step": -1},
        {"sequence_step": 1},
        {"sequence_epoch": "old"},
        {"sequence_nounce": 7},
        {"priority": "high"},
    ],
    ids=str,
)
def test_a_sequence_does_not_go_on_over_a_hole(one: LaunchedServer, wrong: dict[str, Any]) -> None:
    x = recorded(4)
    with RawClient(one.address) as client:
        ask = client.method("ModelInfer")
        stepper = Stepper(client, "m", "holed", numbered=False)
        stepper.take(x[:, :10])
        said = {name: value for name, value in wrong.items() if name != "features"}
        bad = step("m", x[:, :10, : wrong.get("features", 3)], sequence_id="holed", **said)
        assert refusal(lambda: ask(bad))[0] is grpc.StatusCode.INVALID_ARGUMENT
        code, said = refusal(lambda: stepper.take(x[:, 20:30]))
        assert (code, "refused once" in said) == (grpc.StatusCode.ABORTED, True)
        y = stepper.take(x[:, 10:20])["y"]
    np.testing.assert_allclose(y, expected(x)[:, 10:20], rtol=1e-5, atol=1e-5)


def test_on_a_stream_nothing_goes_on_over_a_hole_however_far_ahead_its_client_is(one: LaunchedServer) -> None:
    """Of steps without numbers; those of another sequence on the same stream go on."""
    x, bad = recorded(7, 40), recorded(7, 40)
    bad[:, 10] = np.nan
    with RawClient(one.address) as client:
        requests = []
        for at in range(40):
            for id, of in (("holed", bad), ("beside", x)):
                made = step("m", of[:, at : at + 1], sequence_id=id, **({"sequence_start": True} if at == 0 else {}))
                made.id = f"{id} {at}"
                requests.append(made)
        answers = list(open_stream(client, iter(requests)))
        told = {each.infer_response.id: each for each in answers}
        for at in range(40):
            for id in ("holed", "beside"):
                answer = told[f"{id} {at}"]
                assert bool(answer.error_message) == (id == "holed" and at >= 10), f"{id} {at}: {answer.error_message}"
                if not answer.error_message:
                    y = answered(answer.infer_response)["y"]
                    np.testing.assert_allclose(y, expected(x)[:, at : at + 1], rtol=1e-5, atol=1e-5)
        assert "none is taken on it any more until a START" in told["holed 39"].error_message
        ask = client.method("ModelInfer")
        assert refusal(lambda: ask(step("m", x[:, 10:], sequence_id="holed")))[0] is grpc.StatusCode.ABORTED, "once"
        rest = answered(ask(step("m", x[:, 10:], sequence_id="holed", sequence_end=True)))["y"]
    np.testing.assert_allclose(rest, expected(x)[:, 10:], rtol=1e-5, atol=1e-5)


def test_sequences_go_on_while_backends_are_swapped_and_models_loaded_anew(tmp_path: Path, edge: str) -> None:
    """The clients rest a little before each step: a server that imports a runtime stands aside for whoever it answers."""
    first, *others = backends.PREFERENCE
    order = [*others, first, first]  # each is left for another and taken over from one, and one is loaded anew
    over = threading.Event()
    wrong: list[str] = []
    with LaunchedServer(write(tmp_path), *ONNX, "--model-control-mode", "explicit", "--load-model", "*") as server:

        def ask(number: int) -> None:
            with RawClient(server.address) as client:
                for turn in itertools.count():
                    stepper = Stepper(client, "m", f"{number}.{turn}", numbered=number % 2 > 0)
                    got = []
                    for begin, end in itertools.pairwise(pieces(number)):
                        over.wait(REST_SECONDS)
                        got.append(stepper.take(recorded(number)[:, begin:end], end=end == STEPS)["y"])
                    whole = np.concatenate(got, axis=1)
                    if not np.allclose(whole, expected(recorded(number)), rtol=1e-5, atol=1e-5):
                        wrong.append(f"{number}.{turn}")
                    if over.is_set():
                        return

        asking = [threading.Thread(target=ask, args=[number]) for number in range(6)]
        for each in asking:
            each.start()
        with RawClient(server.address) as client:
            long = Stepper(client, "m", 1, numbered=True)
            x = recorded(99, 10 * len(order))
            parts = []
            for place, backend in enumerate(order):
                parts.append(long.take(x[:, 10 * place : 10 * place + 10])["y"])
                text = f'{{"backend": "{backend}", "max_batch_size": 16, "sequence_batching": {{}}}}'
                client.load("m", config=text)
            over.set()
            for each in asking:
                each.join()
            assert wrong == []
            np.testing.assert_allclose(np.concatenate(parts, axis=1), expected(x), rtol=1e-5, atol=1e-5)
            assert metric(server, "sequences_live") == 1
            assert metric(server, "sequences_ended_total", reason="version_gone") == 0


def test_callers_that_are_told_apart_have_sequences_of_their_own(tmp_path: Path, edge: str) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("first-token\nsecond-token\n")
    folder = write(tmp_path / "repository", ("onnx_runtime",))
    x = recorded(5)
    with LaunchedServer(folder, *ONNX, "--auth-token-file", str(tokens)) as server, RawClient(server.address) as client:
        ask = client.method("ModelInfer")
        first, second = ([("authorization", f"Bearer {name}-token")] for name in ("first", "second"))
        begun = ask(step("m", x[:, :10], sequence_id=1, sequence_start=True), metadata=first)
        code, said = refusal(lambda: ask(step("m", x[:, 10:], sequence_id=1), metadata=second))
        assert (code, "must specify the START flag" in said) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        other = ask(step("m", x[:, :10], sequence_id=1, sequence_start=True), metadata=second)
        assert epoch(other) > epoch(begun)
        ask(step("m", x[:, :1], sequence_id=1, sequence_end=True), metadata=second)
        rest = answered(ask(step("m", x[:, 10:], sequence_id=1, sequence_end=True), metadata=first))["y"]
    np.testing.assert_allclose(rest, expected(x)[:, 10:], rtol=1e-5, atol=1e-5)


def test_a_server_that_leaves_lets_sequences_finish_and_begins_none(tmp_path: Path, edge: str) -> None:
    x = recorded(6)
    with LaunchedServer(write(tmp_path, ("onnx_runtime",)), *ONNX, "--exit-timeout-seconds", "20") as server:
        with RawClient(server.address) as client:
            stepper = Stepper(client, "m", 1, numbered=True)
            parts = [stepper.take(x[:, :10])["y"]]
            server.process.send_signal(signal.SIGTERM)
            until(lambda: logged(server, "sequences that are active go on") == 1)
            begin = step("m", x, sequence_id=2, sequence_start=True)
            code, said = refusal(lambda: client.method("ModelInfer")(begin))
            assert (code, "no new sequence begins" in said) == (grpc.StatusCode.UNAVAILABLE, True)
            parts += [stepper.take(x[:, at : at + 10], end=at == STEPS - 10)["y"] for at in range(10, STEPS, 10)]
        assert server.process.wait(30) == 0
    np.testing.assert_allclose(np.concatenate(parts, axis=1), expected(x), rtol=1e-5, atol=1e-5)
