from __future__ import annotations

import xml.etree.ElementTree as ET

from benchmarks.peers import chart
from benchmarks.peers.load import CLOSED, IN_FLIGHT, MANY, PERF, Load
from benchmarks.peers.server import FLOOR, MLSERVER, OURS, TRITON
from tests.support.peers import made_up

SVG = "{http://www.w3.org/2000/svg}"


def drawn() -> ET.Element:
    return ET.fromstring(chart.drawn(made_up()))  # noqa: S314 - our own text


def bars(kind: str) -> list[float]:
    """Widths, the legend's square left out."""
    return [float(bar.attrib["width"]) for bar in drawn().iter(f"{SVG}rect") if bar.get("class") == kind][1:]


def test_bars_are_as_long_as_the_medians_of_64_in_flight() -> None:
    measured = made_up()
    for kind, client, names in (
        ("first", PERF, [OURS, TRITON, FLOOR]),  # MLServer is not asked by it
        ("other", CLOSED, [OURS, TRITON, MLSERVER, FLOOR]),
    ):
        medians = [measured.median(name, Load(client, IN_FLIGHT, MANY), lambda run: run.cpu_us) or 0 for name in names]
        assert bars(kind) == [round(chart.SCALE_WIDTH * value / 1350, 1) for value in medians]


def test_each_server_is_named_and_each_value_written() -> None:
    words = [text.text for text in drawn().iter(f"{SVG}text")]
    for name in ("lstm-serve", "Triton", "MLServer", "gRPC alone", "450", "300", "1350", "75", "not measured"):
        assert name in words


def test_what_is_drawn_lies_within_the_picture() -> None:
    picture = drawn()
    width, height = float(picture.attrib["width"]), float(picture.attrib["height"])
    for bar in picture.iter(f"{SVG}rect"):
        assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= width
        assert float(bar.attrib["y"]) + float(bar.attrib["height"]) <= height
