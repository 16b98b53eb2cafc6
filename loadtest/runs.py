"""From the command line's options to reports: which runs, in which order, and what is written at the end.

Reports are written whatever ends the runs early, Ctrl-C and a server that dies included; half a measurement that says
so is better than none.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from loadtest import endpoint, inputs, measure, search
from loadtest.command_line import DEFAULT_STEPS
from loadtest.errors import LoadTestError
from loadtest.progress import Progress
from loadtest.report import html_page, json_csv, table
from loadtest.result import Result, Setting
from loadtest.sequence_plan import Plan, plan_of
from loadtest.target import Target, connect

_CONNECT_SECONDS = 10.0
_FIRST_RATE = 100.0


def carry_out(options: argparse.Namespace) -> bool:
    """Runs all that was asked and reports it; True if Ctrl-C ended it early.

    Raises `UsageError` for inputs that do not fit the model, `LoadTestError` if the server cannot be reached, does not
    have the model, has answered no request at all, or has continued a sequence wrongly, and
    `OSError` if a report cannot be written.
    """
    with connect(endpoint.from_options(options), min(options.timeout, _CONNECT_SECONDS)) as target:
        runs = _Runs(options, target)
        found = None
        if options.p99_below:
            found = runs.search(options.p99_below / 1e3)
        else:
            runs.levels()
    results = runs.results
    conclusion = ""
    if found is not None:
        conclusion = conclusion_of(found, options.p99_below, sequences=bool(options.sequences))
    print(table.render(results) + (f"\n{conclusion}\n" if conclusion else ""), end="", flush=True)
    if options.json:
        options.json.write_text(json_csv.to_json(results, found), encoding="utf-8")
    if options.csv:
        options.csv.write_text(json_csv.to_csv(results), encoding="utf-8")
    if options.html:
        options.html.write_text(html_page.render(results, conclusion), encoding="utf-8")
    if runs.failure is not None:
        raise runs.failure
    if results and not any(result.succeeded for result in results) and not runs.interrupted:
        code, message = next(iter(results[-1].error_messages.items()), ("nothing was sent", "the run is too short"))
        raise LoadTestError(f"every request failed; the first error was {code}: {message}")
    if wrong := sum(result.wrong_continuations for result in results):
        compared = sum(result.sequences["compared"] for result in results if result.sequences)
        raise LoadTestError(
            f"{wrong} of {compared} sequences were continued wrongly: they ended in another state than a run without a break"
        )
    return runs.interrupted


class _Runs:
    """The runs of one invocation, in order. `failure` is what ended them early, if anything did."""

    def __init__(self, options: argparse.Namespace, target: Target) -> None:
        self.results: list[Result] = []
        self.interrupted = False
        self.failure: LoadTestError | None = None
        self._options = options
        self._target = target
        self._progress = Progress(sys.stderr)
        metadata = target.model(options.model, options.model_version)
        self._requests: Sequence[bytes] | Plan
        if options.sequences:
            self._requests = plan_of(options, target, metadata)
        elif options.data:
            self._requests = inputs.requests_from_file(options.data, metadata, options.model_version, rows=options.rows)
        else:
            self._requests = inputs.random_requests(
                metadata,
                options.model_version,
                rows=options.rows,
                shapes=inputs.parse_shapes(options.shape),
                token_limit=options.token_limit,
                seed=options.seed,
                count=inputs.DISTINCT,
            )

    def levels(self) -> None:
        """One run for each level."""
        options = self._options
        mode = "sequences" if options.sequences else "open" if options.rate else "closed"
        for level in options.sequences or options.rate or options.concurrency or (1.0,):
            if self._one(mode, level) is None:
                return

    def search(self, limit_seconds: float) -> dict[str, Any] | None:
        """The highest rate, or the most sequences, whose p99 stays below the limit; None if it did not come to an end."""
        sequences = self._options.sequences

        def holds(level: float) -> bool:
            result = self._one("sequences" if sequences else "open", level)
            if result is None:
                raise _EndedError
            return result.percentile_of_all(99.0) < limit_seconds

        start = (sequences or self._options.rate or (_FIRST_RATE,))[0]
        try:
            found = search.highest_rate(holds, start, whole=bool(sequences))
        except _EndedError:
            return None
        lowest_failed = min((trial.rate for trial in found.trials if not trial.held), default=None)
        failed = [result for result in self.results if result.setting.level == lowest_failed]
        return {
            "p99_below_seconds": limit_seconds,
            **dataclasses.asdict(found),
            "client_saturated": bool(failed) and all(result.saturated for result in failed),
        }

    def _one(self, mode: str, level: float) -> Result | None:
        """Runs one level; None if that was the last because of Ctrl-C or a server that has gone."""
        options = self._options
        setting = Setting(
            mode=mode,
            level=level,
            duration_seconds=options.duration,
            warm_up_seconds=options.warm_up,
            timeout_seconds=options.timeout,
            model=options.model,
            version=options.model_version,
            server=self._target.name,
            rows=options.rows,
            arrivals=options.arrivals if mode == "open" else None,
            streams=(options.streams or 1) if options.streaming else 0,
            seed=options.seed,
            steps=(options.steps or (0 if options.data else DEFAULT_STEPS)) if options.sequences else 0,
            step_size=(options.step_size or 1) if options.sequences else 0,
            every_seconds=options.every or 0.0,
        )
        result = None
        self._progress.begin(setting)
        try:
            limits = measure.Limits(max_in_flight=options.max_in_flight)
            result = measure.run(setting, self._target, self._requests, limits, self._progress.watch)
            self.results.append(result)
        except LoadTestError as error:
            if not self.results:
                raise
            self.failure = error
            return None
        except KeyboardInterrupt:
            self.interrupted = True
            return None
        finally:
            self._progress.end(result)
        if result.interrupted:
            self.interrupted = True
            return None
        return result


class _EndedError(Exception):
    """A search cannot go on."""


def conclusion_of(found: dict[str, Any], limit_ms: float, *, sequences: bool = False) -> str:
    """What a search for the highest rate, or the most sequences, has found, in words, and everything that was tried."""
    trials: Sequence[dict[str, Any]] = found["trials"]
    unit = "" if sequences else "/s"
    tried = ", ".join(f"{trial['rate']:.4g}{unit} {'held' if trial['held'] else 'failed'}" for trial in trials)
    what, whole = ("number of sequences", "") if sequences else ("rate", " requests/s")
    if found["rate"] is None:
        answer = f"no {what} down to {trials[-1]['rate']:.4g}{unit} keeps the p99 below {limit_ms:g} ms"
    else:
        answer = f"the highest {what} that keeps the p99 below {limit_ms:g} ms is {found['rate']:.4g}{whole}"
        answer += "" if found["bounded"] else f" or more: no {what} that was tried failed"
    if found["client_saturated"]:
        answer += "; but beyond it the client was saturated, so this may be its limit and not the server's"
    return f"{answer}\n(tried: {tried})"
