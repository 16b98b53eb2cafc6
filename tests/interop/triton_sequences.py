"""Run in the client's own environment: python triton_sequences.py ADDRESS.

Sequences by the three ways that `tritonclient` has, several in turn on one connection, with numbers and texts for ids, and
what it says of steps that are refused. The models are those of tests/support/triton_sequences.py.
"""

import asyncio
import queue
import sys
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as aioclient
from tritonclient.utils import InferenceServerException

ADDRESS = sys.argv[1]
STEPS = [3, -5, 8, 0, 13, -21, 2]
IDS: "tuple[int | str, ...]" = (7, 2**63 - 1, "8", "12")  # texts of digits: the models add them up
DYNA = {int: "simple_dyna_sequence", str: "simple_string_dyna_sequence"}


def asked(id: "int | str", place: int, model: str = "", kind: Any = grpcclient) -> "dict[str, Any]":
    """The arguments of a step; each sequence sends multiples of its own."""
    value = STEPS[place] * (1 + IDS.index(id))
    tensor = kind.InferInput("INPUT", [1, 1], "INT32")
    tensor.set_data_from_numpy(np.array([[value]], np.int32))
    return {
        "model_name": model or DYNA[type(id)],
        "inputs": [tensor],
        "outputs": [kind.InferRequestedOutput("OUTPUT")],
        "request_id": f"{IDS.index(id)} {place}",
        "sequence_id": id,
        "sequence_start": place == 0,
        "sequence_end": place == len(STEPS) - 1,
    }


def expected(id: "int | str") -> "list[int]":
    """All answers of a sequence."""
    mine = [step * (1 + IDS.index(id)) for step in STEPS]
    if isinstance(id, str):
        mine = [sum(mine[: place + 1]) for place in range(len(mine))]
    else:
        mine[0] += 1
    mine[-1] += int(id)
    return mine


def held(answers: "dict[str, int]") -> None:
    for id in IDS:
        got = [answers[f"{IDS.index(id)} {place}"] for place in range(len(STEPS))]
        wanted = expected(id)
        if id == 2**63 - 1:  # which no INT32 holds: what a runtime makes of it is its own affair
            got, wanted = got[:-1], wanted[:-1]
        assert got == wanted, (id, got, wanted)


TURNS = [(id, place) for place in range(len(STEPS)) for id in IDS]


def unary() -> "dict[str, int]":
    with grpcclient.InferenceServerClient(ADDRESS) as client:
        results = [client.infer(**asked(id, place)) for id, place in TURNS]
    return {result.get_response().id: int(result.as_numpy("OUTPUT")[0, 0]) for result in results}


def streamed() -> "dict[str, int]":
    told: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with grpcclient.InferenceServerClient(ADDRESS) as client:
        client.start_stream(lambda result, error: told.put((result, error)))
        for id, place in TURNS:
            client.async_stream_infer(**asked(id, place))
        answers = [told.get(timeout=60) for _ in TURNS]
    assert [error for _, error in answers if error] == []
    return {result.get_response().id: int(result.as_numpy("OUTPUT")[0, 0]) for result, _ in answers}


async def asynchronous() -> "dict[str, int]":
    async def requests() -> "AsyncIterator[dict[str, Any]]":
        for id, place in TURNS:
            yield asked(id, place, kind=aioclient)

    found = {}
    async with aioclient.InferenceServerClient(ADDRESS) as client:
        async for result, error in client.stream_infer(requests()):
            assert error is None, error
            found[result.get_response().id] = int(result.as_numpy("OUTPUT")[0, 0])
            if len(found) == len(TURNS):
                break
    return found


def how_it_ends(client: grpcclient.InferenceServerClient, step: "dict[str, Any]") -> "tuple[str, str]":
    try:
        client.infer(**step)
    except InferenceServerException as error:
        return str(error.status()), str(error.message())
    return "it was answered", ""


def refused() -> None:
    with grpcclient.InferenceServerClient(ADDRESS) as client:
        for id, place, said in (
            (0, 0, "must specify a non-zero or non-empty correlation ID"),
            ("", 1, "must specify a non-zero or non-empty correlation ID"),
            (7, 1, "must specify the START flag on the first request of the sequence"),
        ):
            step = asked(7, place) | {"sequence_id": id}
            status, message = how_it_ends(client, step)
            assert status == "StatusCode.INVALID_ARGUMENT", status
            assert said in message, message
        tensor = asked(7, 0)["inputs"][0]
        assert client.get_model_config("simple_sequence").config.sequence_batching.state[0].input_name == "INPUT_STATE"
        assert [each.name for each in client.get_model_metadata("simple_dyna_sequence").inputs] == [tensor.name()]


for way in (unary, streamed):
    held(way())
held(asyncio.run(asynchronous()))
refused()
