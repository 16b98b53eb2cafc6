"""The backend and the writer that the pages show work as they stand there, and have all that the contracts ask for."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from export.errors import ExportError
from export.formats import Writer
from models.config import LSTMConfig
from serving.backends.base import BackendModule, Options
from serving.errors import BackendUnavailable, RepositoryError
from tests.support import fake_models
from tests.support.commands import ROOT
from tests.support.pages import blocks


def shown(page: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The one module on a page, executed."""
    (block,) = blocks(ROOT / "docs" / page, "python")
    module = ModuleType(page.removesuffix(".md").replace("-", "_"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(block, page, "exec"), module.__dict__)  # noqa: S102 - our own page
    return module


def asked_for(contract: type) -> set[str]:
    """The names that a contract has."""
    return {*inspect.get_annotations(contract), *vars(contract)} - set(dir(object)) - {"__annotations__"}


def members(contract: type) -> set[str]:
    """The names that a contract asks of a module."""
    return {name for name in asked_for(contract) if not name.startswith("_")}


def test_the_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = shown("write-a-backend.md", monkeypatch)
    assert members(BackendModule) <= set(vars(backend))
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.savez(tmp_path / backend.FILE_NAME, weight=weight)
    loaded = backend.load(tmp_path / backend.FILE_NAME, fake_models.spec(), "cpu", Options())
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    assert np.array_equal(loaded.run({"x": x}, ["y"])["y"], x[:, -1] @ weight)
    with pytest.raises(BackendUnavailable):
        backend.available("cuda:0")
    with pytest.raises(RepositoryError, match="holds no weight"):
        backend.load(tmp_path / "nothing.npz", fake_models.spec(), "cpu", Options())


def test_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = shown("write-an-exporter.md", monkeypatch)
    assert {"BACKEND", *members(Writer)} <= set(vars(writer))
    weights = {"head.weight": np.ones((2, 3), np.float32)}
    config = LSTMConfig(features=3, hidden=3, outputs=2)
    writer.write(config, weights, tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as file:
        assert np.array_equal(file["head.weight"], weights["head.weight"])
    with pytest.raises(ExportError, match="--precision"):
        writer.write(config, weights, tmp_path / "model.npz", {"head.weight": object()})
