"""What several integration tests serve."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import fake_models, summing


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The models `fake`, which two backends can serve, and `other`."""
    folder = tmp_path / "repository"
    summing.write(fake_models.write(folder))
    fake_models.write(folder, "other")
    return folder
