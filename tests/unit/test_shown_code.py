"""The code that the pages show is code; the backend and the writer work as they stand there, and have what is asked of them."""

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
from serving.repository.model_config import parse
from tests.support import fake_models
from tests.support.commands import ROOT
from tests.support.pages import PAGES, blocks, name_of

PYTHON = [(page, block) for page in PAGES for block in blocks(page, "python")]


@pytest.mark.parametrize(("page", "block"), PYTHON, ids=[name_of(page) for page, _ in PYTHON])
def test_what_is_shown_as_python_is_python(page: Path, block: str) -> None:
    assert compile(block, name_of(page), "exec")


def test_the_configuration_of_two_versions_is_taken() -> None:
    canary, taken_back = (parse(block, "m") for block in blocks(ROOT / "docs/versions.md", "text"))
    assert (canary.routes.labels, canary.routes.canary_share) == ({"stable": 1, "canary": 2}, 0.05)
    assert (taken_back.routes.labels, taken_back.routes.canary_share) == ({"stable": 1}, 0)
    assert (canary.versions([1, 2]), taken_back.versions([1, 2])) == ([1, 2], [1])


def shown(page: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The one module on a page, executed."""
    (block,) = blocks(ROOT / "docs" / page, "python")
    module = ModuleType(page.removesuffix(".md").replace("-", "_"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(block, page, "exec"), module.__dict__)  # noqa: S102 - our own page
    return module


def members(contract: type) -> set[str]:
    """The names that a contract asks of a module."""
    return {name for name in {*inspect.get_annotations(contract), *vars(contract)} if not name.startswith("_")}


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
