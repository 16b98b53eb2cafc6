"""Who answers a request that names no version, or names one by a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import grpc
import pytest

from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.fake_models import parameters
from tests.support.running import EVERYTHING, FAKE, POLL, until
from tests.support.wire import RawClient, open_stream, refusal, request

LABELS = {"version_labels": "stable=1,canary=2"}
CODE = grpc.StatusCode


def repository(root: Path, values: Mapping[str, str], *versions: int) -> Path:
    for version in versions:
        fake_models.write(root, version=version)
    (root / "fake" / "config.pbtxt").write_text(parameters(values))
    return root


def answers(client: RawClient, count: int) -> Counter[str]:
    """How many of so many requests without a version each version answers; all of them at once."""
    asked = [client.infer_later(value=1.0) for _ in range(count)]
    return Counter(answer.result().model_version for answer in asked)


def test_a_label_is_taken_wherever_a_version_is(tmp_path: Path) -> None:
    with LaunchedServer(repository(tmp_path, LABELS, 1, 2), *FAKE) as server, RawClient(server.address) as client:
        for asked, answered in (("stable", "1"), ("canary", "2"), ("1", "1"), ("2", "2"), ("", "1")):
            assert client.version("fake", asked) == answered
            if asked:
                assert client.call("ModelReady", name="fake", version=asked).ready
                assert client.call("ModelMetadata", name="fake", version=asked).platform == "fake"
                assert client.call("ModelConfig", name="fake", version=asked).config.name == "fake"
                (statistics,) = client.call("ModelStatistics", name="fake", version=asked).model_stats
                assert statistics.version == answered
        for label in ("beta", "Stable", " stable", "stable=1"):
            code, said = refusal(lambda: client.version("fake", label))  # noqa: B023 - called at once
            assert code is CODE.INVALID_ARGUMENT
            assert said.startswith(f"failed to get model version from specified version string '{label}'")


@pytest.mark.parametrize(
    ("share", "expected"),
    [("0.25", {"1": 150, "2": 50}), ("0.01", {"1": 198, "2": 2}), ("1", {"2": 200}), ("0", {"1": 200})],
)
def test_a_canary_gets_exactly_its_share(share: str, expected: dict[str, int], tmp_path: Path) -> None:
    """Of the requests without a version, and of no others; a share of 0 is none, and stable answers."""
    folder = repository(tmp_path, LABELS | {"canary_share": share}, 1, 2)
    with LaunchedServer(folder, *FAKE) as server, RawClient(server.address) as client:
        assert answers(client, 100) + answers(client, 100) == expected
        assert {client.version("fake", "stable") for _ in range(20)} == {"1"}
        assert {client.version("fake", "canary") for _ in range(20)} == {"2"}


def test_a_canary_that_cannot_be_loaded_leaves_everything_to_the_stable_version(tmp_path: Path) -> None:
    folder = repository(tmp_path, LABELS | {"canary_share": "0.5"}, 1, 2)
    (folder / "fake" / "2" / "model.fake.json").write_text("{")
    with LaunchedServer(folder, *FAKE) as server, RawClient(server.address) as client:
        assert answers(client, 40) == {"1": 40}
        assert client.version("fake", "stable") == "1"
        code, said = refusal(lambda: client.version("fake", "canary"))
        assert code is CODE.UNAVAILABLE
        assert "version 2 is not at ready state (UNAVAILABLE: " in said
        assert "is not a usable fake model" in said
        assert client.call("ServerReady").ready


def test_labels_are_moved_while_requests_flow(tmp_path: Path) -> None:
    folder = repository(tmp_path, {"version_labels": "stable=1"}, 1)
    with LaunchedServer(folder, *EVERYTHING) as server, RawClient(server.address) as client:
        assert client.version("fake", "stable") == "1"
        assert refusal(lambda: client.version("fake", "canary"))[0] is CODE.INVALID_ARGUMENT
        repository(folder, LABELS | {"canary_share": "0.1"}, 2)
        client.load("fake")
        assert answers(client, 100) == {"1": 90, "2": 10}
        (folder / "fake" / "config.pbtxt").write_text(parameters({"version_labels": "stable=2"}))
        client.load("fake")
        assert answers(client, 20) == {"2": 20}
        assert client.version("fake", "stable") == "2"
        until(lambda: set(client.index()) == {"fake/2"})


def test_a_label_stays_where_it_was_when_the_new_version_cannot_be_loaded(tmp_path: Path) -> None:
    folder = repository(tmp_path, {"version_labels": "stable=1"}, 1)
    with LaunchedServer(folder, *EVERYTHING) as server, RawClient(server.address) as client:
        repository(folder, {"version_labels": "stable=2"}, 2)
        (folder / "fake" / "2" / "model.fake.json").write_text("{")
        assert refusal(lambda: client.load("fake"))[0] is CODE.INVALID_ARGUMENT
        assert client.version("fake", "stable") == "1"
        assert answers(client, 20) == {"1": 20}


def test_a_label_of_a_version_that_is_not_there_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    folder = repository(tmp_path, {}, 1)
    with LaunchedServer(folder, *POLL) as server, RawClient(server.address) as client:
        (folder / "fake" / "config.pbtxt").write_text(parameters(LABELS))
        until(lambda: "version_labels or shadow name [2]; on disk there are [1]" in client.index()["fake/1"][1])
        assert answers(client, 20) == {"1": 20}


def test_a_stream_is_routed_like_single_requests(tmp_path: Path) -> None:
    folder = repository(tmp_path, LABELS | {"canary_share": "0.2"}, 1, 2)
    with LaunchedServer(folder, *FAKE) as server, RawClient(server.address) as client:
        got = [answer.infer_response for answer in open_stream(client, (request("fake", 1.0, 1) for _ in range(50)))]
        assert Counter(answer.model_version for answer in got) == {"1": 40, "2": 10}
