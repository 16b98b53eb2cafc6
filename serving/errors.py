"""Everything that can be wrong, as one tree, with no transport in it.

    ServingError
    ├── InvalidRequest        the request cannot be answered as it was sent; sending it again will not help
    │   ├── InvalidInput      a tensor's name, dtype, shape or bytes do not fit the model
    │   └── UnknownModel      no model of that name
    ├── UnknownVersion        the model is known, the version is not, or none is there
    ├── NotReady              the version is there but cannot answer (loading, failed, leaving)
    ├── ControlDisabled       loading and unloading by RPC are not allowed in this mode
    ├── NotInRepository       a model is to be loaded that the repository does not have
    ├── LoadFailed            a model could not be loaded; what served before serves on
    ├── Unauthenticated       the call carries no token that this server knows
    ├── NotImplementedHere    a part of the protocol that this server does not serve
    ├── Overloaded            the queue is full
    ├── TimedOut              it has waited longer than its queue policy allows
    ├── DeadlineExceeded      the client's deadline passed before its turn came
    ├── Cancelled             the client has gone
    ├── OutOfStep             a step of a sequence is not the one that comes next
    ├── BrokenOff             a step before it in its sequence was not taken
    ├── ComputeFailed         the backend failed on a request that looked right
    ├── StoreFailed           the store of sequences could not be read or written
    └── StartupError          the server or a model cannot start; never an answer to a request
        ├── RepositoryError   what is on disk is missing, incomplete or contradicts itself
        │   ├── MissingFormat      no file for the backend that was asked for
        │   └── ModelConfigError   config.pbtxt
        ├── BackendUnavailable     a package, a device or a driver is missing
        ├── VerificationFailed     the artefact computes something else than the trained model did
        ├── StoreUnusable          the store of sequences is not the server's own, damaged, in use or has no room
        ├── ChildEnded             a child process has crashed, hung or taken too much
        └── ChildRaised            the program in a child process has raised an error

A message says what is wrong, why, and what to do, with the offending value and the allowed ones. `serving/protocol/codes.py`
holds the one table from these classes to codes.
"""

from __future__ import annotations


def as_text(message: str) -> str:
    """The message with ? for what is no text: names on disk may hold it, and protobuf and gRPC refuse it."""
    return message.encode(errors="replace").decode()


class ServingError(Exception):
    """A fault of the server itself; the root of the tree.

    `str(error)` is the sentence that the caller reads.
    """


class InvalidRequest(ServingError):
    """The request cannot be answered as it was sent."""


class InvalidInput(InvalidRequest):
    """A tensor's name, dtype, shape or bytes do not fit the model."""


class UnknownModel(InvalidRequest):
    """No model of that name."""


class UnknownVersion(ServingError):
    """The model is known; the version is not, or none is there."""


class NotReady(ServingError):
    """The version is there but cannot answer now."""


class ControlDisabled(ServingError):
    """Loading and unloading by RPC are not allowed in this mode."""


class NotInRepository(ServingError):
    """A model is to be loaded that the repository does not have."""


class LoadFailed(ServingError):
    """A model could not be loaded; what served before serves on."""


class Unauthenticated(ServingError):
    """The call carries no token that this server knows."""


class NotImplementedHere(ServingError):
    """A part of the protocol that this server does not serve."""


class Overloaded(ServingError):
    """The queue is full; try again later or elsewhere.

    In about `retry_ms` milliseconds there will be room; 0 where nobody can tell.
    """

    def __init__(self, sentence: str, retry_ms: int = 0) -> None:
        super().__init__(sentence)
        self.retry_ms = retry_ms


class TimedOut(ServingError):
    """The request has waited longer than its queue policy allows; nothing was computed."""


class DeadlineExceeded(ServingError):
    """The client's deadline passed before its turn came; nothing was computed."""


class Cancelled(ServingError):
    """The client has gone; nothing was computed."""


class OutOfStep(ServingError):
    """A step of a sequence is not the one that comes next, or not of the sequence that lives now; the state is as it was."""


class BrokenOff(ServingError):
    """A step before it in its sequence was not taken; neither was this one, and the state is as it was."""


class ComputeFailed(ServingError):
    """The backend failed on a request that looked right."""


class StoreFailed(ServingError):
    """The store of sequences could not be read or written; what was asked of it has not been done, and may be sent again."""


class StartupError(ServingError):
    """The server or a model cannot start."""


class RepositoryError(StartupError):
    """What is on disk is missing, incomplete or contradicts itself."""


class MissingFormat(RepositoryError):
    """The version has no file for the backend that was asked for."""


class ModelConfigError(RepositoryError):
    """`config.pbtxt` does not parse, or asks for what this server does not do."""


class BackendUnavailable(StartupError):
    """A package, a device or a driver that a backend needs is missing."""


class VerificationFailed(StartupError):
    """The artefact computes something else than the trained model did."""


class StoreUnusable(StartupError):
    """The store of sequences that was named cannot be used: not the server's own, damaged, in use elsewhere, or without room."""


class ChildEnded(StartupError):
    """A child process has ended, or was ended, before it answered; the message says how.

    It has `crashed` if nobody ended it: neither whoever asked nor the system for want of memory.
    """

    def __init__(self, sentence: str, *, crashed: bool = False) -> None:
        super().__init__(sentence)
        self.crashed = crashed


class ChildRaised(StartupError):
    """The program in a child process has raised an error.

    `kind` is its class, `said` its message, and `trace` where it was.
    """

    def __init__(self, kind: str, said: str, trace: str = "") -> None:
        super().__init__(f"{kind}: {said}" if said else kind)
        self.kind, self.said, self.trace = kind, said, trace
