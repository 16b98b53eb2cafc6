"""Stages are told once somebody has waited, and not before."""

from __future__ import annotations

import queue

import pytest

from export import progress
from export.progress import Stages


def test_who_waits_is_told_of_the_stage_that_goes_on_and_of_those_that_follow() -> None:
    told: queue.Queue[str] = queue.Queue()
    stages = Stages(told.put, after_seconds=0.01)
    stages.begin("reading")
    assert told.get(timeout=30).endswith(" s: reading")
    stages.begin("trying")
    assert told.get(timeout=30).endswith(" s: trying")
    stages.end()


def test_what_is_quick_is_not_told() -> None:
    told: list[str] = []
    stages = Stages(told.append, after_seconds=3600)
    stages.begin("reading")
    stages.end()
    assert told == []


def test_it_is_told_on_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    progress.stage("nobody listens")
    monkeypatch.setattr(
        progress, "Stages", lambda tell: [tell(f"{n} s: {n}") for n in range(2)] and Stages(tell, after_seconds=3600)
    )
    with progress.shown("lstm-export"):
        progress.stage("reading")
    assert capsys.readouterr().err == "lstm-export: 0 s: 0\nlstm-export: 1 s: 1\n"
