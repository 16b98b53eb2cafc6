"""The table that is printed: one line for each run, then what has to be said about them.

The server's own means stand beside the client's percentiles on purpose. Where they differ by much, the time went into
the network, the queues of HTTP/2, or the client.
"""

from __future__ import annotations

from collections.abc import Sequence

from commands.table import aligned
from loadtest.result import Result
from loadtest.target import STAGES

HEADINGS = ("load", "requests/s", "p50", "p90", "p95", "p99", "p99.9", "max", "errors")
SERVER_HEADINGS = ("queue", "decode", "compute", "encode")  # of STAGES
_LATENCIES = ("p50", "p90", "p95", "p99", "p999", "max")


def milliseconds(seconds: float | None) -> str:
    """Three significant digits of milliseconds, without a unit; a dash for None."""
    if seconds is None:
        return "-"
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def cells(result: Result, server: bool) -> list[str]:
    """One line of the table; `server` adds the server's own means."""
    errors = ", ".join(f"{count} {code}" for code, count in result.errors.items()) or "0"
    latencies = [milliseconds(result.latency_seconds[name]) for name in _LATENCIES]
    line = [result.setting.title, f"{result.throughput_per_second:.1f}", *latencies, errors]
    if server:
        means = result.server_seconds or {}
        line[-1:-1] = [milliseconds(means.get(stage)) for stage in STAGES]
    return line


def headings(server: bool) -> list[str]:
    """The head of the table; `server` as in `cells`."""
    shown = list(HEADINGS)
    if server:
        shown[-1:-1] = SERVER_HEADINGS
    return shown


def notes(results: Sequence[Result]) -> list[str]:
    """What has to be said, each sentence once; with its run if it does not hold for all."""
    found: dict[str, list[str]] = {}
    for result in results:
        said = [f"{code}: {message}" for code, message in result.error_messages.items()]
        for note in (*result.notes, *said):
            found.setdefault(note, []).append(result.setting.title)
    return [
        note if len(titles) == len(results) else f"{', '.join(dict.fromkeys(titles))}: {note}"
        for note, titles in found.items()
    ]


def has_server_times(results: Sequence[Result]) -> bool:
    """Whether any run knows the server's own means."""
    return any(result.server_seconds for result in results)


def legend(results: Sequence[Result]) -> list[str]:
    """What the table's figures are, and what one core of the client can drive at least, by the CPU that it used."""
    lines = ["latencies in ms"]
    if has_server_times(results):
        lines[0] += "; queue, decode, compute and encode are the server's own means (its ModelStatistics)"
    costs = [
        (result.client["cpu_seconds_per_request"], result.setting.title)
        for result in results
        if result.succeeded and not result.client["held_back"]
    ]
    cost_seconds, title = min(costs, default=(0.0, ""))
    if cost_seconds:
        drives = float(f"{1 / cost_seconds:.2g}")
        lines.append(
            f"client: {cost_seconds * 1e6:.0f} us of CPU a request ({title}), so one core of it drives at least "
            f"{drives:,.0f} requests/s"
        )
    return lines


def headline(result: Result) -> str:
    """What was tested, in one line."""
    setting = result.setting
    how = "closed loop" if setting.mode == "closed" else f"open loop, {setting.arrivals} arrivals"
    if setting.mode == "sequences":
        pace = (
            f"a message of each every {setting.every_seconds:g} s"
            if setting.every_seconds
            else "one message after the other"
        )
        most = f"at most {setting.steps} messages each" if setting.steps else "all messages of their data"
        how = f"sequences, {pace}, {most}, {setting.step_size} time step{'s' * (setting.step_size > 1)} a message"
    how += f", {setting.streams} stream{'s' * (setting.streams > 1)}" if setting.streams else ""
    rows = f"{setting.rows} row{'s' * (setting.rows > 1)} a request"
    version = f" version {setting.version}" if setting.version else ""
    return f"{setting.model}{version} on {setting.server}: {how}, {rows}, {setting.duration_seconds:g} s a run"


def render(results: Sequence[Result]) -> str:
    """The whole report as text; empty if there are no runs."""
    if not results:
        return ""
    server = has_server_times(results)
    lines = [headings(server), *(cells(result, server) for result in results)]
    figures = range(1, len(lines[0]) - 1)  # between the load and the errors
    text = [headline(results[0]), "", *aligned(lines, right=figures)]
    text += ["", *legend(results), *(f"* {note}" for note in notes(results))]
    return "\n".join(text) + "\n"
