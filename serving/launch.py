"""Starting a server as a child process and waiting until it can answer: for demos, benchmarks and tests.

It reads the server's own log (JSON lines on standard error) instead of polling ports, so it knows at once when the
server is ready, on which ports, or why it is not. Imports nothing heavy. Where lstm-serving is installed, a user's tests have
it as `lstm_serving.serving.launch`, so what it imports of ours is named from here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import StartupError

ROOT = Path(__file__).parents[1]  # the folder that holds our packages


class LaunchedServer:
    """An `lstm-serve` process of its own on free ports; a context manager that stops it.

    Waits until every model is loaded or refused. Raises `StartupError` with the server's own words if it ends before
    that, or is not through within `timeout_seconds`. `python` is the interpreter whose environment is used, and `packages`
    the folder with the server's code, of which nothing on `PYTHONPATH` or in the working directory takes the place.
    """

    def __init__(
        self,
        model_repository: Path,
        *flags: str,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
        packages: Path = ROOT,
        timeout_seconds: float = 120.0,
    ) -> None:
        ports = [] if "--grpc-port" in flags else ["--grpc-port", "0"]
        ports += [] if "--metrics-port" in flags else ["--metrics-port", "0"]
        command = [python, "-P", "-m", "serving", "--model-repository", str(model_repository), "--log-format", "json"]
        variables = dict(environment or os.environ)
        variables["PYTHONPATH"] = os.pathsep.join([str(packages), *filter(None, [variables.get("PYTHONPATH")])])
        self.process = subprocess.Popen([*command, *ports, *flags], stderr=subprocess.PIPE, text=True, env=variables)
        self._log: list[dict[str, Any]] = []
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._started = self.wait_for("serving", timeout_seconds)
            self.wait_for("ready", timeout_seconds, "not ready")
        except StartupError:
            self._clean_up()
            raise

    @property
    def address(self) -> str:
        """HOST:PORT of the gRPC service."""
        return f"{self._started['host']}:{self._started['grpc_port']}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus would scrape it."""
        return f"http://{self._started['host']}:{self._started['metrics_port']}/metrics"

    def metrics(self) -> str:
        """What Prometheus would read now."""
        with urllib.request.urlopen(self.metrics_url, timeout=10) as answer:  # noqa: S310 - our own child's address
            text: str = answer.read().decode()
            return text

    def log(self) -> Sequence[Mapping[str, Any]]:
        """The server's log records so far."""
        with self._changed:
            return list(self._log)

    def wait_for(self, message: str, timeout_seconds: float, *others: str) -> Mapping[str, Any]:
        """The first log record whose message begins with one of these; raises `StartupError` if none comes."""

        def found() -> Mapping[str, Any] | None:
            return next((entry for entry in self._log if entry["message"].startswith((message, *others))), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, timeout_seconds)
            entry = found()
            said = "\n".join(line["message"] for line in self._log[-20:])
        if entry is None:
            how = f"has ended with {self.process.wait()}" if self._ended else f"took more than {timeout_seconds:g} s"
            raise StartupError(f"the server {how} before it said {message!r}; its last words:\n{said}")
        return entry

    def stop(self, timeout_seconds: float = 60.0) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(timeout_seconds)
        finally:
            self._clean_up()

    def __enter__(self) -> LaunchedServer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()
        self._clean_up()

    def _clean_up(self) -> None:
        """Nothing of the process stays behind, whatever state it was in."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            try:
                entry = json.loads(line)
                known = isinstance(entry, dict) and "message" in entry
            except ValueError:
                known = False
            with self._changed:
                self._log.append(entry if known else {"message": line.rstrip()})
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
