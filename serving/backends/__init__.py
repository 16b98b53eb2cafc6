"""Inference backends. Adding one is adding a file here and an extra to pyproject.toml; nothing registers itself."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import cast

from serving.backends.base import BackendModule
from serving.errors import BackendUnavailable

# The order in which `auto` looks before anything is measured: ONNX Runtime, then the smallest start.
PREFERENCE = ("onnx_runtime", "torchscript", "saved_model")
NO_BACKENDS = {
    "base",
    "rows_first",
    "onnx_graph",
    "cudnn_weights",
}  # the contract, and what they have in common or beside them


def names() -> tuple[str, ...]:
    """Every backend of this folder, by file name, in a stable order."""
    found = {module.name for module in pkgutil.iter_modules(__path__)} - NO_BACKENDS
    return (*PREFERENCE, *sorted(found - set(PREFERENCE)))


def module(name: str) -> BackendModule:
    """The backend module called `name`. Raises `BackendUnavailable` with the known names otherwise."""
    if name not in names():
        raise BackendUnavailable(f"no backend is called {name!r}; known are {', '.join(names())}")
    return cast(BackendModule, importlib.import_module(f"{__name__}.{name}"))


def named(text: str) -> str | None:
    """Our name of a backend that is called by ours or by one of Triton's; None if there is none."""
    return next((name for name in names() if text in (name, *module(name).TRITON_NAMES)), None)


def brought_in(name: str) -> bool:
    """Whether the runtime of a backend is in this process, or it has none to bring in."""
    package = module(name).PACKAGE
    return not package or package in sys.modules
