"""Every error has its code: a class that is added without a row in the table fails here."""

from __future__ import annotations

import inspect

import pytest

from serving import errors
from serving.protocol.codes import CODES, OUTCOMES, Code, answer_for

TREE = [error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, errors.ServingError)]


def test_the_table_has_a_row_for_every_error_and_no_other() -> None:
    assert set(CODES) == set(TREE)
    assert set(OUTCOMES) <= set(TREE)


def test_the_tree_is_drawn_in_the_docstring() -> None:
    assert errors.__doc__
    assert [error.__name__ for error in TREE if error.__name__ not in errors.__doc__] == []


def test_every_error_says_what_it_is() -> None:
    assert [error.__name__ for error in TREE if not error.__doc__] == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UnknownModel("a"), Code.INVALID_ARGUMENT),
        (errors.UnknownVersion("a"), Code.NOT_FOUND),
        (errors.Overloaded("a"), Code.UNAVAILABLE),
        (errors.DeadlineExceeded("a"), Code.DEADLINE_EXCEEDED),
    ],
)
def test_the_codes_that_clients_branch_on(error: errors.ServingError, code: Code) -> None:
    assert answer_for(error) == (code, "a")


def test_a_fault_of_the_server_is_internal_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    code, message = answer_for(ZeroDivisionError("division by zero"))
    assert code is Code.INTERNAL
    assert "ZeroDivisionError: division by zero" in message
    assert "division by zero" in caplog.text
