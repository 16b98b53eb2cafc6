"""A bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import io

import numpy as np
import pytest

from models.progress import Progress
from models.training import Epoch


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), _Terminal()])
def test_progress_suits_its_stream(stream: io.StringIO) -> None:
    with Progress("vowels", 30, stream) as progress:
        for number in range(1, 13):
            progress(Epoch(number, 0.5 / number, 0.25, np.float64(0.75)))
    text = stream.getvalue()
    if stream.isatty():
        assert "12/12" in text
        assert "score=0.750" in text
    else:
        assert [line.split(",")[0] for line in text.splitlines()] == [
            "vowels: epoch 1 of at most 30",
            "vowels: epoch 10 of at most 30",
        ]
