"""How a load test shows that it moves: a bar in a terminal, one line for each finished run everywhere.

The bar counts seconds, not requests; how many requests there will be is what is being measured.
"""

from __future__ import annotations

import shutil
from typing import TextIO

from tqdm import tqdm

from loadtest.report.table import milliseconds
from loadtest.result import Result, Setting


class Progress:
    """Shows one run after the other on `stream`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: tqdm | None = None
        self._total = 0.0

    def begin(self, setting: Setting) -> None:
        """A run starts."""
        self._total = setting.warm_up_seconds + setting.duration_seconds
        if self._stream.isatty():
            size = shutil.get_terminal_size()
            shape = "{desc}: |{bar}| {n:.0f}/{total:.0f} s{postfix}"
            self._bar = tqdm(
                total=self._total,
                desc=setting.title,
                bar_format=shape,
                file=self._stream,
                ncols=size.columns,
                nrows=size.lines,
                leave=False,
            )

    def watch(self, seconds: float, answered: int) -> None:
        """The run is `seconds` old, warm-up included, and has `answered` measured requests."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"{answered} answered", refresh=False)
            self._bar.n = min(seconds, self._total)
            self._bar.refresh()

    def end(self, result: Result | None) -> None:
        """The run is over; without a result it could not be done."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if result is not None:
            latency = result.latency_seconds
            print(
                f"{result.setting.title}: {result.throughput_per_second:.1f} requests/s, "
                f"p50 {milliseconds(latency['p50'])} ms, p99 {milliseconds(latency['p99'])} ms, {result.failed} failed",
                file=self._stream,
                flush=True,
            )
