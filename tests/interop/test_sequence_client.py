"""The client of twenty lines resends rightly: over a connection that is cut while an answer is on its way."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.commands import ROOT
from tests.support.running import FAKE, metric

CLIENT = ROOT / "examples/sequence_client.py"
ANSWER = b"sequence_epoch"  # which every answer holds, as the protocol's bytes are


class Cutter:
    """Passes bytes on to a server and back, but for the answers of these numbers, at which it cuts the connection."""

    def __init__(self, address: str, cuts: set[int]) -> None:
        host, _, port = address.rpartition(":")
        self._server = (host, int(port))
        self._cuts = cuts
        self._answers = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Cutter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self._listening.close()

    def _serve(self) -> None:
        """One connection after the other, as the client opens them."""
        with contextlib.suppress(OSError):  # nobody listens any more
            while True:
                client, _ = self._listening.accept()
                with client, socket.create_connection(self._server) as server:
                    self._pass_on({client: server, server: client}, server)

    def _pass_on(self, ends: dict[socket.socket, socket.socket], server: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(65536)
                    self._answers += end is server and ANSWER in data
                    if not data or (end is server and ANSWER in data and self._answers in self._cuts):
                        return
                    ends[end].sendall(data)


def test_each_step_is_computed_once_though_answers_are_lost(tmp_path: Path, client_python: str) -> None:
    fake_models.write(tmp_path / "repository", config="sequence_batching {}")
    steps = np.arange(24, dtype=np.float32).reshape(8, fake_models.FEATURES)
    np.save(tmp_path / "steps.npy", steps)
    cuts = {1, 4, 5, 11}  # the answer to START; to a step, and to its repeat; to END
    with LaunchedServer(tmp_path / "repository", *FAKE) as server, Cutter(server.address, cuts) as cutter:
        done = subprocess.run(
            [client_python, str(CLIENT), cutter.address, "fake", str(tmp_path / "steps.npy")],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        counts = {name: metric(server, f"sequence_{name}_total", model="fake") for name in ("steps", "steps_repeated")}
        live = metric(server, "sequences_live", model="fake")
    assert done.returncode == 0, done.stderr
    sums = [float(line.split()[0]) for line in done.stdout.splitlines()]
    assert sums == steps.sum(axis=1).cumsum().tolist()
    assert counts == {"steps": 8, "steps_repeated": 4}
    assert live == 0


def test_what_will_never_be_right_is_raised_at_once(tmp_path: Path, client_python: str) -> None:
    fake_models.write(tmp_path / "repository")
    np.save(tmp_path / "steps.npy", np.zeros((2, fake_models.FEATURES), np.float32))
    with LaunchedServer(tmp_path / "repository", *FAKE) as server:
        done = subprocess.run(
            [client_python, str(CLIENT), server.address, "fake", str(tmp_path / "steps.npy")],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        asked = metric(server, "requests_total", model="fake", outcome="invalid")
    assert done.returncode == 1
    assert "add sequence_batching {} to its config.pbtxt" in done.stderr
    assert asked == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ((), "the following arguments are required: ADDRESS, MODEL, STEPS.npy"),
        (("127.0.0.1:1", "m", "missing.npy"), "missing.npy cannot be read: "),
    ],
)
def test_wrong_usage_is_told_in_a_sentence(line: tuple[str, ...], told: str, client_python: str) -> None:
    done = subprocess.run([client_python, str(CLIENT), *line], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: sequence_client.py [-h] ADDRESS MODEL STEPS.npy\n")
    assert told in done.stderr
