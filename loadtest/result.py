"""What one run has found, as plain data, and what has to be said about it.

Throughput counts the answers that *came* within the measured time, latency the requests that were *meant to start*
within it. Together they stay true when a server falls behind: the first shows what it manages, the second what its
users wait.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from loadtest.load import LATE_NS, Sends
from loadtest.recorder import PERCENTILES, WINDOWS, Latencies, Recorder

# A load test is bounded by its client when it uses more of one core than this, or when this share leaves late.
BUSY_CORES = 0.9
LATE_SHARE = 0.01
COORDINATED_OMISSION = (
    "closed loop: a stall of the server holds back the requests that would have shown it (coordinated omission), so "
    "these percentiles cannot show one; use --rate for what users would see"
)
COORDINATED_OMISSION_OF_SEQUENCES = (
    "sequences without a pace: a stall of the server holds back the messages that would have shown it (coordinated omission), "
    "so these percentiles cannot show one; use --every for what users would see"
)
# The percentile curve: evenly spaced on the axis of nines, from 0 to 99.999.
CURVE = tuple(100 * (1 - 10 ** (-index / 20)) for index in range(101))
_UNSTEADY_THROUGHPUT = 0.2
_UNSTEADY_P99 = 2.0
_ENOUGH_FOR_P99 = 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What identifies a run. `level` is requests in flight (mode `closed`), requests/s (mode `open`), or sequences at once.

    In mode `sequences` each has at most `steps` messages (0 for all of its data) of `step_size` time steps, one every
    `every_seconds`, or as soon as the last is answered if that is 0.
    """

    mode: str
    level: float
    duration_seconds: float
    warm_up_seconds: float
    timeout_seconds: float
    model: str
    version: str
    server: str
    rows: int
    arrivals: str | None = None
    streams: int = 0
    seed: int = 0
    steps: int = 0
    step_size: int = 0
    every_seconds: float = 0.0

    @property
    def title(self) -> str:
        """What a table or a legend calls it."""
        if self.mode == "sequences":
            return f"{self.level:g} sequence{'s' * (self.level != 1)}"
        return f"{self.level:g} in flight" if self.mode == "closed" else f"{self.level:g}/s"

    @property
    def offered_per_second(self) -> float | None:
        """Requests/s that are sent by the clock; None where an answer decides when the next one leaves."""
        if self.mode == "sequences":
            return self.level / self.every_seconds if self.every_seconds else None
        return self.level if self.mode == "open" else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One run. Times are seconds; `errors` counts requests by code; `notes` are sentences that belong beside the figures.

    `sequences` says what became of them, where it was they that made the load.
    """

    setting: Setting
    sent: int
    succeeded: int
    throughput_per_second: float
    latency_seconds: Mapping[str, float | None]
    errors: Mapping[str, int]
    error_messages: Mapping[str, str]
    server_seconds: Mapping[str, float] | None
    client: Mapping[str, float]
    saturated: bool
    interrupted: bool
    measured_seconds: float
    notes: Sequence[str]
    curve: Sequence[tuple[float, float]]
    over_time: Sequence[Mapping[str, float | None]]
    sequences: Mapping[str, Any] | None = None

    @property
    def wrong_continuations(self) -> int:
        """Sequences that ended in another state than one run without a break."""
        return (self.sequences or {}).get("wrong_continuations") or 0

    @property
    def failed(self) -> int:
        """Requests that were answered with an error or not in time."""
        return sum(self.errors.values())

    def percentile_of_all(self, percentile: float) -> float:
        """Seconds at this percentile when every failed or unsent request counts as endless; infinite beyond those."""
        everything = self.succeeded + self.failed + self.client["not_sent"]
        if not self.succeeded:
            return math.inf
        among_answered = percentile * everything / self.succeeded
        if among_answered > 100:
            return math.inf
        return next((seconds for point, seconds in self.curve if point >= among_answered - 1e-9), math.inf)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        fields = dataclasses.asdict(self)
        setting = fields.pop("setting")
        fields["curve"] = [{"percentile": point, "seconds": seconds} for point, seconds in self.curve]
        return {**setting, "offered": self.setting.offered_per_second, **fields, "failed": self.failed}


def summarise(
    setting: Setting,
    recorder: Recorder,
    sends: Sends,
    *,
    code_names: Mapping[int, str],
    measured_seconds: float,
    cpu_seconds: float,
    server_seconds: Mapping[str, float] | None,
    interrupted: bool,
    version: str,
    sequences: Mapping[str, Any] | None = None,
) -> Result:
    """Turns counts into a `Result`. `cpu_seconds` is the client's own, over `measured_seconds`."""
    whole = Latencies().add(recorder.windows)
    client = {
        "cpu_cores": cpu_seconds / measured_seconds if measured_seconds else 0.0,
        "cpu_seconds_per_request": cpu_seconds / sends.sent if sends.sent else 0.0,
        "send_lag_mean_seconds": sends.lag_total_ns / sends.sent / 1e9 if sends.sent else 0.0,
        "send_lag_max_seconds": sends.lag_max_ns / 1e9,
        "sent_late": sends.late,
        "not_sent": sends.not_sent,
        "held_back": sends.held_back,
    }
    saturation = _saturation(setting, client, sends)
    curve = list(zip(CURVE, whole.percentiles(CURVE), strict=True)) if whole.count else []
    if curve:
        curve.append((100.0, whole.max_seconds))
    notes = [COORDINATED_OMISSION] if setting.mode == "closed" else []
    if setting.mode == "sequences" and not setting.every_seconds:
        notes = [COORDINATED_OMISSION_OF_SEQUENCES]
    notes += said_of_sequences(sequences) if sequences else []
    notes += saturation
    notes += _holding_back(setting, sends)
    notes += _unsteadiness(recorder) if not interrupted else ["interrupted: what was measured until then"]
    if 0 < whole.count < 1000:
        notes.append("fewer than 1000 requests were answered, so the p99.9 is their maximum")
    names = list(PERCENTILES)
    latency: dict[str, float | None] = {
        name: _or_none(value) for name, value in zip(names, whole.percentiles(list(PERCENTILES.values())), strict=True)
    }
    latency["max"] = whole.max_seconds if whole.count else None
    latency["mean"] = whole.mean_seconds if whole.count else None
    return Result(
        setting=dataclasses.replace(setting, version=version),
        sent=sends.sent,
        succeeded=recorder.succeeded,
        throughput_per_second=sum(recorder.completed) / measured_seconds if measured_seconds else 0.0,
        latency_seconds=latency,
        errors=recorder.errors_by_name(code_names),
        error_messages={code_names[code]: message for code, message in recorder.messages.items()},
        server_seconds=server_seconds,
        client=client,
        saturated=bool(saturation),
        interrupted=interrupted,
        measured_seconds=measured_seconds,
        notes=notes,
        curve=curve,
        over_time=_over_time(recorder, measured_seconds),
        sequences=sequences,
    )


