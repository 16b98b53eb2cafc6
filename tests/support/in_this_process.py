"""A child process that is none: the same program answers in this process, for tests that need no second one and no path.

What a process of its own is there for (the user's path, crashes, prints) is tested by tests/unit/export/user_code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from export.user_code import asking, program
from serving.child.pipes import Arrays, Message


class InThisProcess:
    """What `asking.UserCode` needs of a `Child`."""

    def __init__(self, *_: object, **__: object) -> None:
        program._held.clear()

    def ask(self, header: Mapping[str, Any], arrays: Arrays | None = None, **_: object) -> Message:
        made = program.answer(header, arrays or {}, lambda *told: None)
        return Message(*made) if isinstance(made, tuple) else Message(made, {})

    def close(self) -> None:
        program._held.clear()


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """From now on the user's code runs here, with the path of this process."""
    monkeypatch.setattr(asking, "Child", InThisProcess)
    monkeypatch.setattr(program, "users_path", lambda here: None)
    yield
    program._held.clear()
