"""One run from warm-up to result: starts the loop's threads, watches the clock, reads the server's and its own account.

The warm-up and the measured time are one uninterrupted load. Only which requests count changes in between, so that the
measured time begins with the queues already as full as they will be.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from loadtest.calls import CODE_NAMES, Calls, UnaryCalls
from loadtest.continuation import TOLERANCE
from loadtest.load import ClosedLoop, OpenLoop, now_ns
from loadtest.recorder import Recorder
from loadtest.result import Result, Setting, summarise
from loadtest.schedule import intended_times
from loadtest.sequence_load import SequenceLoop, Tally
from loadtest.sequence_plan import Plan
from loadtest.streams import NAMES, StreamCalls
from loadtest.target import Account, Target
from protos import grpc_service_pb2 as pb

_LOOK_SECONDS = 0.1
_GRACE_SECONDS = 2.0  # after the last deadline, until what is in flight is broken off

FURTHEST = 1e300  # stands for an infinite distance, which JSON does not have

Loop = ClosedLoop | OpenLoop | SequenceLoop
Watch = Callable[[float, int], None]  # seconds since the start, answers so far


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What keeps a client whole: `max_in_flight` requests of an open loop at a time."""

    max_in_flight: int


def run(setting: Setting, target: Target, requests: Sequence[bytes] | Plan, limits: Limits, watch: Watch) -> Result:
    """Makes the load of one level and measures it, of sequences where there is a plan for them.

    A KeyboardInterrupt ends the run early; the result says so. Raises `LoadTestError` if the server cannot be reached
    or cannot do what is asked.
    """
    calls: Calls
    if setting.streams:
        calls = StreamCalls(target.endpoint, setting.timeout_seconds, setting.streams)
    else:
        calls = UnaryCalls(target.endpoint, setting.timeout_seconds)
    gc.collect()
    gc.freeze()
    start_ns = now_ns()
    begin_ns = start_ns + int(setting.warm_up_seconds * 1e9)
    recorder = Recorder(begin_ns, begin_ns + int(setting.duration_seconds * 1e9))
    loop: Loop
    if isinstance(requests, Plan):
        loop = SequenceLoop(
            calls,
            requests,
            recorder,
            sequences=int(setting.level),
            every_ns=int(setting.every_seconds * 1e9),
            start_ns=start_ns,
            lost_after_ns=int(setting.timeout_seconds * 1e9) if setting.streams else None,
        )
    elif setting.mode == "closed":
        loop = ClosedLoop(calls, requests, recorder, int(setting.level))
    else:
        times = intended_times(setting.level, setting.arrivals or "", setting.seed)
        loop = OpenLoop(calls, requests, recorder, times, start_ns, limits.max_in_flight)
    observer = _Observer(setting, target, loop, calls)
    with ThreadPoolExecutor(2, thread_name_prefix="load") as threads:
        work = [threads.submit(loop.run_receiver)]
        if isinstance(loop, OpenLoop | SequenceLoop):
            work.append(threads.submit(loop.run_sender))
        observer.watch(work, watch)
    for part in work:
        part.result()
    gc.unfreeze()
    if calls.fatal is not None:
        raise calls.fatal
    return summarise(
        setting,
        recorder,
        loop.sends,
        code_names={**CODE_NAMES, **NAMES},
        measured_seconds=observer.measured_seconds,
        cpu_seconds=observer.cpu_seconds,
        server_seconds=observer.server_seconds(),
        interrupted=observer.interrupted,
        version=_version(recorder.first_payload) or setting.version,
        sequences=_sequences(loop.tally, requests)
        if isinstance(loop, SequenceLoop) and isinstance(requests, Plan)
        else None,
    )


def _sequences(tally: Tally, plan: Plan) -> dict[str, Any]:
    """What became of the sequences, as the reports have it; null where nothing was compared."""
    names, known = {**CODE_NAMES, **NAMES}, plan.expected is not None
    return {
        "started": tally.started,
        "finished": tally.finished,
        "cut_short": tally.cut_short,
        "given_up": {names[code]: count for code, count in tally.given_up.items()},
        "resent": {names[code]: count for code, count in tally.resent.items()},
        "late_answers": tally.late_answers,
        "compared": tally.compared,
        "wrong_continuations": tally.wrong if known else None,
        "worst_distance": min(tally.worst, FURTHEST) if known else None,
        "tolerance": TOLERANCE,
        "not_compared_because": plan.why_not,
    }


class _Observer:
    """Watches one run from the main thread, reads the accounts at the borders of the measured time, ends what hangs."""

    def __init__(self, setting: Setting, target: Target, loop: Loop, calls: Calls) -> None:
        self.interrupted = False
        self.cpu_seconds = 0.0
        self.measured_seconds = 0.0
        self._setting = setting
        self._target = target
        self._loop = loop
        self._calls = calls
        self._recorder = loop.recorder
        self._before: Account | None = None
        self._cpu_before: float | None = None

    def watch(self, work: Sequence[Future[None]], watch: Watch) -> None:
        """Returns when all threads have ended; breaks off what is in flight after Ctrl-C or long after the end."""
        last_ns = self._recorder.end_ns + int((self._setting.timeout_seconds + _GRACE_SECONDS) * 1e9)
        start_ns = now_ns()
        try:
            while not self._step(work):
                watch((now_ns() - start_ns) / 1e9, sum(self._recorder.completed))
                if now_ns() > last_ns:
                    self._loop.overdue.set()
                    break
        except KeyboardInterrupt:
            self.interrupted = True
        self._measured_until(min(now_ns(), self._recorder.end_ns))
        broken = any(part.done() and part.exception() for part in work)
        if self.interrupted or broken:
            self._loop.stop()
        wait(work[1:])
        if not broken:
            self._calls.close()

    def server_seconds(self) -> dict[str, float] | None:
        """The server's mean times over the run, if it tells them."""
        after = self._account() if self._before else None
        return after.means_since(self._before) if after and self._before else None

    def _step(self, work: Sequence[Future[None]]) -> bool:
        """Waits a moment; True if there is nothing more to wait for."""
        borders = [border for border in (self._recorder.begin_ns, self._recorder.end_ns) if border > now_ns()]
        until_border = (borders[0] - now_ns()) / 1e9 if borders else _LOOK_SECONDS
        done, running = wait(work, max(min(_LOOK_SECONDS, until_border), 0.001))
        if self._cpu_before is None and now_ns() >= self._recorder.begin_ns:
            self._cpu_before = time.process_time()
            self._before = self._account()
        if now_ns() >= self._recorder.end_ns:
            self._measured_until(self._recorder.end_ns)
        return not running or self._loop.stopping.is_set() or any(part.exception() for part in done)

    def _measured_until(self, end_ns: int) -> None:
        if not self.measured_seconds and self._cpu_before is not None:
            self.cpu_seconds = time.process_time() - self._cpu_before
            self.measured_seconds = (end_ns - self._recorder.begin_ns) / 1e9

    def _account(self) -> Account | None:
        return self._target.account(self._setting.model, self._setting.version)


def _version(payload: bytes | None) -> str:
    return pb.ModelInferResponse.FromString(payload).model_version if payload else ""
