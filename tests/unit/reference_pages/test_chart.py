"""The chart shows the figures of the table, all of them, and says where there is none."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from reference_pages import chart

REPORT = """\
| promise | came | |
|---|---|---|
| no request fails | 0 of 1,234 | kept |

| swap | times | takes, s | requests | p99 meanwhile, ms | p99 of the slower one, ms | ratio | slowest, ms | |
|---|---|---|---|---|---|---|---|---|
| a to b, its first | 1 | 10.5 | 100 | 20 | 10 | 2.00 | 39 | kept |
| b to <a> | 16 | 0.25 | 200 | 5 | 40 | 0.13 | 27 | kept |

after it
"""


def test_the_table_is_read() -> None:
    assert chart.swaps(REPORT) == [
        chart.Swap("a to b, its first", 1, 10.5, 20, 10),
        chart.Swap("b to <a>", 16, 0.25, 5, 40),
    ]


def test_every_swap_has_its_bars_and_what_it_took() -> None:
    root = ElementTree.fromstring(chart.drawn(REPORT))  # noqa: S314 - our own text
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"b to <a>", "10.5 s, once", "0.25 s, 16 times", "20", "40"} <= set(texts)
    assert "0 of 1,234 requests failed" in str(texts[-1])


@pytest.mark.parametrize("report", [REPORT.replace("no request fails", "x"), REPORT.replace("| swap |", "| x |")])
def test_a_report_without_the_figures_is_refused(report: str) -> None:
    with pytest.raises(ValueError, match="make bench-swaps"):
        chart.drawn(report)
