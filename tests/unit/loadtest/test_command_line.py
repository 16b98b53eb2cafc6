"""What may be asked of a load test, what may not, and what may not be asked together."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from loadtest import command_line
from loadtest.errors import UsageError

ASKED = ("--url", "localhost:8001", "--model", "m")


def parsed(*line: str) -> argparse.Namespace:
    return command_line.parser().parse_args([*ASKED, *line])


def test_what_is_done_unless_it_is_said() -> None:
    options = parsed()
    command_line.check(options)
    assert (options.concurrency, options.rate, options.p99_below, options.arrivals) == (None, None, None, "poisson")
    assert (options.duration, options.warm_up, options.timeout) == (10.0, 1.0, 10.0)
    assert (options.rows, options.streaming, options.max_in_flight) == (1, False, 10_000)


def test_levels_are_lists_and_ranges() -> None:
    assert parsed("--concurrency", "1,8,32").concurrency == (1, 8, 32)
    assert parsed("--rate", "100:300:100").rate == (100, 200, 300)


@pytest.mark.parametrize(
    "line",
    [
        ("--p99-below", "10"),
        ("--p99-below", "10", "--rate", "50"),
        ("--streaming", "--streams", "4"),
        ("--sequences", "1,8", "--steps", "20", "--step-size", "5", "--every", "0.032", "--streaming"),
        ("--sequences", "50", "--every", "0.1", "--p99-below", "32"),
        ("--sequences", "8", "--data", "a.npz"),
        ("--data", "a.npz"),
        ("--json", "here.json"),
    ],
)
def test_what_goes_together(line: tuple[str, ...]) -> None:
    command_line.check(parsed(*line))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            ("--p99-below", "10", "--concurrency", "1"),
            "--p99-below searches a rate (open loop); leave --concurrency out",
        ),
        (("--p99-below", "10", "--rate", "1,2"), "--p99-below starts from one --rate; name one instead of several"),
        (("--streams", "2"), "--streams needs --streaming"),
        (("--steps", "2"), "--steps needs --sequences"),
        (("--step-size", "2", "--rate", "5"), "--step-size needs --sequences"),
        (("--every", "2", "--concurrency", "5"), "--every needs --sequences"),
        (("--sequences", "2", "--rows", "3"), "a message of a sequence has one row; leave --rows 3 out"),
        (
            ("--sequences", "2", "--p99-below", "3"),
            "--p99-below with --sequences searches how many keep pace; say the pace with --every",
        ),
        (
            ("--sequences", "2,4", "--p99-below", "3", "--every", "1"),
            "--p99-below starts from one number of --sequences; name one instead of several",
        ),
        (("--data", "a.npz", "--shape", "x:3"), "--data brings its own shapes; leave --shape out"),
        (("--csv", "/nowhere/a.csv"), "the folder of /nowhere/a.csv does not exist"),
    ],
)
def test_what_does_not_go_together(line: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        command_line.check(parsed(*line))
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (("--concurrency", "1.5"), "argument --concurrency: '1.5' holds '1.5'; levels are positive whole numbers"),
        (("--rate", "1", "--concurrency", "1"), "not allowed with"),
        (("--rate", "1", "--sequences", "1"), "not allowed with"),
        (("--sequences", "1.5"), "argument --sequences: '1.5' holds '1.5'; levels are positive whole numbers"),
        (("--sequences", "1", "--steps", "0"), "argument --steps: '0' is not a whole number from 1"),
        (("--sequences", "1", "--every", "0"), "argument --every: '0' is not a time in seconds from 0.0001"),
        (("--duration", "0"), "argument --duration: '0' is not a time in seconds from 0.001 to 1000000"),
        (("--warm-up", "-1"), "argument --warm-up: '-1' is not a time in seconds from 0"),
        (("--p99-below", "0"), "argument --p99-below: '0' is not a number from 0.001"),
        (("--rows", "0"), "argument --rows: '0' is not a whole number from 1"),
        (("--seed", "-1"), "argument --seed: '-1' is not a whole number from 0"),
    ],
)
def test_wrong_values_are_one_sentence(
    line: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(*line)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("lstm-loadtest: ")
    assert sentence in said
    assert said.count("\n") == 1


def test_reports_may_lie_anywhere_that_exists(tmp_path: Path) -> None:
    command_line.check(parsed("--html", str(tmp_path / "a.html")))
