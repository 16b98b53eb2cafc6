"""Work in the background: whose turns are shortened, who makes pauses, and what an import leaves as it was."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.machine import background


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long whoever made a pause has slept; nobody really does."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The time that has passed, and the processor time that the thread has had."""
    now = {"passed": 0.0, "computed": 0.0}
    monkeypatch.setattr(time, "perf_counter", lambda: now["passed"])
    monkeypatch.setattr(time, "thread_time", lambda: now["computed"])
    return now


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package that keeps what was the case while it was imported."""
    (tmp_path / "heavy_runtime.py").write_text(
        "import gc, sys\nCOLLECTING, WATCHED = gc.isenabled(), sys.getprofile() is not None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "heavy_runtime"
    sys.modules.pop("heavy_runtime", None)
    gc.unfreeze()


def test_turns_are_short_until_the_last_work_is_done() -> None:
    usual = sys.getswitchinterval()
    with background.work():
        with background.work():
            assert sys.getswitchinterval() == pytest.approx(background.TURN_SECONDS)
        assert sys.getswitchinterval() == pytest.approx(background.TURN_SECONDS)
    assert sys.getswitchinterval() == pytest.approx(usual)


@pytest.mark.parametrize(
    ("passed", "computed", "pauses"),
    [
        (0.0005, 0.0001, []),  # too short to tell
        (0.01, 0.0095, []),  # it is alone
        (0.01, 0.004, [0.02]),
        (9.0, 1.0, [background.LONGEST_PAUSE_SECONDS]),
    ],
)
def test_who_had_to_wait_pauses_twice_as_long_as_it_worked(
    clocks: dict[str, float], slept: list[float], passed: float, computed: float, pauses: list[float]
) -> None:
    with background.work():
        made = background.Pauses()
        clocks.update(passed=passed, computed=computed)
        made.look()
    assert slept == pauses


def test_what_another_thread_has_computed_for_it_counts(clocks: dict[str, float], slept: list[float]) -> None:
    with background.work():
        made = background.Pauses()
        clocks.update(passed=1.0, computed=0.1)
        background.computed_elsewhere(0.8)
        made.look()
    assert not slept


def test_nobody_pauses_before_the_server_serves(clocks: dict[str, float], slept: list[float]) -> None:
    made = background.Pauses()
    clocks.update(passed=1.0, computed=0.1)
    made.look()
    assert not slept


def test_an_import_is_not_collected_and_pauses_only_beside_requests(package: str) -> None:
    with background.work():
        brought = background.bring_in(package, ("lib/not_there.so",))
    assert not brought.COLLECTING
    assert brought.WATCHED
    assert gc.isenabled()
    assert sys.getprofile() is None
    assert gc.get_freeze_count()


def test_an_import_before_the_server_serves_is_as_fast_as_any(package: str) -> None:
    assert not background.bring_in(package).WATCHED
    assert background.bring_in(package) is sys.modules[package]


def test_code_of_a_package_pauses_only_beside_requests() -> None:
    with background.pausing():
        assert sys.getprofile() is None
    with background.work(), background.pausing():
        assert sys.getprofile() is not None
    assert sys.getprofile() is None


def test_a_package_that_is_missing_leaves_everything_as_it_was() -> None:
    usual = sys.getswitchinterval()
    with pytest.raises(ModuleNotFoundError), background.work():
        background.bring_in("there_is_no_such_runtime", ("lib.so",))
    assert gc.isenabled()
    assert sys.getswitchinterval() == pytest.approx(usual)
