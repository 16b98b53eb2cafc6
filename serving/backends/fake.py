"""A backend that computes almost nothing, on purpose: for unit tests, for measuring the server's own cost, and for demos.

It is deterministic and keeps recurrent state like the real ones: every element of an output row is the sum of that
row's input (its true steps) on top of what its state held, so feeding a row in pieces gives what feeding it whole gives.
Its artefact is a small JSON file, all of whose fields may be left out: a call sleeps for `delay_seconds` when the first
element of any row equals `delay_on` (always if that is null), fails when one equals `fail_on`, and takes the whole process
with it when one equals `die_on`, as a runtime does that writes where it must not. It fails always while the file named by
`fail_while` lies beside the artefact; if that file says "out_of_memory" or "device_lost", so does the failure: a backend
that breaks and mends on command.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from serving.backends.base import Contents, Options
from serving.errors import BackendUnavailable, RepositoryError
from serving.machine import files
from serving.signature.spec import ModelSpec
from serving.signature.stated import Stated
from serving.signature.tensors import Tensors

FILE_NAME = "model.fake.json"
PACKAGE = ""
ONE_BY_ONE = False
TRITON_NAMES = ("fake", "fake")
TEXT_ONLY = False
LEVELS = ()


def version() -> str:
    """None: it comes with the server."""
    return ""


def available(device: str) -> None:
    """Everywhere, on the CPU."""
    if device != "cpu":
        raise BackendUnavailable(f"the fake backend runs on the CPU only; device {device!r} was asked for")


def bring_in() -> None:
    """Nothing to do."""


def stated(artifact: Path) -> tuple[Mapping[str, Stated], Mapping[str, Stated]]:
    """Nothing: a fake model is whatever its specification says."""
    raise RepositoryError(f"{artifact} says nothing of its inputs and outputs; it needs a spec.json")


def contents(artifact: Path) -> Contents:
    """Nothing that would not be said."""
    return Contents()


def careful() -> AbstractContextManager[None]:
    """Nothing to do: it raises by itself."""
    return contextlib.nullcontext()


class Lost(RuntimeError):
    """A failure after which nothing more can be expected; its first argument says which."""


def lost(error: Exception) -> str:
    """What the file `fail_while` said."""
    return str(error.args[0]) if isinstance(error, Lost) else ""


def load(artifact: Path, spec: ModelSpec, device: str, options: Options) -> FakeBackend:
    """Reads when to be late, to fail and to die."""
    available(device)
    if not files.is_plain(artifact):
        raise RepositoryError(f"{artifact} is no plain file")
    try:
        fields = json.loads(artifact.read_text())
        delay_on, fail_on, die_on = (fields.get(name) for name in ("delay_on", "fail_on", "die_on"))
        fail_while = artifact.parent / fields["fail_while"] if fields.get("fail_while") else None
        return FakeBackend(spec, float(fields.get("delay_seconds", 0.0)), delay_on, fail_on, die_on, fail_while)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RepositoryError(f"{artifact} is not a usable fake model: {error}") from error


class FakeBackend:
    """Sums rows; see the module. `sleep` is handed in by who runs it in virtual time."""

    def __init__(
        self,
        spec: ModelSpec,
        delay_seconds: float,
        delay_on: float | None,
        fail_on: float | None,
        die_on: float | None = None,
        fail_while: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._spec = spec
        self._delay_seconds = delay_seconds
        self._delay_on = delay_on
        self._fail_on = fail_on
        self._die_on = die_on
        self._fail_while = fail_while
        self._sleep = sleep

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Every output asked for, filled with each row's sum."""
        spec = self._spec
        main = inputs[spec.advertised_inputs[0].name]
        rows = main.shape[0]
        first_elements = main.reshape(rows, -1)[:, 0]
        if self._delay_seconds and (self._delay_on is None or (first_elements == self._delay_on).any()):
            self._sleep(self._delay_seconds)
        if self._die_on is not None and (first_elements == self._die_on).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._fail_while and self._fail_while.exists():
            said = self._fail_while.read_text().strip()
            raise Lost(said) if said else RuntimeError(f"asked to fail while there is a file {self._fail_while.name}")
        if self._fail_on is not None and (first_elements == self._fail_on).any():
            raise RuntimeError(f"asked to fail on {self._fail_on}")
        if spec.lengths:
            true_step = np.arange(main.shape[1]) < inputs[spec.lengths.input][:, None]
            main = np.where(true_step.reshape(*true_step.shape, *[1] * (main.ndim - 2)), main, 0)
        sums = main.reshape(rows, -1).sum(axis=1, dtype=np.float64)
        if spec.state:
            sums = sums + inputs[spec.state[0].input].reshape(rows, -1)[:, 0]
        results: dict[str, np.ndarray[Any, Any]] = {}
        for tensor in spec.outputs:
            if tensor.name in outputs:
                shape = [rows, *(main.shape[1] if size == -1 else size for size in tensor.shape[1:])]
                filled = np.empty(shape, tensor.dtype)
                filled[...] = sums.reshape(rows, *[1] * (len(shape) - 1))
                results[tensor.name] = filled
        return results

    def close(self) -> None:
        """Nothing to free."""
