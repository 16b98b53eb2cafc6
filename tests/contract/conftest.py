"""Warnings that come from below and cannot be acted on here, each with its reason."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    for name in ("script", "load"):  # torch.jit announces its deprecation on every call
        config.addinivalue_line("filterwarnings", f"ignore:`torch.jit.{name}` is deprecated:DeprecationWarning")
