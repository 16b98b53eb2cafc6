"""When a server can answer, as a table: which versions there are, which of them answer, which must."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from serving.lifecycle.statuses import VersionStatus, can_answer, in_order


def version(text: str, *, alive: bool | None, required: bool = False) -> VersionStatus:
    """`MODEL/VERSION`."""
    name, _, number = text.partition("/")
    return VersionStatus(name=name, version=number, alive=alive, required=required)


@pytest.mark.parametrize(
    ("why", "statuses", "ready"),
    [
        ("nothing is to be served", [], True),
        ("all answer", [version("a/1", alive=True, required=True), version("b/1", alive=True, required=True)], True),
        ("it failed to load at start", [version("a/1", alive=None, required=True)], False),
        ("its versions could not be listed", [version("a/", alive=None, required=True)], False),
        (
            "another version of the model answers",
            [version("a/1", alive=True), version("a/2", alive=None, required=True)],
            True,
        ),
        (
            "another model's version does not count",
            [version("b/1", alive=True), version("a/1", alive=None, required=True)],
            False,
        ),
        ("a later load has failed", [version("a/1", alive=True, required=True), version("b/1", alive=None)], True),
        ("what answered has died", [version("a/1", alive=False)], False),
        ("it has died beside another one", [version("a/1", alive=True), version("a/2", alive=False)], False),
        ("it was unloaded", [version("a/1", alive=None)], True),
    ],
    ids=str,
)
def test_whether_a_server_can_answer(why: str, statuses: Sequence[VersionStatus], ready: bool) -> None:
    assert can_answer(statuses) is ready, why
    assert can_answer(iter(statuses)) is ready


def test_they_are_shown_by_name_and_number() -> None:
    shown = ["a/", "a/2", "a/10", "b/1"]
    given = [version(text, alive=True) for text in ("b/1", "a/10", "a/", "a/2")]
    assert [f"{one.name}/{one.version}" for one in in_order(given)] == shown


def test_what_somebody_has_seen_never_changes() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        version("a/1", alive=True).state = "READY"  # type: ignore[misc]
