"""Sequences that outlive their server; `make chaos` does the same a hundred times, and some things more.

Clients know every answer beforehand, to the bit (`tests/support/chaos_clients.py`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from serving import backends
from serving.errors import StartupError
from serving.launch import LaunchedServer
from serving.sequences.file_disk import FILE, Durability
from tests.support import artefacts, chaos, chaos_clients, oracle, power_loss
from tests.support.chaos_clients import NETWORK, STATEFUL, Held, Recording
from tests.support.stepping import Array, Stepper, epoch
from tests.support.wire import RawClient

SEED = 18
NEEDS = "needs strace, and leave to trace a process"
ONNX = ("--backend", "onnx_runtime")
Prepared = tuple[Path, Sequence[Recording]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, edge: str) -> Prepared:
    """Models in every format, and what ONNX Runtime answers when nothing is done to the server."""
    return chaos.prepare(tmp_path_factory.mktemp(edge), SEED, formats=backends.PREFERENCE)


@pytest.mark.parametrize(
    "kind",
    ["kill -9 under load", "SIGTERM under load", "kill -9 while a model is loaded anew", "disk full, and room again"],
)
def test_no_answered_step_is_lost_or_counted_twice(kind: str, prepared: Prepared) -> None:
    tally = chaos.run([kind, kind], SEED, prepared, own_disk=False)[kind]
    assert tally.rounds == 2
    assert tally.came[chaos_clients.WENT_ON] > 0 or "disk" in kind
    assert tally.came[chaos_clients.NOT_WRITTEN] > 0 or "disk" not in kind


@pytest.mark.skipif(not chaos.traces(), reason=NEEDS)
def test_what_is_computed_and_not_written_is_nobodys(prepared: Prepared) -> None:
    """Writes take so long that the server is killed in the middle of one: an answer that left before it would be lost."""
    kind = "kill -9 in the middle of a write"
    assert chaos.run([kind] * 3, SEED, prepared, own_disk=False)[kind].rounds == 3


@pytest.mark.parametrize("name", [FILE, chaos.LOG])
@pytest.mark.parametrize("how", ["cut off", "bits flipped"])
def test_damaged_files_are_refused_by_name_and_never_answered_from(name: str, how: str, prepared: Prepared) -> None:
    kind = f"{name} {how}"
    tally = chaos.run([kind], SEED, prepared, own_disk=False, harms={kind: lambda one: one.damage(name, how)})[kind]
    assert tally.done.total() == 1
    assert any(what.startswith(("start", "served")) for what in tally.came)


def test_a_second_server_on_the_same_path_is_refused_by_name(prepared: Prepared, tmp_path: Path) -> None:
    repository, recordings = prepared
    flags = (*ONNX, "--sequence-store", f"file:{tmp_path / 'store'}")
    with LaunchedServer(repository, *flags) as first, RawClient(first.address) as client:
        held = Held(recordings[0], "one", 1, 0, 0)
        take(client, held)
        with pytest.raises(StartupError, match=f"another server has it, process {first.process.pid} "):
            LaunchedServer(repository, *flags)
        take(client, held)


def test_a_sequence_goes_on_over_kills_and_swaps_in_every_backend(prepared: Prepared, tmp_path: Path) -> None:
    """From one backend to the next, by a load or in the next server; and one that only ONNX Runtime computes, to the bit."""
    repository, recordings = prepared
    first, second, third = backends.PREFERENCE
    assert first == "onnx_runtime"
    x = np.random.default_rng(SEED).normal(0, 2, (1, 50, chaos_clients.FEATURES)).astype(np.float32)
    flags = ("--model-control-mode", "explicit", "--load-model", "*", "--sequence-store", f"file:{tmp_path / 'store'}")
    held = Held(recordings[0], "of one backend", 1, 0, 0)
    parts: list[Array] = []

    def go_on(server: LaunchedServer, load: str = "") -> None:
        with RawClient(server.address) as client:
            if load:
                text = f'{{"backend": "{load}", "max_batch_size": 16, "sequence_batching": {{}}}}'
                client.load(STATEFUL, config=text)
            stepper = Stepper(client, STATEFUL, "of all", numbered=True)
            stepper.taken = len(parts)
            parts.append(stepper.take(x[:, 10 * len(parts) : 10 * len(parts) + 10])["y"])

    with LaunchedServer(repository, "--backend", first, *flags) as server:
        with RawClient(server.address) as client:
            for _ in range(5):
                take(client, held)
        go_on(server)
        go_on(server, load=second)
        os.kill(server.process.pid, signal.SIGKILL)
    with LaunchedServer(repository, "--backend", third, *flags) as server:
        go_on(server)
        go_on(server, load=second)
        os.kill(server.process.pid, signal.SIGKILL)
    with LaunchedServer(repository, "--backend", first, *flags) as server:
        go_on(server)
        with RawClient(server.address) as client:
            for _ in range(5):
                take(client, held)
    state = np.zeros((1, NETWORK.layers, NETWORK.hidden), np.float32)
    inputs = {"x": x, "lengths": np.array([x.shape[1]]), "h0": state, "c0": state}
    expected = oracle.predict(NETWORK, artefacts.weights(NETWORK), inputs)["y"]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not chaos.traces(), reason=NEEDS)
@pytest.mark.parametrize(("durability", "loses"), [("disk", False), ("process", True)])
def test_what_is_left_after_a_loss_of_power(
    durability: Durability, loses: bool, prepared: Prepared, tmp_path: Path
) -> None:
    """Of steps that were answered: with `disk` all; `process` shows that it would be seen."""
    repository, recordings = prepared
    run = power_loss.recorded(tmp_path, repository, recordings, durability, seconds=1)
    found = power_loss.look(run, tmp_path, durability, SEED, repository, moments=10, asked=1)
    assert found.looked_for > 0
    assert (found.lost > 0) is loses
    assert (found.asked > 0) is not loses


def take(client: RawClient, held: Held) -> None:
    """The next step, which is answered as without interruption."""
    answer = client.method("ModelInfer")(held.message(held.taken), timeout=60)
    assert answer.raw_output_contents[0] == held.recording.answers[held.taken]
    held.epoch = epoch(answer)
    held.taken += 1
