"""Who answers a request: labels, shares and shadows, as `config.pbtxt` words them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from serving import backends
from serving.repository import routes
from serving.repository.routes import Routes, Target

LABELS = {"stable": 1, "next": 2}


def parsed(**parameters: str) -> Routes:
    return routes.parse(parameters, backends.named)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", Target(version=2)),
        ("next", Target(version=2)),
        ("torchscript", Target(backend="torchscript")),
        ("pytorch_libtorch@cuda:1", Target(backend="torchscript", device="cuda:1")),
        ("onnxruntime@cpu", Target(backend="onnx_runtime", device="cpu")),
        ("2/tensorflow", Target(version=2, backend="saved_model")),
        ("stable/fake@cpu", Target(version=1, backend="fake", device="cpu")),
    ],
)
def test_what_a_shadow_may_be(text: str, expected: Target) -> None:
    made = routes.target(text, LABELS, backends.named)
    assert made == expected
    assert routes.target(str(made), {}, backends.named) == made, "what is told of it can be written"


@pytest.mark.parametrize(
    "text",
    [
        "cobol",
        "2/cobol",
        "2/",
        "/fake",
        "/",
        "fake/2",
        "beta/fake",
        "2@cpu",
        "next@cpu",
        "@cpu",
        "2/fake/cpu",
        "-1",
        "0",
        "02",
        "²",
        "1e3",
        "0/fake",
    ],
)
def test_what_a_shadow_may_not_be(text: str) -> None:
    with pytest.raises(ValueError, match=r"it must be a version or a label, a backend"):
        routes.target(text, LABELS, backends.named)


def test_routes_as_they_are_written() -> None:
    assert parsed() == Routes()
    assert parsed(version_labels="") == Routes()
    made = parsed(version_labels=" stable=1, canary = 12,", canary_share="0.05", shadow="canary", shadow_share="1")
    assert made == Routes(
        labels={"stable": 1, "canary": 12}, canary_share=0.05, shadow=Target(version=12), shadow_share=1.0
    )
    assert [made.version(asked) for asked in ("canary", "", "3", "beta")] == ["12", "", "3", "beta"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        *(
            ({"version_labels": text}, "it must be a list such as")
            for text in (
                "stable",
                "stable=",
                "stable=0",
                "stable=01",
                "1=1",
                "=1",
                "a=1;b=2",
                "a=1,a=2",
                "a=-1",
                "a b=1",
            )
        ),
        *(
            ({"version_labels": "stable=1,canary=2", "canary_share": text}, "it must be a number from 0 to 1")
            for text in ("", "much", "-0.1", "1.1", "nan", "inf")
        ),
        ({"version_labels": "stable=1", "canary_share": "0.5"}, "version_labels sets stable; write"),
        ({"canary_share": "0.5"}, "version_labels sets none; write"),
        ({"shadow": "2"}, "shadow and shadow_share go together"),
        ({"shadow": "2", "shadow_share": "0"}, "shadow and shadow_share go together"),
        ({"shadow_share": "1"}, "shadow and shadow_share go together"),
    ],
)
def test_routes_that_are_refused(parameters: Mapping[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parsed(**parameters)
