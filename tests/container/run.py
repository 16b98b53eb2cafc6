"""`make image-test`: builds the image, runs it as locked down as an orchestrator would, asks it from outside, stops it.

    python3 tests/container/run.py [REPOSITORY] --client-python .envs/client/bin/python

Needs neither a Docker daemon nor a registry. Takes nothing for granted that an image can get wrong: who it runs as,
what it may write, whether it hears SIGTERM. The image stays, so that the next build is quick; the container does not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

import image
from image import Failed, run

NAME = f"lstm-serving-image-test-{os.getpid()}"
HEALTHY_WITHIN_SECONDS = 60
GRACE_SECONDS = 35  # somewhat more than lstm-serve's own --exit-timeout-seconds
MODE = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges",
        "--memory=512m", "--cpus=1", "--pids-limit=1024")  # fmt: skip
# podman as root in a plain container or virtual machine: no systemd to ask, whatever cgroups there are.
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
# Run inside, as root without capabilities: if root cannot write, nobody can.
TRY_TO_WRITE = """
import errno
for path in ("/written", "/models/written", "/opt/lstm-serving/written", "/tmp/written"):
    try:
        open(path, "w")
    except OSError as error:
        assert error.errno in (errno.EROFS, errno.ENOENT), (path, error)
    else:
        raise SystemExit(f"{path} can be written")
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the image, run it, ask it, stop it.")
    parser.add_argument("repository", nargs="?", type=Path, default=Path("model_repository"))
    parser.add_argument("--client-python", required=True, help="interpreter of an environment with tritonclient")
    asked = parser.parse_args()
    try:
        image.check_tools(("buildah", "podman", "runc", "iptables"))
        if not any(asked.repository.glob("*/*/golden.npz")):
            raise Failed(f"{asked.repository} holds no model; `make demo` makes some")
        with tempfile.TemporaryDirectory() as folder:
            configuration = Path(folder) / "containers.conf"
            configuration.write_text(CONTAINERS_CONF)
            os.environ["CONTAINERS_CONF"] = str(configuration)
            base = image.base_image()
            image.build(base, Path(folder))
            image.check_nothing_leaked()
            print(f"built {image.IMAGE} on {base}: {_megabytes(image.IMAGE)} MB, {_megabytes(base)} MB of it the base")
            with Container(asked.repository.resolve()) as container:
                container.start()
                print(f"healthy; ready {container.startup_seconds():.2f} s after the start of the container")
                container.check_confinement()
                print(container.predict(asked.client_python), end="")
                container.check_metrics()
                container.stop()
                print("stopped by SIGTERM with exit code 0")
    except Failed as error:
        print(f"image-test: {error}", file=sys.stderr)
        return 1
    return 0


class Container:
    """The image in a container; a context manager that leaves nothing behind."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository

    def __enter__(self) -> Container:
        run(
            "podman", "create", "--name", NAME, *MODE, "--volume", f"{self._repository}:/models:ro",
            "--publish", "127.0.0.1::8001", "--publish", "127.0.0.1::8002", "--env", "LSTM_SERVE_LOG_FORMAT=json",
            image.IMAGE, what="making the container",
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        run("podman", "rm", "--force", "--time", "0", NAME, what="removing the container")

    def start(self) -> None:
        """Starts it and waits until it is healthy, by asking the image's own health check until it agrees.

        Asking takes its time, so there is no need to sleep.
        """
        run("podman", "start", NAME, what="starting the container")
        until = time.monotonic() + HEALTHY_WITHIN_SECONDS
        while not _healthy():
            if self._state()["Status"] != "running" or time.monotonic() > until:
                raise Failed(f"the container did not become healthy; its log:\n{self._log()}")

    def startup_seconds(self) -> float:
        """From the start of the container to the server's own word that it is ready."""
        records = [json.loads(line) for line in self._log().splitlines() if line.startswith("{")]
        ready = next(record["time"] for record in records if record["message"] == "ready")
        started = re.sub(r"(\.\d{6})\d*", r"\1", self._state()["StartedAt"])  # Python reads microseconds, no less
        return (datetime.fromisoformat(ready) - datetime.fromisoformat(started)).total_seconds()

    def check_confinement(self) -> None:
        """Process 1 is the server itself, nobody in particular, without capabilities, and nothing can be written."""
        told = run("podman", "exec", NAME, "cat", "/proc/1/status", what="asking for the state of process 1")
        status = dict(line.split(":\t", 1) for line in told.splitlines() if ":\t" in line)
        wanted = {"Name": "lstm-serve", "Uid": "65532", "Gid": "65532", "NoNewPrivs": "1", "Seccomp": "2"}
        wanted |= dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16)
        found = {name: status[name].split()[-1] for name in wanted}
        if found != wanted:
            raise Failed(f"process 1 runs as {found} instead of {wanted}")
        run("podman", "exec", "--user=0", NAME, "python", "-c", TRY_TO_WRITE, what="trying to write")

    def predict(self, client_python: str) -> str:
        """Asks from outside with the unmodified client; returns what it has to say."""
        client = Path(__file__).with_name("predict.py")
        return run(client_python, client, self._address(8001), self._repository, what="predicting")

    def check_metrics(self) -> None:
        """The predictions have been counted."""
        with urllib.request.urlopen(f"http://{self._address(8002)}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        if not any(re.match(r'lstm_serving_requests_total\{.*outcome="success".*\} [1-9]', line) for line in lines):
            raise Failed("the metrics count no successful request")

    def stop(self) -> None:
        """SIGTERM; the server leaves by itself, in time."""
        run("podman", "stop", "--time", str(GRACE_SECONDS), NAME, what="stopping the container")
        code = self._state()["ExitCode"]
        if code:
            raise Failed(f"the container ended with {code} instead of 0; its log:\n{self._log()}")

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(
            run("podman", "inspect", "--format={{json .State}}", NAME, what="inspecting")
        )
        return state

    def _log(self) -> str:
        done = subprocess.run(["podman", "logs", NAME], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
        return done.stdout.decode()

    def _address(self, port: int) -> str:
        return run("podman", "port", NAME, f"{port}/tcp", what="asking for the port").strip()


def _healthy() -> bool:
    return subprocess.run(["podman", "healthcheck", "run", NAME], capture_output=True, check=False).returncode == 0


def _megabytes(name: str) -> int:
    size = run("podman", "image", "inspect", "--format={{.Size}}", name, what="asking for the size")
    return round(int(size) / 1e6)


if __name__ == "__main__":
    sys.exit(main())
