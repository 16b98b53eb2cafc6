"""What batches took is known at the next load of the same files, and of nothing else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.backends.base import Candidate
from serving.batching.costs import Cell
from serving.loading import loader
from serving.loading.learnt import ENOUGH_CALLS, MOST_KEPT, Learnt
from serving.loading.measurements import Measurements
from serving.repository.folders import VersionFolder
from tests.support import fake_models
from tests.support.loading import wanted

FAKE, OTHER = Candidate("fake", "cpu", 1), Candidate("fake", "cpu", 2)
CELLS = [Cell(1.0, 5.25, 60_000, ENOUGH_CALLS), Cell(8.0, 24.0, 400_000, 3)]


@pytest.fixture
def folder(tmp_path: Path) -> VersionFolder:
    return VersionFolder(1, fake_models.write(tmp_path / "repository", "m"))


def learnt() -> Learnt:
    """As a server that has just begun has it."""
    return Measurements(cache=lambda: None).learnt


def test_nothing_is_known_of_what_has_not_served(folder: VersionFolder) -> None:
    assert learnt().find(folder, FAKE) == ()


def test_the_next_server_goes_on_with_it(folder: VersionFolder) -> None:
    learnt().keep(folder, FAKE, CELLS)
    assert learnt().find(folder, FAKE) == CELLS
    assert learnt().find(folder, OTHER) == (), "more threads take other times"


def test_of_other_files_nothing_is_known(folder: VersionFolder) -> None:
    learnt().keep(folder, FAKE, CELLS)
    (folder.path / "model.fake.json").write_text('{"delay_seconds": 1.0}')
    assert learnt().find(folder, FAKE) == ()


def test_a_few_calls_are_not_worth_keeping(folder: VersionFolder) -> None:
    learnt().keep(folder, FAKE, [Cell(1, 5, 60_000, ENOUGH_CALLS - 1)])
    assert learnt().find(folder, FAKE) == ()


def test_what_came_most_often_is_kept_and_fits(folder: VersionFolder) -> None:
    cells = [Cell(rows + 0.123456, 2000.123456, 1e12 + rows, ENOUGH_CALLS + rows) for rows in range(1, 250)]
    learnt().keep(folder, FAKE, cells)
    found = learnt().find(folder, FAKE)
    assert sorted(cell.calls for cell in found) == [ENOUGH_CALLS + rows for rows in range(250 - MOST_KEPT, 250)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda fields: fields.update(costs=[[0, 5, 1000, 1]]),
        lambda fields: fields.update(costs=[[1, 5, -1000, 1]]),
        lambda fields: fields.update(costs=[[1, 5, 1e300, 1]]),
        lambda fields: fields.update(costs=[[1, 5, 5e-324, 1]]),
        lambda fields: fields.update(costs=[[1e200, 5, 1000, 1]]),
        lambda fields: fields.update(costs=[[1, 1e200, 1000, 1]]),
        lambda fields: fields.update(costs=[[1, 5, 1000, 10**400]]),
        lambda fields: fields.update(costs=[[10**400, 5, 1000, 1]]),
        lambda fields: fields.update(costs=[[float("nan"), 5, 1000, 1]]),
        lambda fields: fields.update(costs=[[1, 5, 1000, 0.5]]),
        lambda fields: fields.update(costs=[[1, 5, 1000]]),
        lambda fields: fields.update(costs=[[1, "5", 1000, 1]]),
        lambda fields: fields.update(costs=[[1, 5, 1000, 1]] * 1000),
        lambda fields: fields.update(costs=None),
        lambda fields: fields.pop("costs"),
    ],
)
def test_what_no_batch_takes_is_not_believed(folder: VersionFolder, damage: Callable[[dict[str, Any]], None]) -> None:
    learnt().keep(folder, FAKE, CELLS)
    (entry,) = (folder.path.parent / ".measured").iterdir()
    fields = json.loads(entry.read_text())
    damage(fields)
    entry.write_text(json.dumps(fields))
    assert learnt().find(folder, FAKE) == ()


def test_where_nothing_can_be_written_or_read_nothing_is_raised(folder: VersionFolder) -> None:
    (folder.path.parent / ".measured").write_text("in the way")
    learnt().keep(folder, FAKE, CELLS)
    (folder.path / "spec.json").unlink()
    (folder.path / "model.fake.json").unlink()
    folder.path.joinpath("golden.npz").unlink()
    folder.path.rmdir()
    learnt().keep(folder, FAKE, CELLS)
    assert learnt().find(folder, FAKE) == ()


@pytest.mark.parametrize(("calls", "kept"), [(ENOUGH_CALLS, True), (1, False)])
def test_a_version_that_leaves_keeps_what_it_has_learnt_and_a_load_begins_with_it(
    tmp_path: Path, calls: int, kept: bool
) -> None:
    fake_models.write(tmp_path)
    model = loader.load(dataclasses.replace(wanted(tmp_path), learnt=learnt())).model
    for _ in range(calls):
        model.costs.learn(3, 1000, 77_000_000)
    assert model.close()
    again = loader.load(dataclasses.replace(wanted(tmp_path), learnt=learnt())).model
    assert again.close()
    assert any(is_of(cell, 3, 1000) for cell in again.costs.known()) is kept


def is_of(cell: Cell, *size: float) -> bool:
    return (cell.rows, cell.steps) == size
