"""The work of tests/support/client_work.py by grpcio's blocking calls. It imports nothing of ours."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import grpc

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
KINDS = 16


def ended_with(call: Any) -> tuple[int, str]:
    """The code and the message of a call that fails."""
    try:
        call.result()
    except grpc.RpcError as error:
        return error.code().value[0], error.details()
    except grpc.FutureCancelledError:
        return grpc.StatusCode.CANCELLED.value[0], ""
    raise SystemExit("a call was answered that must fail")


def main(address: str, folder: Path, calls: int, messages: int) -> None:
    """Does the work in order."""
    bytes_of = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    authorized = [("authorization", f"Bearer {bytes_of['token'].decode()}")]

    def ask(name: object, **more: Any) -> Any:
        return infer.future(bytes_of[f"{name}.ask"], **{"metadata": authorized, **more})

    def same(name: object, answer: bytes, kind: str = "answer") -> None:
        if answer != bytes_of[f"{name}.{kind}"]:
            raise SystemExit(f"this is not the answer to {name}: {answer[:200]!r}")

    with grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
        infer = channel.unary_unary(INFER)
        asked = [ask(number % KINDS) for number in range(calls)]
        for number, call in enumerate(asked):
            same(number % KINDS, call.result())
        print("unary 0")

        requests = (bytes_of[f"{number % KINDS}.ask"] for number in range(messages))
        answers = list(channel.stream_stream(STREAM_INFER)(requests, metadata=authorized))
        if len(answers) != messages:
            raise SystemExit(f"{messages} messages had {len(answers)} answers")
        for number, answer in enumerate(answers):
            same(number % KINDS, answer, "told")
        print("stream 0")

        print("deadline", ended_with(ask("slow", timeout=1))[0])

        slow = ask("slow")
        same(0, ask(0).result())
        slow.cancel()
        print("cancel", ended_with(slow)[0])

        print("unknown", *ended_with(ask("unknown")))
        same("large", ask("large").result())
        print("large 0")
        for number in range(KINDS):
            same(number, ask(number, compression=grpc.Compression.Gzip).result())
        print("gzip 0")
        more = [("x-plain", "plain"), ("x-every-byte-bin", bytes(range(256)))]
        same(0, ask(0, metadata=[*authorized, *more]).result())
        print("metadata 0")
        print("refused", *ended_with(ask(0, metadata=[])))


main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
