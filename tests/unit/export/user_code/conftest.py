"""The program of the child with a part that needs no framework, so that real processes are asked in a fifth of a second."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from export.user_code import asking, program


@pytest.fixture
def fake_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, an empty project of a user's; `UserCode("fake", ...)` may be asked."""
    beside = tmp_path / "program"
    beside.mkdir()
    for file in (Path(str(program.__file__)), Path(__file__).with_name("fake_part.py")):
        shutil.copy(file, beside)
    monkeypatch.setattr(asking, "_PROGRAM", beside / "program.py")
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return project
