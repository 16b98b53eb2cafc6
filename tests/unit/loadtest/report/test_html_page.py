"""One page that needs nothing else."""

from __future__ import annotations

from loadtest.report import html_page
from tests.unit.loadtest.made_up_results import result


def test_the_page_needs_nothing_else_and_escapes_names() -> None:
    text = html_page.render([result(), result(level=200, slow=15, errors=1)], "found < 3")
    assert "found &lt; 3" in text
    assert text.count("<svg") == 4
    assert "m&lt;1&gt;" in text
    assert "m<1>" not in text
    assert "full &lt;now&gt;" in text
    assert "http" not in text
    assert "<script" not in text
    assert "prefers-color-scheme: dark" in text


def test_one_run_has_no_plot_against_load_and_none_has_no_plot_at_all() -> None:
    assert html_page.render([result()]).count("<svg") == 2
    assert html_page.render([result(answered_per_window=0, errors=1)]).count("<svg") == 0
    assert "nothing was measured" in html_page.render([])
