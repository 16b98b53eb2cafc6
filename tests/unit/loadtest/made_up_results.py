"""Results of runs that never were, as the reports get them."""

from __future__ import annotations

from typing import Any

from loadtest.calls import Answer
from loadtest.load import Sends
from loadtest.recorder import Recorder
from loadtest.result import Result, Setting, summarise

SECOND = 10**9


def result(
    *,
    level: float = 100,
    mode: str = "open",
    errors: int = 0,
    slow: int = 0,
    sends: Sends | None = None,
    answered_per_window: int = 20,
    setting: dict[str, Any] | None = None,
    **changes: Any,
) -> Result:
    """A run of 60 s: `answered_per_window` requests/s of 1 ms each, of which the last `slow` take half a second."""
    recorder = Recorder(0, 60 * SECOND)
    total = 60 * answered_per_window
    for number in range(total):
        started = number * SECOND // answered_per_window
        taken = SECOND // 2 if number >= total - slow else SECOND // 1000
        recorder.add(Answer(started, 0, "", None), started + taken)
    for _ in range(errors):
        recorder.add(Answer(1, 14, "full <now>", None), 2)
    made_setting = Setting(
        mode=mode,
        level=level,
        duration_seconds=60,
        warm_up_seconds=1,
        timeout_seconds=10,
        model="m<1>",
        version="",
        server="s 1",
        rows=1,
        arrivals="poisson" if mode == "open" else None,
        **(setting or {}),
    )
    fields: dict[str, Any] = {
        "measured_seconds": 60.0,
        "cpu_seconds": 6.0,
        "server_seconds": None,
        "interrupted": False,
        "version": "7",
        **changes,
    }
    made = sends or Sends(sent=total + errors)
    return summarise(made_setting, recorder, made, code_names={14: "UNAVAILABLE"}, **fields)


def of_sequences(
    *, every: float = 0.0, steps: int = 20, level: float = 8, sends: Sends | None = None, **counts: Any
) -> Result:
    """A run of sequences; `counts` are what became of them, where it is not the best."""
    fields = {
        "started": 62,
        "finished": 60,
        "cut_short": 2,
        "given_up": {},
        "resent": {},
        "late_answers": 0,
        "compared": 60,
        "wrong_continuations": 0,
        "worst_distance": 1e-7,
        "tolerance": 1e-5,
        "not_compared_because": "",
        **counts,
    }
    setting = {"steps": steps, "step_size": 2, "every_seconds": every}
    return result(mode="sequences", level=level, setting=setting, sends=sends, sequences=fields)
