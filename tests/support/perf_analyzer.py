"""perf_analyzer against a server of ours."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from serving.launch import LaunchedServer
from tests.support.wire import RawClient

SECONDS = 60  # none of our runs takes 15
TRIES = 5


@dataclass(frozen=True)
class Driven:
    """`InferStatistics` of the model before and after the run."""

    before: Any
    after: Any

    @property
    def succeeded(self) -> int:
        """Requests."""
        return int(self.after.success.count - self.before.success.count)

    @property
    def failed(self) -> int:
        """Requests."""
        return int(self.after.fail.count - self.before.fail.count)


def drive(
    perf_analyzer: list[str], server: LaunchedServer, model: str, *flags: str, profile: Path | None = None
) -> Driven:
    """Runs perf_analyzer to its end and holds it to have seen no error; `profile` gets all that it has sent.

    Release 2.50 does not always exit after its last answer. It is started again then, provided that the server owes it nothing.
    """
    command = [*perf_analyzer, "-m", model, "-i", "grpc", "-u", server.address, *flags]
    if profile:
        command += ["--profile-export-file", str(profile)]
    with RawClient(server.address) as client:
        for _ in range(TRIES):
            before = _statistics(client, model)
            if profile:
                profile.unlink(missing_ok=True)  # it writes over nothing
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
            except subprocess.TimeoutExpired as hung:
                if owed := _in_flight(server):
                    raise AssertionError(f"{owed} requests have no answer after {SECONDS} s: {hung.stdout}") from hung
                print(f"perf_analyzer did not exit though all was answered: {hung.stdout}", file=sys.stderr)
                continue
            assert done.returncode == 0, done.stdout + done.stderr
            assert "error" not in done.stderr.lower(), done.stderr
            return Driven(before, _statistics(client, model))
    raise AssertionError(f"perf_analyzer did not exit in {TRIES} tries: {' '.join(command)}")


def _statistics(client: RawClient, model: str) -> Any:
    return client.call("ModelStatistics", name=model).model_stats[0].inference_stats


def _in_flight(server: LaunchedServer) -> int:
    families = text_string_to_metric_families(server.metrics())
    (gauge,) = [family for family in families if family.name == "lstm_serving_requests_in_flight"]
    return int(sum(sample.value for sample in gauge.samples))
