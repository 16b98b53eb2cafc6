"""What has been answered so far in one run: latencies, errors by code, and how all that changed over time.

A run is cut into 60 windows with an HdrHistogram each (Gil Tene's; three significant digits from 1 us to an hour), so
memory does not grow with the number of requests, and the whole is their exact sum. A latency belongs to the window in
which its request was *meant to start*, a completion to the window in which it came; during a stall the first shows the
pain and the second the standstill.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hdrh.histogram import HdrHistogram

from loadtest.calls import OK, Answer

WINDOWS = 60
_LOWEST_NS, _HIGHEST_NS, _DIGITS = 1_000, 3_600 * 10**9, 3
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}


class Latencies:
    """Latencies in nanoseconds: a thin cover of `HdrHistogram` that knows its maximum exactly after a sum too.

    One is recorded to or added to, never both.
    """

    def __init__(self) -> None:
        self._histogram = HdrHistogram(_LOWEST_NS, _HIGHEST_NS, _DIGITS)
        self.record = self._histogram.record_value
        self._added_max_ns = 0

    @property
    def count(self) -> int:
        """How many were recorded."""
        return int(self._histogram.get_total_count())

    @property
    def max_seconds(self) -> float:
        """The largest, exactly."""
        return float(self._added_max_ns or self._histogram.max_value) / 1e9

    @property
    def mean_seconds(self) -> float:
        """The mean, within the histogram's precision."""
        return float(self._histogram.get_mean_value()) / 1e9

    def add(self, others: Sequence[Latencies]) -> Latencies:
        """Takes in all that the others hold; returns itself."""
        for other in others:
            if other.count:
                self._histogram.add(other._histogram)
                self._added_max_ns = max(self._added_max_ns, int(other._histogram.max_value))
        return self

    def percentiles(self, wanted: Sequence[float]) -> list[float]:
        """Seconds at each percentile (0 to 100); NaN if nothing was recorded. Never more than the largest."""
        if not self.count:
            return [math.nan] * len(wanted)
        values = self._histogram.get_percentile_to_value_dict(sorted(set(wanted)))
        return [min(values[percentile] / 1e9, self.max_seconds) for percentile in wanted]


class Recorder:
    """Counts the answers of one run. Requests meant to start in [begin_ns, end_ns) are measured, all others are not.

    `add` is for the one thread that receives; the rest is to be read when that has ended.
    """

    def __init__(self, begin_ns: int, end_ns: int) -> None:
        self.begin_ns = begin_ns
        self.end_ns = end_ns
        self._window_ns = max((end_ns - begin_ns) // WINDOWS, 1)
        self.windows = [Latencies() for _ in range(WINDOWS)]
        self.completed = [0] * WINDOWS
        self.errors: dict[int, int] = {}
        self.messages: dict[int, str] = {}
        self.succeeded = 0
        self.first_payload: bytes | None = None

    @property
    def window_seconds(self) -> float:
        """How long each window is."""
        return self._window_ns / 1e9

    def add(self, answer: Answer, now_ns: int) -> None:
        """One answer has come at `now_ns`."""
        started_ns, code, details, payload = answer
        begin_ns = self.begin_ns
        if code == OK and begin_ns <= now_ns < self.end_ns:
            self.completed[min((now_ns - begin_ns) // self._window_ns, WINDOWS - 1)] += 1
        if not begin_ns <= started_ns < self.end_ns:
            return
        if code != OK:
            self.errors[code] = self.errors.get(code, 0) + 1
            self.messages.setdefault(code, details)
            return
        if self.first_payload is None:
            self.first_payload = payload
        self.succeeded += 1
        window = self.windows[min((started_ns - begin_ns) // self._window_ns, WINDOWS - 1)]
        window.record(min(now_ns - started_ns, _HIGHEST_NS))

    def errors_by_name(self, names: Mapping[int, str]) -> dict[str, int]:
        """Errors under the names of their codes, the most frequent first."""
        return {names[code]: count for code, count in sorted(self.errors.items(), key=lambda item: -item[1])}
