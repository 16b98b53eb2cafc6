"""What the CUDA tests share. They are no part of the normal suite: `sh tests/gpu/run.sh` runs them, on a machine with a GPU."""

from __future__ import annotations

import pytest

from serving import backends
from serving.errors import BackendUnavailable
from tests.support.cuda import DEVICE


@pytest.fixture(params=backends.PREFERENCE)
def name(request: pytest.FixtureRequest) -> str:
    """A backend that can use the GPU here; the others are skipped with their own sentence."""
    backend = str(request.param)
    try:
        backends.module(backend).available(DEVICE)
    except BackendUnavailable as error:
        pytest.skip(f"{backend}: {error}")
    return backend
