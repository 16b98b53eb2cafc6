"""`make wheel-test`: a wheel in environments of its own, in every Python that is here, and used as who has nothing else would.

Every command runs in the folder of a project whose packages are called as ours are and raise when they are imported, far
from this checkout. The libraries come from where pip takes them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands.version import VERSION
from lstm_serving.__main__ import COMMANDS
from tests.support import real_model, user_projects, wheels
from tests.support.wire import RawClient, pb

DECLARED = ("3.11", "3.12", "3.13")
START_SECONDS = 120  # after which a server that has not begun is ended, and the test fails


def interpreters() -> dict[str, str]:
    """By version: the one that runs the tests, those of PATH, and those that the variable PYTHONS names (blanks between)."""
    found: dict[str, str] = {}
    folders = os.environ["PATH"].split(os.pathsep)
    on_path = [shutil.which(f"python{version}", path=folder) for version in DECLARED for folder in folders]
    for python in (sys.executable, *os.environ.get("PYTHONS", "").split(), *filter(None, on_path)):
        ask = [python, "-c", "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(ask, capture_output=True, text=True, check=False)
        if done.returncode == 0:  # a name on PATH may be there for a Python that is not
            found.setdefault(done.stdout.strip(), python)
    return found


class Installed:
    """An environment with the wheel and its extra `onnx`."""

    def __init__(self, python: str, wheel: Path, folder: Path) -> None:
        self._wheel = wheel
        self.folder = folder
        self.project = folder / "project"
        user_projects.broken_packages(self.project, marked=True)
        self._run([python, "-m", "venv", folder / "environment"])
        self.install("onnx")

    def install(self, extras: str) -> None:
        """The wheel with these extras."""
        self._run(
            [self.program("pip"), "--quiet", "--disable-pip-version-check", "install", f"{self._wheel}[{extras}]"]
        )

    def program(self, name: str) -> Path:
        return self.folder / "environment" / "bin" / name

    def run(self, name: str, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command of the environment in the user's project."""
        return subprocess.run(
            [self.program(name), *arguments], cwd=self.project, env=self.environment(**variables), text=True,
            capture_output=True, check=False, timeout=120,
        )  # fmt: skip

    def environment(self, **variables: str) -> dict[str, str]:
        """Variables of a process that finds the user's packages before all others, but for its own."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LSTM_", "PYTHON"))}
        return {**kept, "PYTHONPATH": str(self.project), **variables}

    def _run(self, command: list[str | Path]) -> None:
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


class Served:
    """`lstm-serve` of the environment with one ONNX model; a context manager that stops it."""

    def __init__(self, installed: Installed, repository: Path) -> None:
        ports = ("--grpc-port", "0", "--metrics-port", "0", "--log-format", "json")
        self._process = subprocess.Popen(
            [installed.program("lstm-serve"), "--model-repository", repository, *ports],
            cwd=installed.project, env=installed.environment(), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        late = threading.Timer(START_SECONDS, self._process.kill)
        late.start()
        try:
            self.version = str((started := self._logged("serving"))["version"])
            self.port = str(started["grpc_port"])
            self._logged("ready")
        finally:
            late.cancel()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self._process.terminate()
        self._process.communicate(timeout=60)
        return self._process.returncode

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _logged(self, message: str) -> dict[str, Any]:
        assert self._process.stderr
        said = []
        for line in self._process.stderr:
            said.append(line)
            if line.startswith("{") and (entry := json.loads(line))["message"] == message:
                found: dict[str, Any] = entry
                return found
        raise AssertionError(f"the server has ended before it said {message!r}:\n{''.join(said)}")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module", params=interpreters().values(), ids=interpreters())
def installed(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("installed")
    yield Installed(request.param, wheel, folder)
    shutil.rmtree(folder)


def test_it_is_all_under_one_name(installed: Installed) -> None:
    (site,) = (installed.folder / "environment").glob("lib/python3.*/site-packages")
    ours = {path.name for path in site.iterdir() if path.name.startswith("lstm_serving")}
    assert ours == {"lstm_serving", f"lstm_serving-{VERSION}.dist-info"}
    assert not {path.name for path in site.iterdir()} & {*user_projects.PACKAGES, "tests", "benchmarks", "examples"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(name: str, installed: Installed) -> None:
    help_text, version = installed.run(f"lstm-{name}", "--help"), installed.run(f"lstm-{name}", "--version")
    assert (help_text.returncode, help_text.stderr) == (0, "")
    assert help_text.stdout.startswith(f"usage: lstm-{name} ")
    assert (version.returncode, version.stdout, version.stderr) == (0, f"lstm-{name} {VERSION}\n", "")


def test_it_serves_answers_and_is_load_tested(installed: Installed, tmp_path: Path) -> None:
    """What the load test lacks at first is installed by the very command that it names, but for where the wheel is."""
    version, inputs, expected = real_model.write(tmp_path / "models", ["onnx_runtime"])
    report = tmp_path / "report.json"
    with Served(installed, tmp_path / "models") as server:
        assert server.version == VERSION
        healthy = installed.run("lstm-healthcheck", LSTM_SERVE_GRPC_PORT=server.port)
        assert (healthy.returncode, healthy.stdout) == (0, "SERVING\n"), healthy.stderr
        with RawClient(f"127.0.0.1:{server.port}") as client:
            answer = client.method("ModelInfer")(request(version.parent.name, inputs), timeout=30)
        y = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(answer.outputs[0].shape)
        np.testing.assert_allclose(y, expected, atol=1e-5)
        index = installed.run("lstm-admin", "--url", f"127.0.0.1:{server.port}", "index")
        assert (index.returncode, index.stderr) == (0, "")
        assert "onnx_runtime" in index.stdout
        flags = ("--url", f"127.0.0.1:{server.port}", "--model", "real", "--concurrency", "2", "--json", report)
        lacking = installed.run("lstm-loadtest", *flags)
        assert lacking.returncode == 1
        remedy = re.fullmatch(r"lstm-loadtest: .* not installed: pip install 'lstm-serving\[(.+)\]'\n", lacking.stderr)
        assert remedy, lacking.stderr
        installed.install(remedy[1])
        loaded = installed.run("lstm-loadtest", *flags, "--duration", "1", "--warm-up", "0.2")
        assert loaded.returncode == 0, loaded.stderr
        assert server.stop() == 0
    (run,) = json.loads(report.read_text())["runs"]
    assert run["succeeded"] > 0
    assert run["failed"] == 0


def request(model: str, inputs: dict[str, Any]) -> pb.ModelInferRequest:
    """All inputs of a model, for its output `y`."""
    made = pb.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        datatype = "FP32" if array.dtype == np.float32 else "INT64"
        made.inputs.add(name=name, datatype=datatype, shape=array.shape)
        made.raw_input_contents.append(np.ascontiguousarray(array).tobytes())
    made.outputs.add(name="y")
    return made


@pytest.mark.parametrize(
    ("command", "packages", "extras"),
    [
        (
            ("lstm-train", "vowels", "--framework", "torch", "--out", "run"),
            ("matplotlib", "safetensors", "torch"),
            "torch,train",
        ),
        (
            ("lstm-export", "keras", "net.keras", "--format", "all", "--name", "m"),
            ("tensorflow",),
            "tensorflow",
        ),
        (
            ("lstm-export", "module", "net:build", "--input", "x:FP32[3]", "--format", "all", "--name", "m"),
            ("torch",),
            "torch",
        ),
    ],
    ids=["train", "keras", "module"],
)
def test_what_is_not_installed_is_named(
    command: tuple[str, ...], packages: tuple[str, ...], extras: str, installed: Installed
) -> None:
    refused = installed.run(*command)
    assert refused.returncode in (1, 2)
    assert refused.stdout == ""
    said = re.fullmatch(
        r"(.+): the packages? (.+) (?:is|are) not installed: pip install 'lstm-serving\[(.+)\]'\n", refused.stderr
    )
    assert said, refused.stderr
    assert (said[1], said[3]) == (command[0], extras)
    assert set(packages) <= set(re.split(", | and ", said[2]))
