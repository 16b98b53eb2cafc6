"""What every test relies on, whoever has started the suite and however many processes run it."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator

import pytest

from serving.loading.measuring import cpus_here


def pytest_configure(config: pytest.Config) -> None:
    """A shell starts what it puts into the background with Ctrl-C ignored; commands that are tested would inherit that.

    So would they how many threads PyTorch has where nobody says it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):  # one of several processes
        # A second thread of PyTorch computes a small network no sooner, and where it waits for a CPU, five times as long.
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """A command that was called in this process has its records go to standard error alone; other tests want to see theirs."""
    logger = logging.getLogger("serving")
    handlers, propagate, level = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process more than CPUs, since one in four waits for a server, and at most 8: each takes up to 2 GB of memory."""
    return min(8, cpus_here() + 1)
