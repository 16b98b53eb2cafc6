from __future__ import annotations

from xml.etree import ElementTree

from reference_pages.bars import BAR, Chart, Pair

SVG = "{http://www.w3.org/2000/svg}"
CHART = Chart(title="Time, ms", description="How long", first="ours", second="<theirs>", told="twice", left=300)
PAIRS = [Pair("a", "10 s", 20, 10), Pair("b & c", "", 5, 40), Pair("d", "", None, 12.3456)]


def drawn() -> ElementTree.Element:
    return ElementTree.fromstring(CHART.drawn(PAIRS))  # noqa: S314 - our own text


def test_bars_are_as_long_as_the_values() -> None:
    bars = [each for each in drawn().iter(f"{SVG}rect") if each.get("height") == str(BAR)]
    widths = [float(each.get("width", 0)) / CHART.scale_width for each in bars]
    assert [round(width, 2) for width in widths] == [0.5, 0.25, 0.12, 1.0, 0.31]
    assert [each.get("class") for each in bars] == ["first", "second", "first", "second", "second"]


def test_everything_is_named_and_written() -> None:
    texts = [each.text for each in drawn().iter(f"{SVG}text")]
    assert texts == [
        "Time, ms",
        "ours",
        "<theirs>",
        "a",
        "10 s",
        "20",
        "10",
        "b & c",
        "5",
        "40",
        "d",
        "not measured",
        "12.3",
        "twice",
    ]


def test_all_of_it_lies_within_the_picture() -> None:
    picture = drawn()
    width, height = float(picture.attrib["width"]), float(picture.attrib["height"])
    for each in picture.iter(f"{SVG}rect"):
        assert float(each.attrib["x"]) + float(each.attrib["width"]) <= width
        assert float(each.attrib["y"]) + float(each.attrib["height"]) <= height


def test_nothing_measured_can_be_drawn() -> None:
    assert "not measured" in CHART.drawn([Pair("a", "", None, None)])
