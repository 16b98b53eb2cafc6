"""What the CUDA tests share. They are no part of the normal suite: `sh tests/gpu/run.sh` runs them, on a machine with a GPU."""

from __future__ import annotations

import pytest

from serving import backends
from tests.support.cuda import usable


@pytest.fixture(params=backends.PREFERENCE)
def name(request: pytest.FixtureRequest) -> str:
    """A backend that can use the GPU here; the others are skipped with their own sentence."""
    return usable(str(request.param))
