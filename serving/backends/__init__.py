"""Inference backends. Adding one is adding a file here and an extra to pyproject.toml; nothing registers itself."""

from __future__ import annotations

import importlib
import pkgutil
from typing import cast

from serving.backends.base import BackendModule
from serving.errors import BackendUnavailable

# The order in which `auto` looks: what answers one row fastest comes first.
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
