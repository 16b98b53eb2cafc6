"""Every metric has an entry with a query of it; tests/integration/test_reference.py holds the page to a real scrape."""

from __future__ import annotations

import pytest

from reference_pages import metrics
from serving.edge.families import FAMILIES


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_query_asks_for_its_own_metric(family: metrics.Family[object]) -> None:  # type: ignore[type-var]
    assert any(name in family.query for name in metrics.names(family))
    assert family.meaning.endswith(".")


def test_names_are_those_of_a_scrape() -> None:
    named = {family.name: metrics.names(family) for family in FAMILIES}
    assert named["requests"] == ("lstm_serving_requests_total",)
    assert named["queue_depth"] == ("lstm_serving_queue_depth",)
    assert named["batch_rows"] == tuple(f"lstm_serving_batch_rows_{end}" for end in ("bucket", "count", "sum"))


def test_the_page_has_an_entry_for_each() -> None:
    text = metrics.page_text()
    for family in FAMILIES:
        assert f"### {metrics.names(family)[0].removesuffix('_bucket')}\n" in text
    for name, *_ in metrics.PROCESS:
        assert f"### {name}\n" in text
