"""The table of metrics: no name twice, and none that a scrape does not show."""

from __future__ import annotations

from serving.edge.families import FAMILIES, PREFIX


def test_names_are_told_apart_and_have_the_prefix_once() -> None:
    names = [family.name for family in FAMILIES]
    assert len(names) == len(set(names)) > 10
    assert not any(name.startswith(PREFIX) for name in names)


def test_a_family_begins_without_series() -> None:
    for family in FAMILIES:
        begun = family.begun()
        assert (begun.name, begun.samples) == (f"{PREFIX}{family.name}", [])
