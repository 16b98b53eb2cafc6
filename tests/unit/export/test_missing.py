"""The command to run next."""

from __future__ import annotations

import pytest

from export.missing import command, flags_in


def test_a_command_can_be_copied() -> None:
    assert command(["import", "my file.pt"], ["--input", "x:FP32[-1,8]"]) == (
        "lstm-export import 'my file.pt' --input 'x:FP32[-1,8]'"
    )


@pytest.mark.parametrize(
    ("message", "flags"),
    [
        ("state the sizes that it takes with --shape NAME:SIZES, -1 where free", ["--shape", "NAME:SIZES"]),
        ("say which with --rows INPUT=AXIS, or --rows INPUT=none.", ["--rows", "INPUT=AXIS"]),
        ("rows could lie along several axes: x=0 or x=1; say which with --rows INPUT=AXIS", ["--rows", "x=AXIS"]),
        ("take --shape x:SIZES, and values with --value NAME=VALUE", ["--shape", "x:SIZES", "--value", "NAME=VALUE"]),
        ("say it with --state INPUT=OUTPUT for each pair, or --state none", ["--state", "INPUT=OUTPUT"]),
        ("say what it holds: --value sr=VALUE.", ["--value", "sr=VALUE"]),
        ("nothing to say, not even --name m", []),
    ],
)
def test_flags_are_read_out_of_a_message(message: str, flags: list[str]) -> None:
    assert flags_in(message) == flags
