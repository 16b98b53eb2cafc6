"""Why a model could not be loaded: its kind for the metrics, its words for the index, its counts."""

from __future__ import annotations

import pytest

from serving.errors import (
    BackendUnavailable,
    ComputeFailed,
    MissingFormat,
    ModelConfigError,
    NotInRepository,
    RepositoryError,
    VerificationFailed,
)
from serving.lifecycle import load_failures
from serving.lifecycle.load_failures import LoadFailures


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ModelConfigError("max_queue"), "config"),  # although it is an error of the repository, too
        (RepositoryError("damaged"), "repository"),
        (MissingFormat("no model.onnx"), "repository"),
        (NotInRepository("nosuch"), "repository"),
        (BackendUnavailable("no GPU"), "backend_unavailable"),
        (VerificationFailed("off by one"), "verification"),
        (FileNotFoundError("gone"), "system"),
        (MemoryError(), "system"),
        (ComputeFailed("no load fails so"), "internal"),
        (ZeroDivisionError("a fault of ours"), "internal"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_the_kind_of_a_failure(error: Exception, kind: str) -> None:
    assert load_failures.kind_of(error) == kind
    assert kind in load_failures.KINDS


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RepositoryError("it is damaged"), "it is damaged"),
        (MemoryError(), "MemoryError"),
        (ValueError("a" * 3000), "a" * 2000 + "..."),
    ],
    ids=["its own words", "none", "too many"],
)
def test_the_words_of_a_failure(error: Exception, words: str) -> None:
    assert load_failures.in_words(error) == words


def test_failures_are_counted_by_model_version_and_kind() -> None:
    failures = LoadFailures()
    for version, kind in (("1", "config"), ("1", "config"), ("2", "config"), ("", "repository")):
        failures.count("m", version, kind)
    before = failures.snapshot()
    failures.count("m", "1", "config")
    assert before == {("m", "1", "config"): 2, ("m", "2", "config"): 1, ("m", "", "repository"): 1}
    assert failures.snapshot()["m", "1", "config"] == 3


def test_a_reason_is_text_that_can_be_sent() -> None:
    """A name on disk that is no UTF-8 comes to Python with surrogates in it, which protobuf refuses."""
    assert load_failures.in_words(RepositoryError("no such file: 'caf\udce9'")) == "no such file: 'caf?'"
