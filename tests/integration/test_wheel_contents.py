"""What a wheel brings: our packages under one name, the licences, and nothing that is for development."""

from __future__ import annotations

import email
import email.message
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from commands.version import VERSION
from tests.support import wheels
from tests.support.commands import ROOT

INFO = f"lstm_serving-{VERSION}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    """Every file of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"{INFO}/METADATA"))


def test_it_occupies_one_name(names: set[str]) -> None:
    assert {name.partition("/")[0] for name in names} == {"lstm_serving", INFO}


def test_it_holds_what_runs_and_nothing_else(names: set[str]) -> None:
    inside = {name.removeprefix("lstm_serving/").partition("/")[0] for name in names if not name.startswith(INFO)}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"lstm_serving"}
    assert inside == packages | {"__init__.py", "__main__.py"}
    assert {Path(name).suffix for name in names if not name.startswith(INFO)} == {
        ".py",
        ".pyi",
        ".proto",
        ".ts",  # the demonstrations' data, with where they come from
        ".csv",
        ".md",
    }


def test_it_carries_the_licences(names: set[str], metadata: email.message.Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0 AND CC-BY-4.0"
    assert {f"{INFO}/licenses/LICENSE", f"{INFO}/licenses/models/data/README.md"} <= names


def test_it_says_which_pythons(metadata: email.message.Message) -> None:
    told = " ".join(metadata.get_all("Classifier", []))
    assert re.findall(r"Python :: (3\.\d+)", told) == ["3.11", "3.12", "3.13"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert (metadata["Version"], metadata["Description-Content-Type"]) == (VERSION, "text/markdown")


def test_a_source_archive_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(wheels.build("sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    again = wheels.build("wheel", tmp_path / "wheel", tmp_path / f"lstm_serving-{VERSION}")
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()
