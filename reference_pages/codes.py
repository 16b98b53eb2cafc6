"""The page of the codes: how a call may end, by which error, and how a request that ends so is counted."""

from __future__ import annotations

import inspect

from reference_pages.markdown import code, page, table
from serving.protocol.codes import CODES, OUTCOMES, Code
from serving.telemetry import counters

# What each code asks of a client; also those by which gRPC itself ends a call before this server sees it.
TO_DO = {
    Code.OK: "use the answer",
    Code.CANCELLED: "nothing: the client has ended the call itself",
    Code.INVALID_ARGUMENT: "mend the request, or what was to be loaded; sending it again does not help",
    Code.DEADLINE_EXCEEDED: "give the call more time, or the server less to do; nothing was computed",
    Code.NOT_FOUND: "ask for a version that `lstm-admin index` lists",
    Code.RESOURCE_EXHAUSTED: "send less at a time; the message says what was too much, and how much is allowed",
    Code.FAILED_PRECONDITION: "send the step that the message names; the sequence is as it was",
    Code.ABORTED: "send the steps of the sequence again that were not answered, in order",
    Code.UNIMPLEMENTED: "leave that part of the protocol out",
    Code.INTERNAL: "look into the server's log",
    Code.UNAVAILABLE: "try again later, or another replica",
    Code.UNAUTHENTICATED: "send a token that the server knows",
}


def page_text() -> str:
    """The whole page."""
    return page(
        "gRPC codes",
        "Each error of the server ends a call with one code. The message says what is wrong, why, and what to do. Over a stream "
        "the message stands in the answer, and the stream goes on.",
        table(
            ("code", "number", "what the client does"),
            [(code(each.name), str(each.value), TO_DO[each]) for each in Code],
        ),
        "`RESOURCE_EXHAUSTED` (8): a message is larger than `--max-message-bytes`, the metadata are larger than 16 KB, there are "
        "more calls or more unfinished messages than there is room for, or a client does not read its answers.",
        "On `--edge grpcio` RESOURCE_EXHAUSTED, and UNIMPLEMENTED for a method that is not there, come from gRPC itself, which "
        "lets no metric count these calls.",
        "## The errors behind the codes",
        table(
            ("error", "code", "meaning"),
            [(code(error.__name__), code(ends.name), _meaning(error)) for error, ends in CODES.items()],
        ),
        "## How requests are counted",
        "`lstm_serving_requests_total` counts each request that found its model under one `outcome`:",
        table(("outcome", "after"), [(code(outcome), after) for outcome, after in _outcomes().items()]),
        "`lstm_serving_requests_refused_total` counts, by code, calls that find no model, bring no valid token, or are turned "
        "away by the edge.",
    )


def _outcomes() -> dict[str, str]:
    """Every outcome, and the errors behind it."""
    behind = {
        outcome: ", ".join(code(error.__name__) for error, counted in OUTCOMES.items() if counted == outcome)
        for outcome in counters.OUTCOMES
    }
    return {**behind, "success": "an answer", "failed": "anything else"}


def _meaning(error: type[Exception]) -> str:
    return " ".join((inspect.getdoc(error) or "").split("\n\n")[0].split())
