"""What the interop tests share: real models trained on real data, and the environments of programs that are not ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import ROOT
from tests.support.trained import MODELS, Trained


@pytest.fixture(scope="session")
def vowels(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trains and exports as a user would, by the commands (half a minute)."""
    folder = tmp_path_factory.mktemp("vowels")
    runs = {}
    for model in MODELS:
        framework = model.removeprefix("vowels_")
        runs[model] = folder / framework
        _command("models", "vowels", "--framework", framework, "--out", str(runs[model]))
        _command(
            "export", "checkpoint", str(runs[model]), "--format", "all", "--repository", str(folder / "repository"),
            "--name", model,
        )  # fmt: skip
    return Trained(folder / "repository", runs)


@pytest.fixture(scope="session")
def client_python() -> str:
    """The interpreter of an environment that holds `tritonclient` and nothing of ours."""
    return _made(ROOT / ".envs/client/bin/python")


@pytest.fixture(scope="session")
def onnx_only_python() -> str:
    """The interpreter of an environment with `lstm-serving[onnx]` alone."""
    return _made(ROOT / ".envs/onnx/bin/python")


@pytest.fixture(scope="session")
def perf_analyzer() -> list[str]:
    """The command that runs perf_analyzer."""
    if not any(Path(folder, "libb64.so.0d").exists() for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib")):
        pytest.skip("perf_analyzer needs a Debian package: apt-get install libb64-0d")
    return [
        "sh",
        str(ROOT / "benchmarks/perf_analyzer.sh"),
        "run",
        str(Path(_made(ROOT / ".envs/perf/perf_analyzer")).parent),
    ]


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own checker."""
    found = shutil.which("promtool")
    if not found:
        pytest.skip("promtool is a Debian package: apt-get install --no-install-recommends prometheus")
    return found


def _made(path: Path) -> str:
    assert path.exists(), f"{path} is missing; `make test` makes it"
    return str(path)


def _command(module: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{module} {' '.join(arguments)} failed:\n{done.stderr}"
