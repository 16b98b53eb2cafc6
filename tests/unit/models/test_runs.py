"""A run folder that holds a finished run is not written to by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.runs import RunError, check_folder


@pytest.mark.parametrize("overwrite", [False, True])
def test_folders_that_may_be_written_to(overwrite: bool, tmp_path: Path) -> None:
    check_folder(tmp_path / "new", overwrite)
    (tmp_path / "weights.safetensors").touch()  # of a run that was cut off: without training.json it is none
    check_folder(tmp_path, overwrite)


def test_a_finished_run_is_replaced_only_when_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "training.json").touch()
    check_folder(tmp_path, overwrite=True)
    with pytest.raises(RunError, match=r"holds a finished run; choose another folder or add --overwrite"):
        check_folder(tmp_path, overwrite=False)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file; a run needs a folder of its own"):
        check_folder(tmp_path / "file", overwrite=True)
