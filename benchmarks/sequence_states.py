"""What keeping the state costs: gathering and scattering beside the bare call, and the memory of a million idle sequences.

    python benchmarks/sequence_states.py                     # 64 rows, one step each, networks of 2 x 64 and 2 x 512
    python benchmarks/sequence_states.py --idle 1000000      # a real server, sequences begun over gRPC, 64 of them active

The first prints medians of alternating rounds: the backend's `run` with states at hand, the gather before and the scatter
after it, and everything that a batch of steps goes through beside it (begin, gather, commit), all for 64 rows. The second
prints the server's memory (resident, and at its peak), and the p50 and p99 of 64 active sequences before and beside the idle
ones; a round is so many seconds.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np

from models.config import LSTMConfig
from protos import grpc_service_pb2 as pb
from serving.backends import onnx_runtime
from serving.backends.base import Options
from serving.launch import LaunchedServer
from serving.sequences.live import Sequences
from serving.sequences.policy import SequencePolicy, StateLayout, StateTensor
from serving.sequences.step import Step
from tests.support import artefacts, real_model

ROWS, FEATURES = 64, 8
CALLS = 300
STREAMS = 4


def network(hidden: int) -> LSTMConfig:
    """Two layers, as wide as asked for."""
    return LSTMConfig(input="features", features=FEATURES, layers=2, hidden=hidden, outputs=1, head="values_per_step")


def microseconds(work: Callable[[], object]) -> float:
    """The median of many calls."""
    times = []
    for _ in range(CALLS):
        began = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - began)
    return statistics.median(times) / 1000


def costs(hidden: int, folder: Path) -> tuple[float, float, float]:
    """Microseconds for 64 rows of one step: the bare call, gather and scatter, and everything around the call."""
    config = network(hidden)
    weights = artefacts.weights(config)
    artefacts.make("onnx_runtime", config, weights, folder)
    spec = artefacts.spec(config, weights)
    backend = onnx_runtime.load(folder / onnx_runtime.FILE_NAME, spec, "cpu", Options(threads=1))
    fresh = np.zeros((2, hidden), np.float32)
    layout = StateLayout(
        tuple(StateTensor(pair.input, pair.output, fresh.dtype, fresh.shape, fresh) for pair in spec.state)
    )
    home = Sequences(
        "1",
        "model 'm' version 1",
        layout,
        SequencePolicy(max_sequences=100_000, max_state_bytes=2**31),
        epochs=itertools.count(1).__next__,
        busy=lambda key: False,
    )
    inputs = {"x": np.zeros((ROWS, 1, FEATURES), np.float32), "lengths": np.ones(ROWS, np.int64)}
    inputs |= {tensor.input: np.zeros((ROWS, *tensor.shape), np.float32) for tensor in layout.tensors}
    wanted = ["y", *(tensor.output for tensor in layout.tensors)]
    new = backend.run(inputs, wanted)
    ids = np.random.default_rng(0).permutation(20_000)[: 50 * ROWS] + 1  # spread over the pool
    for id in range(1, 20_001):
        begun(home, [Step(("", id), start=True)], new)
    turns = itertools.cycle(ids.reshape(-1, ROWS).tolist())
    slots = np.array([home._find(("", id)) for id in next(turns)])

    def moved() -> None:
        for tensor in layout.tensors:
            home._pool.gather(tensor.input, slots)
            home._pool.scatter(tensor.input, slots, new[tensor.output])

    def around() -> None:
        steps = [Step(("", id)) for id in next(turns)]
        for step in steps:
            home.begin(step, 1)
        for tensor in layout.tensors:
            home.states(tensor.input, [step.slot for step in steps])
        committed(home, steps, new)

    bare, alone, all_of_it = zip(
        *[
            (microseconds(lambda: backend.run(inputs, wanted)), microseconds(moved), microseconds(around))
            for _ in range(3)
        ],
        strict=True,
    )
    backend.close()
    return statistics.median(bare), statistics.median(alone), statistics.median(all_of_it)


def begun(home: Sequences, steps: Sequence[Step], new: dict[str, np.ndarray]) -> None:  # type: ignore[type-arg]
    """Steps that are taken."""
    for step in steps:
        home.begin(step, 1)
    committed(home, steps, new)


def committed(home: Sequences, steps: Sequence[Step], new: object) -> None:
    """As a batch is."""
    for row, step in enumerate(steps):
        step.new, step.row = new, row  # type: ignore[assignment]
    home.commit(steps, 1)


def request(id: int, *, start: bool) -> bytes:
    """One step of one sequence."""
    x = np.zeros((1, 1, FEATURES), np.float32)
    made = pb.ModelInferRequest(model_name="m", id=str(id), raw_input_contents=[x.tobytes()])
    made.inputs.add(name="x", datatype="FP32", shape=x.shape)
    made.parameters["sequence_id"].int64_param = id
    if start:
        made.parameters["sequence_start"].bool_param = True
    return made.SerializeToString()


def begin_all(address: str, ids: range) -> None:
    """Begins these over a stream, some on their way at a time."""
    answers = stream(address, (request(id, start=True) for id in ids))
    for count, answer in enumerate(answers, 1):
        assert not answer.error_message, answer.error_message
        if count % 100_000 == 0:
            print(f"{count} begun on one of {STREAMS} streams", file=sys.stderr)


def stream(address: str, requests: Iterator[bytes]) -> Iterator[pb.ModelStreamInferResponse]:
    """ModelStreamInfer on a connection of its own."""
    channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
    method = channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer", None, pb.ModelStreamInferResponse.FromString
    )
    yield from method(requests)
    channel.close()


def active(address: str, ids: Sequence[int], seconds: float, *, start: bool) -> list[float]:
    """Milliseconds of each step of some sequences, one on its way for each, over unary calls of one thread each eight."""
    took: list[float] = []

    def ask(mine: Sequence[int]) -> None:
        channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        until, first = time.monotonic() + seconds, start
        while time.monotonic() < until:
            for id in mine:
                began = time.perf_counter()
                call(request(id, start=first))
                took.append((time.perf_counter() - began) * 1000)
            first = False
        channel.close()

    threads = [threading.Thread(target=ask, args=[ids[place::8]]) for place in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return sorted(took)


def idle(count: int, seconds: float, folder: Path) -> None:
    """A server with so many sequences that nobody asks for."""
    version, *_ = real_model.write(folder, ["onnx_runtime"], name="m", config=network(64))
    (version.parent / "config.pbtxt").write_text(
        "sequence_batching { max_sequence_idle_microseconds: 86400000000 } "
        f'parameters {{ key: "max_sequences" value {{ string_value: "{count + 64}" }} }} '
        f'parameters {{ key: "max_sequence_state_bytes" value {{ string_value: "{2 * 2**30}" }} }}'
    )
    with LaunchedServer(folder, "--backend", "onnx_runtime") as server:
        before = memory(server.process.pid)
        ids = range(10**9, 10**9 + 64)
        alone = active(server.address, ids, seconds, start=True)
        share = count // STREAMS
        streams = [
            threading.Thread(target=begin_all, args=[server.address, range(1 + place * share, 1 + (place + 1) * share)])
            for place in range(STREAMS)
        ]
        for each in streams:
            each.start()
        for each in streams:
            each.join()
        beside = active(server.address, ids, seconds, start=False)
        after = memory(server.process.pid)
        live = next(line for line in server.metrics().splitlines() if line.startswith("lstm_serving_sequences_live{"))
    print(f"{live}\n\n|  | before | with {share * STREAMS:,} idle ones |\n|---|---|---|")
    print(
        f"| memory now, MiB | {before[0]:.0f} | {after[0]:.0f} |\n| at its peak, MiB | {before[1]:.0f} | {after[1]:.0f} |"
    )
    for name, at in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
        print(f"| {name} of 64 active, ms | {alone[int(at * len(alone))]:.2f} | {beside[int(at * len(beside))]:.2f} |")


def memory(pid: int) -> tuple[float, float]:
    """Resident now and at most so far, in MiB."""
    said = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return tuple(int(said[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--idle", type=int, default=0, metavar="N", help="so many idle sequences on a real server instead"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load of 64 active ones")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.idle:
            idle(options.idle, options.seconds, Path(name))
            return
        print(
            "64 rows, one step each, microseconds\n\n| network | run | gather and scatter | by run's | all around it | by run's |"
        )
        print("|---|---|---|---|---|---|")
        for hidden in (64, 512):
            folder = Path(name) / str(hidden)
            folder.mkdir()
            bare, moved, around = costs(hidden, folder)
            print(
                f"| 2 x {hidden} | {bare:.0f} | {moved:.0f} | {moved / bare:.2f} | {around:.0f} | {around / bare:.2f} |"
            )


if __name__ == "__main__":
    main()
