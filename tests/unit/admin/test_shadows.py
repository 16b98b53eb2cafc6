"""The metrics of shadowed requests become a table; whatever is no metrics is told in one sentence."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from admin import shadows
from admin.server import AdminError

METRICS = """\
# HELP lstm_serving_shadow_requests_total Requests that were also sent elsewhere.
# TYPE lstm_serving_shadow_requests_total counter
lstm_serving_shadow_requests_total{model="vowels",version="1",target="torchscript on cpu",outcome="compared"} 1200
lstm_serving_shadow_requests_total{model="vowels",version="1",target="torchscript on cpu",outcome="failed"} 1
lstm_serving_shadow_requests_total{model="vowels",version="1",target="torchscript on cpu",outcome="dropped"} 34
lstm_serving_shadow_requests_total{model="vowels",version="1",target="2",outcome="dropped"} 5
lstm_serving_shadow_requests_total{model="weather",version="1",target="2",outcome="compared"} 7
# TYPE lstm_serving_shadow_requests_created gauge
lstm_serving_shadow_requests_created{model="vowels",version="1",target="2",outcome="dropped"} 1.7e+09
# TYPE lstm_serving_shadow_largest_difference gauge
lstm_serving_shadow_largest_difference{model="vowels",version="1",target="torchscript on cpu"} 2.9802322387695312e-07
lstm_serving_shadow_largest_difference{model="vowels",version="1",target="2"} 0
# TYPE lstm_serving_shadow_classes_total counter
lstm_serving_shadow_classes_total{model="vowels",version="1",target="torchscript on cpu",agree="true"} 1199
lstm_serving_shadow_classes_total{model="vowels",version="1",target="torchscript on cpu",agree="false"} 1
"""


def test_a_line_for_each_version_and_target() -> None:
    assert shadows.as_table(shadows.lines(shadows.parsed(METRICS), "vowels")).splitlines() == [
        "version  target              compared  failed  dropped  largest difference  same class",
        "1        2                   0         0       5        -                   -",
        "1        torchscript on cpu  1200      1       34       2.98e-07            99.917 % of 1200",
    ]


def test_a_model_without_a_shadow_has_no_table() -> None:
    assert shadows.lines(shadows.parsed(METRICS), "none") == []
    assert shadows.lines([], "vowels") == []


@pytest.fixture
def metrics_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the text of the fixture's parameter is served."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(request.param.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("metrics_url", [METRICS], indirect=True)
def test_metrics_are_read_over_http(metrics_url: str) -> None:
    assert shadows.read(metrics_url, 20) == list(shadows.parsed(METRICS))


@pytest.mark.parametrize("metrics_url", ["<html>hello</html>"], indirect=True)
def test_a_page_that_is_no_metrics(metrics_url: str) -> None:
    with pytest.raises(AdminError, match=f"{metrics_url} has no metrics to read: .*--metrics-url URL"):
        shadows.read(metrics_url, 20)


def test_metrics_that_are_not_there() -> None:
    with pytest.raises(AdminError, match="Connection refused"):
        shadows.read("http://127.0.0.1:1/metrics", 20)
