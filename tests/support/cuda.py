"""The GPU of the tests of CUDA."""

from __future__ import annotations

import pytest

from serving import backends
from serving.errors import BackendUnavailable

DEVICE = "cuda:0"


def usable(backend: str) -> str:
    """`backend`, if it can use the GPU here; else the test is skipped with the backend's own sentence."""
    try:
        backends.module(backend).available(DEVICE)
    except BackendUnavailable as error:
        pytest.skip(f"{backend}: {error}")
    return backend
