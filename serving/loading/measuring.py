"""How fast each way to serve a version is: measured on this machine, with the version's golden samples, not guessed.

Every backend is measured in a child process of its own (`serving.child`), so that a server which ends up with
ONNX Runtime never pays for having tried TensorFlow, and a runtime that crashes takes nothing else with it. What does not
agree with the trained model gets no figures. These processes run at a low priority, and where every CPU is busy that
makes several threads look worse by orders of magnitude, since every call waits for the thread that runs last. They
would be in the way there, too.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from serving import backends
from serving.backends.base import Candidate, Measured, Options
from serving.backends.rows_first import laid_out
from serving.child.pipes import Arrays, Message, Tell
from serving.child.process import SILENCE_SECONDS, Child
from serving.errors import BackendUnavailable, ChildEnded, ChildRaised, ServingError
from serving.machine import devices
from serving.machine.devices import CPU
from serving.repository.folders import VersionFolder
from serving.signature.spec import ModelSpec
from serving.verification import golden

ROWS = (1, 8, 32)
WARM_CALLS = 2  # TorchScript looks on during the first call and compiles in the second
# With 30 calls, over in 2 ms, two threads came out as fast as one or half as fast again, by chance; with 300 they do not.
Answer = tuple[dict[str, float], str, bool]  # figures, what is told instead of them, and whether that came by chance
LEAST_CALLS, MOST_CALLS, CELL_SECONDS = 5, 300, 0.15


def cpus_here(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """How many CPUs this process may keep busy: those it is bound to, or fewer if its container has a quota of time."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
        return max(1, min(bound, int(allowed) // int(period)))
    except (OSError, ValueError):  # no quota
        return bound


def measure(
    folder: VersionFolder,
    candidates: Sequence[Candidate],
    *,
    rows: Sequence[int] = ROWS,
    allow_tf32: bool = False,
    silence_seconds: float = SILENCE_SECONDS,
    given_up: Callable[[], bool] = lambda: False,
) -> list[Measured]:
    """Measures calls of so many `rows` with each candidate, in their order; one that cannot serve has its sentence instead.

    Takes seconds, most of them to import the runtimes, and minutes where every CPU is busy. A process that says nothing for
    `silence_seconds` is ended, so there all candidates may have failed. As soon as it is `given_up`, which is asked some
    fifty times a second, the process is ended, and the candidates that it has not come to are left out. A model without an
    axis of rows is measured with one row, a model with a fixed number of rows with that one. Raises `ValueError` for a version
    without spec.json and golden.npz: nothing proves that its files compute the same.
    """
    if not folder.described:
        raise ValueError(f"{folder.path} holds no spec.json and no golden.npz: nothing proves that its files are alike")
    results: dict[Candidate, Measured] = {}
    waiting: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        if why := unavailable(candidate):
            results[candidate] = Measured(candidate, failed=why)
        else:
            waiting.setdefault(candidate.backend, []).append(candidate)
    for together in waiting.values():
        request = {
            "number": folder.number,
            "path": str(folder.path.absolute()),
            "candidates": [dataclasses.asdict(candidate) for candidate in together],
            "rows": list(rows),
            "allow_tf32": allow_tf32,
        }
        levels = backends.module(together[0].backend).LEVELS or ("",)
        answers, end = _answers(request, levels, silence_seconds, given_up)
        for candidate, (figures, failed, by_chance) in zip(together, answers, strict=False):
            results[candidate] = Measured(
                candidate, {int(count): p50 for count, p50 in figures.items()}, failed, by_chance
            )
        if end and not given_up():
            for candidate in together[len(answers) :]:
                results[candidate] = Measured(candidate, failed=str(end), by_chance=not end.crashed)
    return [results[candidate] for candidate in candidates if candidate in results]


def unavailable(candidate: Candidate) -> str:
    """Why it cannot run here, as far as can be said without importing the runtime; its own process says the rest."""
    try:
        backends.module(candidate.backend).available(CPU)
        if (index := devices.cuda_index(candidate.device)) is not None:
            devices.require_gpu(index)
    except BackendUnavailable as error:
        return str(error)
    return ""


def _answers(
    request: Mapping[str, Any], levels: Sequence[str], silence_seconds: float, given_up: Callable[[], bool]
) -> tuple[list[Answer], ChildEnded | None]:
    """Figures and failure of the candidates, in their order, and how the child ended if these are not all.

    What kills the child at one level of optimisation is measured at the next, at which it can be served.
    """
    first_end: ChildEnded | None = None
    answers: list[Answer] = []
    for level in levels:
        if given_up():
            break
        answers, end = _ask_child({**request, "level": level}, silence_seconds, given_up)
        first_end = first_end or end
        if end is None or answers or not end.crashed:
            break
    return answers, first_end


def _ask_child(
    request: Mapping[str, Any], silence_seconds: float, given_up: Callable[[], bool]
) -> tuple[list[Answer], ChildEnded | None]:
    """What one child answers, and how it ended if these are not all."""
    answers: list[Answer] = []

    def told(message: Message) -> None:
        if message.header is not None:
            answers.append(message.header)

    try:
        with Child(__name__) as child:
            child.ask(
                request,
                doing="while it was measured",
                silence_seconds=silence_seconds,
                told=told,
                given_up=given_up,
            )
    except ChildEnded as error:
        return answers, error
    except ChildRaised as error:
        return answers, ChildEnded(str(error))
    return answers, None


def _p50(call: Callable[[], object]) -> float:
    """The median seconds of a call."""
    for _ in range(WARM_CALLS):
        call()
    taken: list[float] = []
    until = time.perf_counter() + CELL_SECONDS
    while len(taken) < LEAST_CALLS or (len(taken) < MOST_CALLS and time.perf_counter() < until):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def rows_of(spec: ModelSpec, wanted: Sequence[int] = ROWS) -> Sequence[int]:
    """How many rows the model can be asked for, of those wanted."""
    if not spec.batched:
        return [1]
    fixed = {tensor.shape[0] for tensor in spec.inputs if tensor.rows_axis is not None} - {-1}
    return sorted(fixed)[:1] or wanted


def _figures(
    folder: VersionFolder, candidate: Candidate, rows: Sequence[int], allow_tf32: bool, level: str = ""
) -> Iterator[tuple[int, float]]:
    """Rows and the median seconds of a call, one number of rows after the other. Raises what the loader would raise."""
    spec, samples = folder.spec(), folder.samples()
    options = Options(threads=candidate.threads, allow_tf32=allow_tf32, level=level)
    module = backends.module(candidate.backend)
    loaded = module.load(folder.artifact(candidate.backend), spec, candidate.device, options)
    try:
        backend = laid_out(loaded, spec)
        allowed = golden.tolerance(spec, tf32=allow_tf32 and candidate.device != CPU)
        golden.replay(backend.run, spec, samples, allowed, f"{candidate.backend} on {candidate.device}")
        outputs = [tensor.name for tensor in spec.advertised_outputs]
        for count in rows_of(spec, rows):
            inputs = golden.with_rows(golden.longest(samples).inputs, count)
            yield count, _p50(lambda: backend.run(inputs, outputs))  # noqa: B023 - called at once
    finally:
        loaded.close()


def _by_chance(error: Exception, backend: str) -> bool:
    """Whether memory or the device was lacking, which others take, too; the error may be told as one of the version's."""
    asked = [one for one in (error, error.__cause__) if isinstance(one, Exception)]
    if any(isinstance(one, MemoryError) for one in asked):
        return True
    return backends.brought_in(backend) and any(backends.module(backend).lost(one) for one in asked)


def answer(request: Mapping[str, Any], _: Arrays, tell: Tell) -> None:
    """In the child: tells figures and failure of each candidate in turn, and nothing between two figures: a sign of life."""
    folder = VersionFolder(request["number"], Path(request["path"]))
    for asked in request["candidates"]:
        figures: dict[int, float] = {}
        failed, by_chance = "", False
        candidate = Candidate(**asked)
        try:
            for count, seconds in _figures(folder, candidate, request["rows"], request["allow_tf32"], request["level"]):
                figures[count] = seconds
                tell()
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises, the other candidates are measured
            failed = str(error) if isinstance(error, ServingError) else f"{type(error).__name__}: {error}"
            by_chance = _by_chance(error, candidate.backend)
        tell([{} if failed else figures, failed, by_chance])
