"""Every command begins with our own packages, whatever else is called as they are."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lstm_serving.__main__ as start
from commands.version import VERSION
from lstm_serving.__main__ import COMMANDS, root_of
from tests.support.commands import ROOT
from tests.support.user_projects import PACKAGES, broken_packages


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("marked", [True, False], ids=["packages", "namespaces"])
def test_a_command_takes_no_package_of_the_users_for_ours(name: str, marked: bool, tmp_path: Path) -> None:
    """The user's are in PYTHONPATH and in the working directory, and raise when they are imported."""
    broken_packages(tmp_path, marked=marked)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", "lstm_serving", name, "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_its_version(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lstm_serving", name, "--version"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"lstm-{name} {VERSION}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_heavy(name: str) -> None:
    heavy = {"torch", "tensorflow", "keras", "onnx", "onnxruntime", "matplotlib"}
    program = (
        f"import atexit, sys; from lstm_serving.__main__ import run; sys.argv[1:] = ['--help']; "
        f"atexit.register(lambda: print({heavy} & set(sys.modules), file=sys.stderr)); run({name!r})"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "set()\n")


def test_every_command_can_be_called_by_its_own_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {f"lstm-{name}": f"lstm_serving.__main__:{name}" for name in COMMANDS}
    assert all(callable(getattr(start, name)) for name in COMMANDS)


def test_help_names_the_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lstm_serving", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert all(name in done.stdout for name in COMMANDS)


def test_another_command_is_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lstm_serving", "trian"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "name one of train, export, serve, admin, loadtest, healthcheck" in done.stderr


def test_where_our_packages_are(tmp_path: Path) -> None:
    """Inside the folder where it is installed, beside it in a checkout."""
    installed, checkout = tmp_path / "site-packages" / "lstm_serving", tmp_path / "checkout" / "lstm_serving"
    (installed / "serving").mkdir(parents=True)
    checkout.mkdir(parents=True)
    assert root_of(installed) == installed
    assert root_of(checkout) == tmp_path / "checkout"


def test_the_wheel_holds_every_package_under_one_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    here = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert set(wheel["only-include"]) == here
    assert wheel["sources"] == {name: f"lstm_serving/{name}" for name in here - {"lstm_serving"}}
    assert set(PACKAGES) & here  # what the projects of tests are made of are names of ours
