"""What the kinds of arguments take and refuse, and the one sentence of a parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from commands.parser import Parser, address, device, number, seconds, whole_number


def test_a_usage_error_is_one_sentence_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="lstm-try")
    parser.add_argument("--rows", type=whole_number(1, 9))
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--rows", "ten"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "lstm-try: argument --rows: 'ten' is not a whole number from 1 to 9; see lstm-try --help\n"
    )


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (whole_number(), "0", 0),
        (whole_number(), "2147483647", 2**31 - 1),
        (whole_number(1, 9), "09", 9),
        (number(-1, 1), "-0.5", -0.5),
        (number(0, 1), "1", 1.0),
        (seconds(), "0", 0.0),
        (seconds(0.01), "1e-2", 0.01),
        (device(), "cpu", "cpu"),
        (device(), "cuda:0", "cuda:0"),
        (device("auto"), "auto", "auto"),
        (address, "localhost:8001", "localhost:8001"),
        (address, "[::1]:65535", "[::1]:65535"),
    ],
)
def test_what_is_taken(kind: Callable[[str], object], text: str, value: object) -> None:
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        (whole_number(), "-1", "'-1' is not a whole number from 0 to 2147483647"),
        (whole_number(), "2147483648", "'2147483648' is not a whole number from 0 to 2147483647"),
        (whole_number(1, 9), "0", "'0' is not a whole number from 1 to 9"),
        (whole_number(), "1.0", "'1.0' is not a whole number"),
        (whole_number(), "1_0", "'1_0' is not a whole number"),
        (whole_number(), "٣", "is not a whole number"),  # a digit, and none of ours
        (whole_number(), "9" * 5000, "is not a whole number"),  # more than `int` reads
        (number(0, 1, "a share"), "1.1", "'1.1' is not a share from 0 to 1"),
        (number(0, 1), "nan", "'nan' is not a number from 0 to 1"),
        (number(0, 1), "half", "'half' is not a number from 0 to 1"),
        (seconds(0.001), "0", "'0' is not a time in seconds from 0.001 to 1000000000"),
        (seconds(), "inf", "'inf' is not a time in seconds"),
        (device(), "auto", "'auto' is not a device; use cpu or cuda:N (cuda:0 is the first GPU)"),
        (device("auto"), "gpu", "'gpu' is not a device; use cpu, cuda:N (cuda:0 is the first GPU) or auto"),
        (device(), "cuda:", "'cuda:' is not a device"),
        (device(), "cuda:1000", "'cuda:1000' is not a device"),
        (device(), "cpu\n", "is not a device"),
        (address, "8001", "'8001' is not HOST:PORT, as in localhost:8001"),
        (address, ":8001", "':8001' is not HOST:PORT"),
        (address, "localhost:0", "'localhost:0' is not HOST:PORT"),
        (address, "localhost:65536", "'localhost:65536' is not HOST:PORT"),
        (address, "http://localhost:8001", "'http://localhost:8001' is not HOST:PORT"),
    ],
)
def test_what_is_refused(kind: Callable[[str], object], text: str, sentence: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        kind(text)
    assert sentence in str(refused.value)
