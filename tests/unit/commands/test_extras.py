"""What is missing is told at once, with the one command that repairs it, and the tables of it are those of pyproject.toml."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import extras
from tests.support.commands import ROOT

PACKAGES = ("admin", "commands", "export", "loadtest", "lstm_serving", "models", "protos", "serving")
NEEDS = {
    extras.ARRAYS_ON_DISK,
    *extras.TRAINING,
    *extras.LOAD_TEST,
    *(need for each in (extras.FRAMEWORKS, extras.FORMATS) for needs in each.values() for need in needs),
}
COME_WITH_TENSORFLOW = {"keras", "h5py"}
IMPORTED_AS = {
    "grpcio": "grpc",
    "grpcio-health-checking": "grpc_health",
    "grpcio-reflection": "grpc_reflection",
    "protobuf": "google",
    "prometheus-client": "prometheus_client",
    "hdrhistogram": "hdrh",
    "tensorflow-cpu": "tensorflow",
}


def project() -> dict[str, object]:
    """The table `project` of pyproject.toml."""
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def imported(requirements: object) -> set[str]:
    """What requirements are imported as."""
    assert isinstance(requirements, list)
    names = {re.match(r"[\w-]+", each)[0] for each in requirements}  # type: ignore[index]
    return {IMPORTED_AS.get(name, name) for name in names}


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """As where these packages are not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in request.param else find(name))


@pytest.mark.parametrize(
    ("without", "needs", "sentence"),
    [
        ([], extras.TRAINING, ""),
        (
            ["matplotlib"],
            extras.TRAINING,
            "the package matplotlib is not installed: pip install 'lstm-serving[train]'",
        ),
        (
            ["tqdm", "hdrh"],
            extras.LOAD_TEST,
            "the packages hdrhistogram and tqdm are not installed: pip install 'lstm-serving[loadtest]'",
        ),
        (
            ["safetensors", "torch", "onnx", "onnxruntime"],
            (
                extras.ARRAYS_ON_DISK,
                *extras.FRAMEWORKS["torch"],
                *extras.FORMATS["onnx"],
                *extras.FORMATS["torchscript"],
            ),
            "the packages onnx, onnxruntime, safetensors and torch are not installed: "
            "pip install 'lstm-serving[onnx,torch,train]'",
        ),
    ],
    indirect=["without"],
)
def test_what_is_missing_is_one_sentence(without: None, needs: tuple[extras.Need, ...], sentence: str) -> None:
    assert extras.missing(needs) == sentence
    if sentence:
        with pytest.raises(extras.PackagesMissing) as raised:
            extras.require(needs)
        assert extras.told(raised.value) == sentence
    else:
        extras.require(needs)


def test_what_another_package_lacks_is_not_ours_to_name() -> None:
    error = ModuleNotFoundError("No module named 'ml_dtypes'", name="ml_dtypes")
    assert extras.told(error).startswith(
        "No module named 'ml_dtypes', which a package that is installed needs; pip check"
    )


def test_every_need_is_brought_by_its_extra() -> None:
    brought = project()["optional-dependencies"]
    assert isinstance(brought, dict)
    assert [(extra, name) for extra, name in NEEDS if name not in imported(brought[extra])] == []


def test_nothing_else_is_imported() -> None:
    """A package that no command asks for first would end in a traceback where it is missing."""
    known = {*PACKAGES, *sys.stdlib_module_names, *imported(project()["dependencies"]), *(name for _, name in NEEDS)}
    known |= COME_WITH_TENSORFLOW
    strays = [(str(path.relative_to(ROOT)), name) for path, name in imports() if name not in known]
    assert strays == []


def imports() -> Iterator[tuple[Path, str]]:
    """Every file of ours and every top-level name that it imports, wherever in the file."""
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield path, str(node.module).partition(".")[0]
