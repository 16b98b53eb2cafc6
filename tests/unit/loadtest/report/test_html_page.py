"""One page that needs nothing else."""

from __future__ import annotations

from loadtest.report import html_page
from tests.unit.loadtest.made_up_results import of_sequences, result


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


def test_a_wrong_continuation_is_a_warning_and_none_is_not() -> None:
    right, wrong = of_sequences(every=1), of_sequences(every=1, level=16, wrong_continuations=1)
    assert "<li class=warn>" not in html_page.render([right])
    page = html_page.render([right, wrong])
    assert "<li class=warn>16 sequences: wrong continuations: 1 of 60" in page
    assert ">sequences at once<" in page
    assert "by when the request was meant to leave" in page
    assert "by when the request began" in html_page.render([of_sequences()])
