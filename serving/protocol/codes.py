"""The one table from our errors to codes, and how requests that end so are counted.

Codes have the canonical names of `google.rpc.Code`; each edge turns them into what its transport says. An unknown *model*
is INVALID_ARGUMENT and an unknown *version* is NOT_FOUND, as Triton's clients expect.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping

from serving import errors
from serving.errors import ServingError

log = logging.getLogger(__name__)


class Code(enum.Enum):
    """How a call has ended; the value is the code's number in `google.rpc.Code`."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


CODES: Mapping[type[ServingError], Code] = {
    errors.ServingError: Code.INTERNAL,
    errors.InvalidRequest: Code.INVALID_ARGUMENT,
    errors.InvalidInput: Code.INVALID_ARGUMENT,
    errors.UnknownModel: Code.INVALID_ARGUMENT,
    errors.UnknownVersion: Code.NOT_FOUND,
    errors.NotReady: Code.UNAVAILABLE,
    errors.ControlDisabled: Code.UNAVAILABLE,
    errors.NotInRepository: Code.INTERNAL,
    errors.LoadFailed: Code.INVALID_ARGUMENT,
    errors.Unauthenticated: Code.UNAUTHENTICATED,
    errors.NotImplementedHere: Code.UNIMPLEMENTED,
    errors.Overloaded: Code.UNAVAILABLE,
    errors.TimedOut: Code.UNAVAILABLE,
    errors.DeadlineExceeded: Code.DEADLINE_EXCEEDED,
    errors.Cancelled: Code.CANCELLED,
    errors.OutOfStep: Code.FAILED_PRECONDITION,
    errors.BrokenOff: Code.ABORTED,
    errors.ComputeFailed: Code.INTERNAL,
    errors.StoreFailed: Code.UNAVAILABLE,
    errors.StartupError: Code.INTERNAL,
    errors.RepositoryError: Code.INTERNAL,
    errors.MissingFormat: Code.INTERNAL,
    errors.ModelConfigError: Code.INTERNAL,
    errors.BackendUnavailable: Code.INTERNAL,
    errors.VerificationFailed: Code.INTERNAL,
    errors.StoreUnusable: Code.INTERNAL,
    errors.ChildEnded: Code.INTERNAL,
    errors.ChildRaised: Code.INTERNAL,
}

# The codes by which a call is turned away before a model is found; each is counted from 0, so that a rate sees the first.
REFUSALS = ("INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "UNAVAILABLE", "UNAUTHENTICATED")

# How a request that was not answered is counted; what is not named here has failed.
OUTCOMES: Mapping[type[ServingError], str] = {
    errors.InvalidRequest: "invalid",
    errors.InvalidInput: "invalid",
    errors.NotImplementedHere: "invalid",
    errors.Overloaded: "rejected",
    errors.NotReady: "rejected",
    errors.OutOfStep: "invalid",
    errors.BrokenOff: "rejected",
    errors.TimedOut: "timed_out",
    errors.DeadlineExceeded: "expired",
    errors.Cancelled: "cancelled",
}


def as_ours(error: Exception) -> ServingError:
    """Errors that are not of our tree are faults of this server: logged in full, told in short."""
    if isinstance(error, ServingError):
        return error
    log.error("a fault of the server: %s", error, exc_info=error)
    return ServingError(f"internal error: {type(error).__name__}: {error}; the server's log has the details")


def answer_for(error: Exception) -> tuple[Code, str]:
    """The code and the message by which a caller learns of an error."""
    ours = as_ours(error)
    return CODES[type(ours)], str(ours)


def outcome_of(error: ServingError) -> str:
    """How a request that has failed so is counted."""
    return OUTCOMES.get(type(error), "failed")