def said_of_sequences(counts: Mapping[str, Any]) -> list[str]:
    """What became of the sequences of a run, in words."""
    ended = [f"{counts['started']} were started, {counts['finished']} came to their end"]
    ended += [f"{counts['cut_short']} were ended early, by the end of the run"] if counts["cut_short"] else []
    notes = [f"sequences, warm-up included: {', '.join(ended)}"]
    for what, said in (
        ("resent", "messages sent again, with the same number"),
        ("given_up", "sequences given up after an error"),
    ):
        if counts[what]:
            notes.append(f"{said}: {', '.join(f'{count} after {code}' for code, count in counts[what].items())}")
    if counts["late_answers"]:
        notes.append(f"{counts['late_answers']} answers came after their message had been sent again")
    compared, wrong = counts["compared"], counts["wrong_continuations"]
    if counts["not_compared_because"]:
        notes.append(f"states not compared with those of a run without a break: {counts['not_compared_because']}")
    elif wrong:
        notes.append(
            f"wrong continuations: {wrong} of {compared} sequences ended in another state than a run without a break "
            f"(the furthest {counts['worst_distance']:.2g} away, {counts['tolerance']:g} allowed)"
        )
    else:
        notes.append(f"wrong continuations: none of {compared} (each ended in the state of a run without a break)")
    return notes


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _saturation(setting: Setting, client: Mapping[str, float], sends: Sends) -> list[str]:
    """Why the client, and not the server, may be what was measured."""
    notes = []
    if client["cpu_cores"] > BUSY_CORES:
        notes.append(
            f"client saturated: it used {client['cpu_cores']:.2f} cores, and Python sends with one; "
            "spread the load over several clients"
        )
    if sends.held_back and setting.mode != "sequences":
        return notes  # requests left late, or never, because of the bound
    if sends.not_sent and setting.mode != "sequences":
        notes.append(f"client saturated: {sends.not_sent} requests were due and never sent")
    if sends.late > LATE_SHARE * sends.sent:
        notes.append(
            f"client saturated: {sends.late} of {sends.sent} requests left more than {LATE_NS / 1e6:g} ms late, "
            f"at most {sends.lag_max_ns / 1e6:.1f} ms; that wait is in the latencies"
        )
    return notes


