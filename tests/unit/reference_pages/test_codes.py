"""The page of the codes has every code and every error."""

from __future__ import annotations

from reference_pages import codes
from serving.protocol.codes import CODES, Code
from serving.telemetry.counters import OUTCOMES


def test_every_code_says_what_to_do() -> None:
    assert set(codes.TO_DO) == set(Code)


def test_every_error_and_every_outcome_is_on_the_page() -> None:
    text = codes.page_text()
    for error, code in CODES.items():
        assert f"| `{error.__name__}` | `{code.name}` | " in text
    for outcome in OUTCOMES:
        assert f"| `{outcome}` | " in text
    assert "|  |" not in text
