from __future__ import annotations

from benchmarks.peers.measured import Figures, Measured


def filled() -> Measured[str]:
    measured: Measured[str] = Measured(3)
    for number, (ours, theirs) in enumerate(((200.0, 100.0), (90.0, 90.0), (300.0, 100.0))):
        measured.add("ours", "many", number, Figures(ours, 10, p99_ms=1.0 if number else None, failed=number))
        measured.add("theirs", "many", number, Figures(theirs, 10))
    return measured


def test_medians_are_of_the_rounds_that_have_the_figure() -> None:
    measured = filled()
    assert measured.median("ours", "many", lambda run: run.cpu_us) == 200
    assert measured.median("ours", "many", lambda run: run.p99_ms) == 1
    assert measured.median("ours", "many", lambda run: run.p50_ms) is None
    assert measured.median("ours", "few", lambda run: run.cpu_us) is None


def test_a_ratio_is_taken_within_each_round() -> None:
    """Of 2, 1 and 3; the medians of both alone would say 200 / 100 of runs that were not side by side."""
    measured = filled()
    measured.add("theirs", "many", 2, Figures(30.0, 10))
    assert measured.ratio(("ours", "many"), ("theirs", "many"), lambda run: run.cpu_us) == 2
    measured.add("theirs", "many", 0, Figures(10.0, 10))
    assert measured.ratio(("ours", "many"), ("theirs", "many"), lambda run: run.cpu_us) == 10


def test_a_difference_is_taken_within_each_round() -> None:
    """Of 100, 0 and 200."""
    measured = filled()
    assert measured.difference(("ours", "many"), ("theirs", "many"), lambda run: run.cpu_us) == 100
    assert measured.difference(("theirs", "many"), ("ours", "many"), lambda run: run.cpu_us) == -100
    assert measured.difference(("ours", "many"), ("nobody", "many"), lambda run: run.cpu_us) is None


def test_a_round_that_one_of_them_has_not_is_left_out() -> None:
    measured = filled()
    del measured.figures["theirs", "many"][0], measured.figures["theirs", "many"][2]
    assert measured.ratio(("ours", "many"), ("theirs", "many"), lambda run: run.cpu_us) == 1
    assert measured.ratio(("ours", "many"), ("theirs", "many"), lambda run: run.p99_ms) is None
    assert measured.ratio(("ours", "many"), ("nobody", "many"), lambda run: run.cpu_us) is None


def test_two_loads_on_one_server() -> None:
    measured = filled()
    measured.add("ours", "few", 1, Figures(45.0, 10))
    assert measured.ratio(("ours", "many"), ("ours", "few"), lambda run: run.cpu_us) == 2
    assert measured.difference(("ours", "many"), ("ours", "few"), lambda run: run.cpu_us) == 45


def test_totals_are_over_all_rounds() -> None:
    assert filled().total("ours", "many", lambda run: run.failed) == 3
