"""What can go wrong with a load test, as one tree; `str(error)` is the one sentence that the caller reads.

    LoadTestError        the test cannot be done: nobody answers, unknown model, everything failed (exit code 1)
    └── UsageError       it was asked for in a way that makes no sense for this model or file (exit code 2)

An answer with an error code is not an exception here: it is a result, and counted.
"""

from __future__ import annotations


class LoadTestError(Exception):
    """The test cannot be done."""


class UsageError(LoadTestError):
    """What was asked for does not fit together, or does not fit the model."""
