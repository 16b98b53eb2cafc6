"""The servers made ready, and one load driven against one of them."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import trustme

from benchmarks import reference
from benchmarks.peers import edge, floor, load_test, mlserver, perf_analyzer, requests, triton
from benchmarks.peers.load import CLOSED, MUTUAL_TLS, ONE_LENGTH, OPEN, PERF, PLAIN, STREAM_COUNT, TLS, Load
from benchmarks.peers.measured import Figures
from benchmarks.peers.server import EDGE, FLOOR, MLSERVER, OURS, PUBLIC, TRITON, Certificate, Server
from serving.launch import LaunchedServer


@dataclasses.dataclass(frozen=True)
class Effort:
    """Seconds of a loop, and requests of a run of perf_analyzer with one in flight and with more."""

    seconds: float
    requests_of_one: int = 2000
    requests_of_many: int = 6000


EDGES = {OURS: "nghttp2", PUBLIC: "grpcio"}  # those of lstm-serve


class Bench:
    """A model in a repository, requests, a certificate; the environments of the peers lie in `environments`."""

    def __init__(self, environments: Path, folder: Path, effort: Effort) -> None:
        self.environments, self.effort = environments, effort
        self._repository = folder / "models"
        self._repository.mkdir()
        reference.export(self._repository, ("onnx",))
        model = self._repository / reference.NAME
        (model / "config.pbtxt").write_text("max_batch_size: 64\ndynamic_batching { }\n")
        self._onnx_file = model / "1" / "model.onnx"
        self._one_length, self._own_lengths = folder / "one_length.npz", folder / "own_lengths.npz"
        requests.write_lengths(self._one_length, self._own_lengths)
        self._answers = folder / "answers"
        self._answers.mkdir()
        made = _certificate(folder)
        self._certificates = {PLAIN: None, TLS: made, MUTUAL_TLS: dataclasses.replace(made, mutual=True)}

    def prepare(self, name: str) -> None:
        """Installs or builds what this server needs. Raises `PeerError`, or `StartupError` if ours does not start."""
        preparations: dict[str, Callable[[], None]] = {
            TRITON: lambda: triton.install(self.environments / "triton"),
            MLSERVER: lambda: mlserver.install(self.environments / "mlserver"),
            FLOOR: lambda: floor.build(self.environments / "floor"),
        }
        if name in preparations:
            preparations[name]()
        if name in (EDGE, FLOOR) and not any(self._answers.iterdir()):
            with self._started(OURS, None) as server:
                floor.record(server, requests.one(), self._answers)

    def prepare_perf_analyzer(self) -> None:
        """Raises `PeerError`."""
        perf_analyzer.install(self.environments / "perf", sys.executable)

    @contextlib.contextmanager
    def serve(self, name: str, connection: str = PLAIN) -> Iterator[Server]:
        """The server, up, with right answers and warm. Raises `PeerError`, or `StartupError` if ours does not start."""
        with self._started(name, self._certificates[connection]) as server:
            if name not in (EDGE, FLOOR):
                requests.check(server, self._onnx_file)
            load_test.drive(server, ["--concurrency", "8"], min(0.5, self.effort.seconds))
            yield server

    def drive(self, server: Server, load: Load, rate: float) -> Figures:
        """One load; `rate` is that of an open loop, in requests a second. Raises `PeerError`."""
        streaming = load.streaming
        if load.client == PERF:
            flags = [
                "--concurrency-range",
                f"{load.in_flight}:{load.in_flight}",
                *(["--streaming"] if streaming else []),
            ]
            count = self.effort.requests_of_one if load.in_flight == 1 else self.effort.requests_of_many
            return perf_analyzer.drive(self.environments / "perf", server, flags, count)
        flags = ["--rate", f"{rate:.1f}"] if load.client == OPEN else ["--concurrency", str(load.in_flight)]
        flags += ["--streaming", "--streams", str(STREAM_COUNT)] if streaming else []
        if load.lengths:
            flags += ["--data", str(self._one_length if load.lengths == ONE_LENGTH else self._own_lengths)]
        return load_test.drive(server, flags, self.effort.seconds)

    def capacity(self, name: str, in_flight: int) -> float:
        """Requests a second of a closed loop, the best of three, as whatever else runs makes it less. Raises `PeerError`."""
        with self.serve(name) as server:
            runs = [self.drive(server, Load(CLOSED, "capacity", in_flight), 0.0) for _ in range(3)]
        return max(run.per_second or 0.0 for run in runs)

    @contextlib.contextmanager
    def _started(self, name: str, certificate: Certificate | None) -> Iterator[Server]:
        if name in EDGES:
            flags = ["--backend", "onnx_runtime", "--edge", EDGES[name]]
            if certificate:
                flags += ["--tls-cert", str(certificate.chain), "--tls-key", str(certificate.key)]
                flags += ["--tls-client-ca", str(certificate.authority)] if certificate.mutual else []
            with LaunchedServer(self._repository, *flags) as launched:
                yield Server(name, launched.address, launched.process.pid, certificate)
        elif name == TRITON:
            with triton.serve(self.environments / "triton", self._onnx_file, certificate) as server:
                yield server
        elif name == MLSERVER:
            with mlserver.serve(self.environments / "mlserver", self._onnx_file) as server:
                yield server
        elif name == EDGE:
            with edge.serve(self._answers) as server:
                yield server
        else:
            with floor.serve(self.environments / "floor", self._answers) as server:
                yield server


def _certificate(folder: Path) -> Certificate:
    authority = trustme.CA()
    made = authority.issue_cert("localhost", "127.0.0.1")
    files = Certificate(folder / "chain.pem", folder / "key.pem", folder / "authority.pem")
    files.chain.write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
    made.private_key_pem.write_to_path(str(files.key))
    authority.cert_pem.write_to_path(str(files.authority))
    return files