def _holding_back(setting: Setting, sends: Sends) -> list[str]:
    """What made requests wait that were due: the bound on those in flight, or the answer to the step before."""
    if not sends.held_back:
        return []
    if setting.mode == "sequences":
        return [
            f"held back: {sends.held_back} of {sends.sent} messages were due before the one before them was answered, and "
            f"{sends.not_sent} were due and never sent; how long they had to wait is in the latencies"
        ]
    return [
        f"held back: the server was --max-in-flight requests behind; {sends.not_sent} requests were due and never "
        "sent, and how long others had to wait is in the latencies"
    ]


def _unsteadiness(recorder: Recorder) -> list[str]:
    """Whether the thirds of the run tell different stories."""
    third = WINDOWS // 3
    parts = [slice(start, start + third) for start in range(0, WINDOWS, third)]
    completed = [sum(recorder.completed[part]) for part in parts]
    notes = []
    spread = max(completed) - min(completed)
    noise = 4 * math.sqrt(max(completed))
    if spread > max(_UNSTEADY_THROUGHPUT * max(completed), noise):
        rates = ", ".join(f"{count / third / recorder.window_seconds:.0f}" for count in completed)
        notes.append(
            f"unsteady: the thirds of the run had {rates} requests/s; run longer, or look for what disturbed it"
        )
    latencies = [Latencies().add(recorder.windows[part]) for part in parts]
    if min(part.count for part in latencies) >= _ENOUGH_FOR_P99:
        p99 = [part.percentiles([99.0])[0] for part in latencies]
        if max(p99) > _UNSTEADY_P99 * min(p99):
            values = ", ".join(f"{seconds * 1e3:.2f}" for seconds in p99)
            notes.append(f"unsteady: the thirds of the run had a p99 of {values} ms")
    return notes


def _over_time(recorder: Recorder, measured_seconds: float) -> list[Mapping[str, float | None]]:
    seconds = recorder.window_seconds
    windows = math.ceil(measured_seconds / seconds - 1e-6) if measured_seconds else 0
    series: list[Mapping[str, float | None]] = []
    for index in range(min(windows, WINDOWS)):
        latencies = recorder.windows[index]
        p50, p99 = latencies.percentiles([50.0, 99.0])
        series.append(
            {
                "second": index * seconds,
                "throughput_per_second": recorder.completed[index] / seconds,
                "p50": _or_none(p50),
                "p99": _or_none(p99),
                "max": latencies.max_seconds if latencies.count else None,
            }
        )
    return series
