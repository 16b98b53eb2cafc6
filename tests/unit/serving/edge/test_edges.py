"""Which edge a server has, and what is said where it is not the one that it could be."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata

import pytest

from serving.edge import edges
from serving.edge.edges import AUTO, GRPCIO, NGHTTP2, Chosen, choose
from serving.errors import StartupError

VERSIONS = {"grpcio": "1.85.1", "ngh2": "0.3.7"}
MISSING = "ngh2 is not installed"
UNTESTED = "ngh2 0.4.0 is installed, which was not tested with this server"


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """These versions are installed; None is missing."""
    known = VERSIONS | versions

    def version(name: str) -> str:
        if known[name] is None:
            raise metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(edges.metadata, "version", version)


@pytest.mark.parametrize(
    ("asked", "ngh2", "chosen"),
    [
        (AUTO, "0.3.7", Chosen(NGHTTP2, "0.3.7")),
        (AUTO, "0.3.0", Chosen(NGHTTP2, "0.3.0")),
        (AUTO, None, Chosen(GRPCIO, "1.85.1", MISSING)),
        (AUTO, "0.4.0", Chosen(GRPCIO, "1.85.1", UNTESTED)),
        (AUTO, "0.30.0", Chosen(GRPCIO, "1.85.1", UNTESTED.replace("0.4.0", "0.30.0"))),
        (NGHTTP2, "0.3.7", Chosen(NGHTTP2, "0.3.7")),
        (GRPCIO, "0.3.7", Chosen(GRPCIO, "1.85.1")),
        (GRPCIO, None, Chosen(GRPCIO, "1.85.1")),
    ],
)
def test_what_is_chosen_and_why_it_is_not_the_other(
    asked: str, ngh2: str | None, chosen: Chosen, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, ngh2=ngh2)
    assert choose(asked) == chosen


@pytest.mark.parametrize(("ngh2", "why"), [(None, MISSING), ("0.4.0", UNTESTED)])
def test_what_was_asked_for_and_is_not_there_is_an_error_that_says_what_to_do(
    ngh2: str | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, ngh2=ngh2)
    with pytest.raises(StartupError) as told:
        choose(NGHTTP2)
    assert str(told.value) == f"--edge nghttp2: {why}; install 'ngh2==0.3.*', or use --edge grpcio"


def test_the_version_that_is_installed_here_was_tested() -> None:
    assert choose(AUTO) == Chosen(NGHTTP2, metadata.version("ngh2"))


def test_one_that_cannot_be_loaded_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it was built for another C library."""
    installed(monkeypatch)

    def fails(name: str) -> None:
        raise ImportError(f"{name}: libm.so.6: version not found")

    monkeypatch.setattr(edges.importlib, "import_module", fails)
    problem = "ngh2 is installed and cannot be loaded: ngh2: libm.so.6: version not found"
    assert choose(AUTO) == Chosen(GRPCIO, "1.85.1", problem)
    with pytest.raises(StartupError, match="cannot be loaded"):
        choose(NGHTTP2)


def test_a_server_on_nghttp2_does_without_grpcio() -> None:
    code = "import sys, serving.server, serving.edge.nghttp2_server; sys.exit('grpc' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
