"""What an export is doing, for somebody who waits: nothing for two seconds, then a line on stderr for each stage."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

AFTER_SECONDS = 2.0


class Stages:
    """Tells of stages once `after_seconds` have passed: of the one that is going on then, and of each later one."""

    def __init__(self, tell: Callable[[str], None], after_seconds: float = AFTER_SECONDS) -> None:
        self._tell = tell
        self._lock = threading.Lock()  # guards the two below
        self._now = ""
        self._telling = False
        self._begun = time.monotonic()
        self._timer = threading.Timer(after_seconds, self._begin)
        self._timer.daemon = True
        self._timer.start()

    def begin(self, what: str) -> None:
        """The next stage; `what` is told as `... 4 s: WHAT`."""
        with self._lock:
            self._now = what
            if self._telling:
                self._say()

    def end(self) -> None:
        """Nothing more is told."""
        self._timer.cancel()
        self._timer.join()

    def _begin(self) -> None:
        with self._lock:
            self._telling = True
            if self._now:
                self._say()

    def _say(self) -> None:
        self._tell(f"{time.monotonic() - self._begun:.0f} s: {self._now}")


_shown: list[Stages] = []  # at most one, of this process's command


def stage(what: str) -> None:
    """Says what is done next, to whoever waits."""
    for stages in _shown:
        stages.begin(what)


@contextlib.contextmanager
def shown(prog: str) -> Iterator[None]:
    """Within it stages are told on stderr, in plain lines."""
    stages = Stages(lambda text: print(f"{prog}: {text}", file=sys.stderr, flush=True))
    _shown.append(stages)
    try:
        yield
    finally:
        _shown.remove(stages)
        stages.end()
