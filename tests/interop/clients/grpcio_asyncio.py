"""The work of tests/support/client_work.py by grpcio's asyncio calls. It imports nothing of ours."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
KINDS = 16


async def ended_with(call: Any) -> tuple[int, str]:
    """The code and the message of a call that fails."""
    try:
        await call
    except grpc.RpcError as error:
        return error.code().value[0], error.details()
    except asyncio.CancelledError:
        return (await call.code()).value[0], ""
    raise SystemExit("a call was answered that must fail")


async def main(address: str, folder: Path, calls: int, messages: int) -> None:
    """Does the work in order."""
    bytes_of = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    authorized = [("authorization", f"Bearer {bytes_of['token'].decode()}")]

    def ask(name: object, **more: Any) -> Any:
        return infer(bytes_of[f"{name}.ask"], **{"metadata": authorized, **more})

    def same(name: object, answer: bytes, kind: str = "answer") -> None:
        if answer != bytes_of[f"{name}.{kind}"]:
            raise SystemExit(f"this is not the answer to {name}: {answer[:200]!r}")

    async def requests() -> AsyncIterator[bytes]:
        for number in range(messages):
            yield bytes_of[f"{number % KINDS}.ask"]

    async with grpc.aio.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
        infer = channel.unary_unary(INFER)
        for number, answer in enumerate(await asyncio.gather(*(ask(number % KINDS) for number in range(calls)))):
            same(number % KINDS, answer)
        print("unary 0")

        answers = [each async for each in channel.stream_stream(STREAM_INFER)(requests(), metadata=authorized)]
        if len(answers) != messages:
            raise SystemExit(f"{messages} messages had {len(answers)} answers")
        for number, answer in enumerate(answers):
            same(number % KINDS, answer, "told")
        print("stream 0")

        print("deadline", (await ended_with(ask("slow", timeout=1)))[0])

        slow = ask("slow")
        same(0, await ask(0))
        slow.cancel()
        print("cancel", (await ended_with(slow))[0])

        print("unknown", *await ended_with(ask("unknown")))
        same("large", await ask("large"))
        print("large 0")
        for number in range(KINDS):
            same(number, await ask(number, compression=grpc.Compression.Gzip))
        print("gzip 0")
        more = [("x-plain", "plain"), ("x-every-byte-bin", bytes(range(256)))]
        same(0, await ask(0, metadata=[*authorized, *more]))
        print("metadata 0")
        print("refused", *await ended_with(ask(0, metadata=[])))


asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
