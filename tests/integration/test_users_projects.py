"""A user's project whose packages are called as ours are, exported from and served, from a checkout and from a wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from commands.version import VERSION
from lstm_serving.__main__ import COMMANDS
from serving.signature.spec import ModelSpec
from tests.support import user_projects, wheels
from tests.support.commands import ROOT

EXPORT = ("module", "models.net:build", "--input", "x:FP32[-1,-1,8]", "--format", "all", "--name", "m")
# Run by the interpreter of an environment with the wheel: the server measures its backends in children of its own.
SERVE = """
import sys
from pathlib import Path
from lstm_serving.serving.launch import LaunchedServer
with LaunchedServer(Path(sys.argv[1]), "--backend", "auto") as server:
    assert any(entry["message"] == "ready" for entry in server.log()), server.log()
    assert server.wait_for("measured", 120)["model"] == "m"
    assert 'model="m"' in server.metrics()
    assert server.stop() == 0
"""


def run(command: Sequence[str | Path], folder: Path, variables: Mapping[str, str], *, says: bool = False) -> str:
    """What a command says that must succeed; unless it `says` so, it must have nothing to say beside its answer."""
    done = subprocess.run(
        command, cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=300
    )
    # Where it takes longer than two seconds, it says what it is doing.
    said = "".join(line for line in done.stderr.splitlines(True) if not re.match(r"lstm-export: \d+ s: ", line))
    assert (done.returncode, said if not says else "") == (0, ""), done.stderr
    return done.stdout


def check_exported(said: str, repository: Path) -> None:
    """The layer that differs in training is in both files; what the user's code prints is nowhere."""
    assert said.startswith("a module of its own: its own signature, since it has a BatchNorm1d beside LSTM")
    assert "user's" not in said
    assert "\n  input  x               FP32 [-1, -1, 8]\n  output y               FP32 [-1, 3]\n" in said
    assert ModelSpec.read(repository / "m" / "1" / "spec.json").batched
    assert {path.name for path in (repository / "m" / "1").iterdir()} >= {"model.onnx", "model.pt"}


kinds = pytest.mark.parametrize(
    "marked", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["packages", "namespaces"]
)


@kinds
def test_from_a_checkout(marked: bool, tmp_path: Path) -> None:
    """With the user's folder and ours on PYTHONPATH, in the user's folder, as an editable install has it.

    That every command takes ours before namespaces too is shown without a network in `tests/unit/lstm_serving/test_main.py`.
    """
    user_projects.packages(tmp_path / "project", marked=marked)
    path = os.pathsep.join([str(tmp_path / "project"), str(ROOT)])
    command = [sys.executable, "-m", "lstm_serving", "export", *EXPORT, "--repository", str(tmp_path / "r")]
    check_exported(run(command, tmp_path / "project", {"PYTHONPATH": path}), tmp_path / "r")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with the wheel, and with the libraries of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = wheels.build("wheel", folder)
    run([sys.executable, "-m", "venv", "--without-pip", folder / "environment"], folder, {})
    python = folder / "environment" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python]
    run([*pip, "install", "--no-deps", "--no-index", wheel], folder, {}, says=True)
    (packages,) = (folder / "environment").glob("lib/python3.*/site-packages")
    # Of a folder that is named so the .pth files are not read, so that this checkout is not found by way of it.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent


@kinds
def test_from_a_wheel(marked: bool, installed: Path, tmp_path: Path) -> None:
    """The user's packages are on PYTHONPATH, where they raise when one of ours is looked for there, and then are the user's."""
    user_projects.broken_packages(tmp_path / "broken", marked=marked)
    broken = {"PYTHONPATH": str(tmp_path / "broken")}
    for command in COMMANDS:
        assert f"usage: lstm-{command}" in run([installed / f"lstm-{command}", "--help"], tmp_path / "broken", broken)
        called = [installed / "python", "-m", "lstm_serving", command, "--version"]
        assert run(called, tmp_path, broken) == f"lstm-{command} {VERSION}\n"
    user_projects.packages(tmp_path / "project", marked=marked)
    arguments = [*EXPORT, "--repository", str(tmp_path / "r")]
    said = run([installed / "lstm-export", *arguments], tmp_path, {"PYTHONPATH": str(tmp_path / "project")})
    check_exported(said, tmp_path / "r")
    run([installed / "python", "-c", SERVE, str(tmp_path / "r")], tmp_path, broken)
