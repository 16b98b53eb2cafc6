from __future__ import annotations

from xml.etree import ElementTree

from benchmarks.peers import chart
from tests.support.peers import made_up


def test_both_medians_of_each_server_with_64_in_flight() -> None:
    root = ElementTree.fromstring(chart.drawn(made_up()))  # noqa: S314 - our own text
    words = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words[0] == "Server CPU a request, 64 in flight, us"
    for name, *values in (
        ("lstm-serve", "450", "450"),
        ("lstm-serve, grpcio", "on the public grpc.server", "900", "900"),
        ("Triton", "Python backend", "300", "300"),
        ("MLServer", "not asked by perf_analyzer", "not measured", "1350"),
        ("edge alone", "ours, answers a constant", "60", "60"),
        ("gRPC alone", "C++, answers a constant", "75", "75"),
    ):
        start = words.index(name) + 1
        assert words[start : start + len(values)] == values
    assert "medians of 2 rounds" in words[-1]
