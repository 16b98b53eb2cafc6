"""A bar in a terminal, one line for each finished run everywhere."""

from __future__ import annotations

import io

import pytest

from loadtest.progress import Progress
from tests.unit.loadtest.made_up_results import result


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_run_that_ends_leaves_one_line(stream: io.StringIO) -> None:
    made = result(errors=2)
    progress = Progress(stream)
    progress.begin(made.setting)
    progress.watch(30.5, 600)
    progress.end(made)
    progress.begin(made.setting)
    progress.end(None)
    line = "100/s: 20.0 requests/s, p50 1 ms, p99 1 ms, 2 failed\n"
    assert line in stream.getvalue()
    assert ("600 answered" in stream.getvalue()) == stream.isatty()
    if not stream.isatty():
        assert stream.getvalue() == line
