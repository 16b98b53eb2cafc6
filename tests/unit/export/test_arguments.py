"""The texts of the command line of `lstm-export` and what they mean."""

from __future__ import annotations

from typing import Any

import pytest

from export.arguments import hints, parser, sizes, tensor
from export.errors import ExportError
from serving.verification.hints import Hints

IMPORT = ("import", "m.onnx", "--name", "m")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x:FP32[-1,-1,8]", ("x", ("FP32", (-1, -1, 8)))),
        (" lengths:INT64[-1] ", ("lengths", ("INT64", (-1,)))),
        ("sr:INT64[]", ("sr", ("INT64", ()))),
        ("a b.c:BOOL[1, 2]", ("a b.c", ("BOOL", (1, 2)))),
    ],
)
def test_tensors(text: str, expected: tuple[str, tuple[str, tuple[int, ...]]]) -> None:
    assert tensor(text) == expected


@pytest.mark.parametrize(
    "text", ["x", "x:FP32", "x:[1]", "x:FP31[1]", ":FP32[1]", "x:FP32[1", "x:FP32[a]", "x:fp32[1]"]
)
def test_what_is_no_tensor(text: str) -> None:
    with pytest.raises(ExportError, match=r"is no tensor: write NAME:DATATYPE\[SIZES\], as in x:FP32\[-1,-1,8\]"):
        tensor(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1,1.5", "'x' holds sizes that are no whole numbers"),
        ("1,-", "'x' holds sizes that are no whole numbers"),
        ("0", r"'x' holds a size that is neither positive nor -1 \(free\)"),
        ("-2", "neither positive nor -1"),
    ],
)
def test_what_are_no_sizes(text: str, sentence: str) -> None:
    with pytest.raises(ExportError, match=sentence):
        sizes(text, "x")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ([], Hints()),
        (["--shape", "x:-1,576", "--shape", "h:1"], Hints(shapes={"x": (-1, 576), "h": (1,)})),
        (["--value", "sr=16000", "--value", "t=1e-3"], Hints(values={"sr": 16000.0, "t": 0.001})),
        (["--value", "language=en=GB"], Hints(values={"language": "en=GB"})),
        (["--rows", "x=1", "--rows", "sr=none"], Hints(rows={"x": 1, "sr": None})),
        (["--state", "h=hn", "--state", "c=cn"], Hints(state={"h": "hn", "c": "cn"})),
        (["--state", "none"], Hints(state={})),
    ],
)
def test_hints(line: list[str], expected: Hints) -> None:
    assert hints(parser().parse_args([*IMPORT, *line])) == expected


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["--shape", "x=3"], "--shape 'x=3' lacks the ':' between a name and what is said of it"),
        (["--state", "h"], "--state 'h' lacks the '='"),
        (["--rows", "x=fast"], "--rows: 'fast' is no number"),
        (["--rows", "x=first"], "--rows: 'first' is no number"),
    ],
)
def test_what_are_no_hints(line: list[str], sentence: str) -> None:
    with pytest.raises(ExportError, match=sentence):
        hints(parser().parse_args([*IMPORT, *line]))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["checkpoint", "RUN", "--format", "onnx", "--name", "m"], {"source": "checkpoint", "precision": "fp32"}),
        (["module", "a:b", "--input", "x", "--format", "all", "--name", "m"], {"source": "module", "weights": None}),
        (["keras", "a.keras", "--format", "all", "--name", "m"], {"source": "keras", "output": []}),
        ([*IMPORT, "--version", "3"], {"source": "import", "version": 3, "tolerance": 1e-5}),
    ],
)
def test_every_source_has_its_options(line: list[str], expected: dict[str, Any]) -> None:
    options = vars(parser().parse_args(line))
    assert {name: options[name] for name in expected} == expected
