"""A closed loop in a process of its own, which keeps every answer: when it was asked for, when it came, and how right it was.

    python benchmarks/swaps_client.py HOST:PORT VERSION_FOLDER MODEL CLIENTS FILE [UNSEEN]

Sends the rows of the version's golden samples, one a request and each with its length and state, until its standard input
ends; then it writes FILE, with the largest distance of any answer from the trained model's. With UNSEEN it sends so many
random rows of every length that the samples leave out instead, and compares nothing. Equal answers are kept once and
compared at the end, or comparing would cost more than sending and the load would be the client's.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from loadtest.calls import CODE_NAMES, OK, UnaryCalls
from loadtest.endpoint import Endpoint
from protos import grpc_service_pb2 as pb
from serving.repository.folders import VersionFolder
from serving.signature.spec import ModelSpec
from serving.signature.tensors import Tensors
from serving.verification import golden

TIMEOUT_SECONDS = 60.0
UNSEEN_STEPS = 32  # random rows have up to so many steps


class Record(NamedTuple):
    """All that one load has seen, in the order of sending; times in nanoseconds of the monotonic clock."""

    sent: npt.NDArray[np.int64]
    answered: npt.NDArray[np.int64]
    failed: npt.NDArray[np.bool_]
    largest_difference: float
    failures: Sequence[str]

    def within(self, begin: int, end: int) -> npt.NDArray[np.float64]:
        """Latencies, in seconds, of the requests that were in flight at any time between these two."""
        chosen = (self.answered >= begin) & (self.sent <= end)
        return (self.answered - self.sent)[chosen] / 1e9

    def latencies(self, first: int, count: int) -> npt.NDArray[np.float64]:
        """Latencies of so many requests, from one of them on."""
        return (self.answered - self.sent)[first : first + count] / 1e9


class Load:
    """The client process, sending from `__enter__` on until `end`."""

    def __init__(self, address: str, version: Path, model: str, clients: int, *, unseen: int = 0) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "record.npz"
        command = [sys.executable, __file__, address, str(version), model, str(clients), str(self._file)]
        self._unseen = unseen
        self._process = subprocess.Popen(
            [*command, str(unseen)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Load:
        assert self._process.stdout
        if self._process.stdout.readline() != b"flowing\n":
            raise RuntimeError(f"the client has ended with {self._process.wait()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._folder.cleanup()

    def end(self) -> Record:
        """Returns all there was, when the last answer has come; a load of `unseen` rows ends by itself."""
        assert self._process.stdin
        if not self._unseen:
            self._process.stdin.close()
        if code := self._process.wait(TIMEOUT_SECONDS + 30):
            raise RuntimeError(f"the client has ended with {code}")
        with np.load(self._file, allow_pickle=False) as kept:
            told = json.loads(str(kept["told"]))
            times = [kept[name] for name in ("sent", "answered", "failed")]
        return Record(*times, told["largest_difference"], told["failures"])


def golden_requests(version: VersionFolder, model: str) -> list[tuple[bytes, Tensors]]:
    """A request for each row of each golden sample, and the trained model's answer to it."""
    spec, made = version.spec(), []
    for sample in version.samples():
        for row in range(len(sample.inputs[spec.inputs[0].name])):
            one, wanted = (
                {name: a[row : row + 1] for name, a in side.items()} for side in (sample.inputs, sample.outputs)
            )
            made.append((request(model, spec, one), wanted))
    return made


def unseen_requests(version: VersionFolder, model: str) -> list[tuple[bytes, Tensors]]:
    """Requests of every length that no golden sample has, without lengths and state, as most clients send them."""
    spec = version.spec()
    (tensor,) = spec.advertised_inputs
    seen = {sample.inputs[tensor.name].shape[1] for sample in version.samples()}
    random, made = np.random.default_rng(0), []
    for steps in sorted(set(range(1, UNSEEN_STEPS + 1)) - seen):
        x = random.normal(size=(1, steps, tensor.shape[-1])).astype(tensor.dtype)
        made.append((request(model, spec, {tensor.name: x}), {}))
    return made


def request(model: str, spec: ModelSpec, inputs: Tensors) -> bytes:
    """A ModelInferRequest as it is sent."""
    sent = pb.ModelInferRequest(model_name=model, raw_input_contents=[a.tobytes() for a in inputs.values()])
    for tensor in spec.inputs:
        if tensor.name in inputs:
            sent.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=inputs[tensor.name].shape)
    return sent.SerializeToString()


def difference(payload: bytes, wanted: Tensors) -> float:
    """How far an answer is from the trained model's; infinite if it is not there at all."""
    response = pb.ModelInferResponse.FromString(payload)
    worst = 0.0
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        got = np.frombuffer(raw, np.float32).reshape(output.shape)
        worst = max(worst, golden.disagreement(got, wanted[output.name]))
    return worst if response.outputs else float("inf")


def main(address: str, version: str, model: str, clients: str, file: str, unseen: str = "0") -> None:
    """The client process."""
    folder = VersionFolder(int(Path(version).name), Path(version))
    asked = unseen_requests(folder, model) if int(unseen) else golden_requests(folder, model)
    calls = UnaryCalls(Endpoint(address), TIMEOUT_SECONDS)
    stopping = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stopping.set()), daemon=True).start()
    sent: list[int] = []
    answered: dict[int, int] = {}
    failed: dict[int, str] = {}
    distinct: list[set[bytes]] = [set() for _ in asked]

    def send() -> None:
        sent.append(time.monotonic_ns())
        calls.send(asked[(len(sent) - 1) % len(asked)][0], len(sent) - 1)

    for _ in range(int(clients)):
        send()
    for count in itertools.count(1):
        (answer,) = calls.receive() or ()
        number = answer.started_ns  # what `send` was given to tell this request by
        answered[number] = time.monotonic_ns()
        if answer.code == OK and answer.payload is not None:
            distinct[number % len(asked)].add(answer.payload)
        else:
            failed[number] = f"{CODE_NAMES[answer.code]}: {answer.details}"
        if count == 10 * int(clients):
            print("flowing", flush=True)
        if len(sent) < int(unseen) if int(unseen) else not stopping.is_set():
            send()
        elif len(answered) == len(sent):
            break
    differences = [
        difference(payload, wanted)
        for (_, wanted), kept in zip(asked, distinct, strict=True)
        if wanted
        for payload in kept
    ]
    told = {"largest_difference": max(differences, default=0.0), "failures": sorted(set(failed.values()))}
    times = np.array([answered[number] for number in range(len(sent))], np.int64)
    failures = np.array([number in failed for number in range(len(sent))])
    np.savez(file, sent=np.array(sent, np.int64), answered=times, failed=failures, told=json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
