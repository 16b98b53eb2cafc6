"""The work that a client in any language does: a folder of requests and answers as bytes, and what the client must report.

A client is a program `CLIENT ADDRESS FOLDER CALLS MESSAGES`. It knows gRPC and nothing of protobuf: it sends `NAME.ask` and
compares what comes with `NAME.answer`, byte for byte. Every call has the metadata `authorization: Bearer TOKEN`, with what is in
the file `token`. On one connection, in this order, it makes

- unary: CALLS calls of ModelInfer, all in flight at once, the one numbered n with `n % 16`.ask
- stream: a ModelStreamInfer of MESSAGES messages, `n % 16`.ask; the answers are `n % 16`.told, in order
- deadline: slow.ask with a deadline of 1 s, which is long enough to come to the server
- cancel: slow.ask, cancelled when a call behind it has been answered
- unknown: unknown.ask, which is refused
- large: large.ask, whose answer is large, too
- gzip: the requests 0 to 15, one after another, compressed by gzip, on a connection of their own where the library wants that
- metadata: 0.ask with `x-plain: plain` and `x-every-byte-bin`, the bytes 0 to 255
- refused: 0.ask without a token

and prints a line for each: its name, the number of the code with which it has ended, and what the server said of unknown and
refused. An answer that is another one ends the client with an exit code and a sentence on standard error.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from protos import grpc_service_pb2 as pb
from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.running import FAKE, until

CALLS, MESSAGES, KINDS = 400, 1000, 16
LARGE_STEPS = 350_000  # of three features and four bytes: 4.2 MB
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
TOKEN = "a-token-of-this-test"  # noqa: S105 - of this test
METHOD = "/inference.GRPCInferenceService/Model"
AUTHORIZED = (("authorization", f"Bearer {TOKEN}"),)
# The slow model waits for company that never comes: deadlines and cancellations find its requests in the queue.
SLOW = "dynamic_batching { max_queue_delay_microseconds: 60000000 }"
REPORT = {
    "unary": (0, ""),
    "stream": (0, ""),
    "deadline": (4, ""),
    "cancel": (1, ""),
    "unknown": (3, "Request for unknown model: 'nobody' is not found"),
    "large": (0, ""),
    "gzip": (0, ""),
    "metadata": (0, ""),
    "refused": (16, "a valid token is needed"),
}


def start(folder: Path, *flags: str) -> LaunchedServer:
    """A server with the models that the work needs, and the folder's `token`."""
    fake_models.write(folder / "models", "quick")
    fake_models.write(folder / "models", "wide", model_spec=fake_models.spec(per_step=True))
    fake_models.write(folder / "models", "slow", config=SLOW)
    (folder / "token").write_text(TOKEN)
    allowed = ("--auth-token-file", str(folder / "token"), "--max-steps", str(LARGE_STEPS))
    return LaunchedServer(folder / "models", *FAKE, *allowed, *flags)


def write(folder: Path, address: str) -> None:
    """Asks the server for the answers, looks whether they are right, and fills the folder."""
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
    with grpc.insecure_channel(address, options) as channel:
        infer, stream = channel.unary_unary(f"{METHOD}Infer"), channel.stream_stream(f"{METHOD}StreamInfer")
        for number in range(KINDS):
            asked = _request("quick", np.full((1, 2, fake_models.FEATURES), number, np.float32), f"number {number}")
            (told,) = stream(iter([asked]), metadata=AUTHORIZED, timeout=30)
            (y,) = np.frombuffer(_y(infer(asked, metadata=AUTHORIZED, timeout=30)), np.float32).reshape(1, -1)
            assert (y == number * 2 * fake_models.FEATURES).all()
            answer = infer(asked, metadata=AUTHORIZED, timeout=30)
            assert answer in told
            for name, content in (("ask", asked), ("answer", answer), ("told", told)):
                (folder / f"{number}.{name}").write_bytes(content)
        large = _request("wide", np.ones((1, LARGE_STEPS, fake_models.FEATURES), np.float32), "large")
        answer = infer(large, metadata=AUTHORIZED, timeout=30)
        assert len(_y(answer)) == LARGE_STEPS * 2 * 4
        (folder / "large.ask").write_bytes(large)
        (folder / "large.answer").write_bytes(answer)
    row = np.ones((1, 2, fake_models.FEATURES), np.float32)
    (folder / "slow.ask").write_bytes(_request("slow", row, "slow"))
    (folder / "unknown.ask").write_bytes(_request("nobody", row, "unknown"))


def _request(model: str, x: np.ndarray, name: str) -> bytes:
    wanted = pb.ModelInferRequest.InferRequestedOutputTensor(name="y")
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=x.shape)
    message = pb.ModelInferRequest(model_name=model, id=name, inputs=[tensor], outputs=[wanted])
    message.raw_input_contents.append(x.tobytes())
    return message.SerializeToString()


def _y(answer: bytes) -> bytes:
    (content,) = pb.ModelInferResponse.FromString(answer).raw_output_contents
    return content


def check(
    client: Sequence[str],
    server: LaunchedServer,
    folder: Path,
    *,
    address: str = "",
    environment: Mapping[str, str] | None = None,
) -> None:
    """Lets a client do the work, at another address than the server's where something stands between.

    It must report what is in REPORT, and the server must count what the client did, those that were given up too.
    """
    before = counted(server)
    command = [*client, address or server.address, str(folder), str(CALLS), str(MESSAGES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    report = {
        case: (int(code), said) for case, code, said in (f"{line} ".split(" ", 2) for line in done.stdout.splitlines())
    }
    assert {case: code for case, (code, _) in report.items()} == {case: code for case, (code, _) in REPORT.items()}, (
        done.stdout
    )
    for case, (_, words) in REPORT.items():
        assert words in report[case][1], done.stdout
    # The stream, the large call, the one behind the cancelled one, the compressed ones and that with metadata come on top.
    after = before[0] + CALLS + MESSAGES + KINDS + 3, before[1] + 2
    until(
        lambda: counted(server) == after, lambda: f"counted {counted(server)} (answered, given up) instead of {after}"
    )


def counted(server: LaunchedServer) -> tuple[float, float]:
    """How many requests were answered so far, and how many of the slow model were cancelled, or late, which may be either."""
    counts = {
        (sample.labels["model"], sample.labels["outcome"]): sample.value
        for family in text_string_to_metric_families(server.metrics())
        for sample in family.samples
        if sample.name == "lstm_serving_requests_total"
    }
    answered = sum(count for (_, outcome), count in counts.items() if outcome == "success")
    return answered, counts.get(("slow", "cancelled"), 0) + counts.get(("slow", "expired"), 0)
