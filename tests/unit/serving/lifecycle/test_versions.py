"""What is known of a model and its versions: who answers by default, whose requests are copied, what counts go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from serving.batching.model import Lease
from serving.errors import InvalidRequest
from serving.lifecycle.versions import ModelEntry, VersionEntry, because, parse_version
from serving.loading.request import Loaded
from serving.repository.folders import Repository
from serving.repository.routes import Routes, Target
from serving.repository.sent_files import Override
from tests.support.loading import loaded


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Loaded]]:
    """Versions 1, 2 and 10, loaded."""
    root = tmp_path_factory.mktemp("repository")
    made = {str(number): loaded(root, number) for number in (1, 2, 10)}
    yield made
    for one in made.values():
        assert one.model.close(10)


def entry(versions: dict[str, Loaded], *ready: str, routes: Routes | None = None) -> ModelEntry:
    """A model of which these versions can answer, and version 11 cannot."""
    model = ModelEntry("fake")
    model.entry("11").state = "UNAVAILABLE"
    for version in ready:
        one = model.entry(version)
        one.state, one.loaded = "READY", versions[version]
    model.adopt(routes or Routes())
    return model


def number(entry: VersionEntry | None) -> str | None:
    return entry.version if entry else None


BOTH = Routes(labels={"stable": 1, "canary": 2}, canary_share=0.5)


@pytest.mark.parametrize(
    ("why", "ready", "routes", "answering"),
    [
        ("nothing can answer", [], Routes(), [None]),
        ("the highest by number", ["10", "2"], Routes(), ["10"]),
        ("what is labelled stable", ["1", "2", "10"], Routes(labels={"stable": 2}), ["2"]),
        ("another label changes nothing", ["1", "2"], Routes(labels={"old": 1}), ["2"]),
        ("the stable one cannot answer: the highest", ["1", "10"], Routes(labels={"stable": 2}), ["10"]),
        ("every second to the canary", ["1", "2"], BOTH, ["1", "2", "1", "2"]),
        ("the canary cannot answer: the stable one", ["1", "10"], BOTH, ["1", "1"]),
    ],
)
def test_who_answers_a_request_that_names_no_version(
    why: str, ready: Sequence[str], routes: Routes, answering: Sequence[str | None], versions: dict[str, Loaded]
) -> None:
    model = entry(versions, *ready, routes=routes)
    assert [number(model.default()) for _ in answering] == answering, why


@pytest.mark.parametrize(
    ("why", "shadow", "labels", "followed"),
    [
        ("a version follows all others", Target(version=2), {}, ["1", "10"]),
        ("a version in another backend follows itself, too", Target(version=2, backend="fake"), {}, ["1", "2", "10"]),
        ("a backend follows the highest", Target(backend="fake"), {}, ["10"]),
        ("a backend follows the stable one", Target(backend="fake"), {"stable": 2}, ["2"]),
    ],
)
def test_whose_requests_a_shadow_gets_copies_of(
    why: str, shadow: Target, labels: dict[str, int], followed: Sequence[str], versions: dict[str, Loaded]
) -> None:
    model = entry(versions, "10", "1", "2", routes=Routes(labels=labels, shadow=shadow, shadow_share=1))
    assert [one.version for one in model.followed()] == followed, why


def test_a_lease_is_only_given_on_what_answers(versions: dict[str, Loaded]) -> None:
    model = entry(versions, "1")
    assert model.entry("11").leases(2) == []
    one = model.entry("1")
    leases = one.leases(2)
    assert [lease.model for lease in leases] == [versions["1"].model] * 2
    Lease.release_all(leases)
    one.state = "UNLOADING"
    assert one.leases(1) == []


def test_the_status_of_a_version(versions: dict[str, Loaded]) -> None:
    model = entry(versions, "1")
    counts = model.counts("1")("fake")
    seen, other = model.statuses()[1], model.statuses()[0]
    assert (seen.state, seen.backend, seen.verified, seen.alive, seen.depth) == ("READY", "fake", True, True, 0)
    assert (other.version, other.state, other.backend, other.alive) == ("11", "UNAVAILABLE", "", None)
    assert seen.counts == {"fake": counts}
    assert model.serves
    assert not entry(versions).serves


def test_counts_go_on_when_a_backend_comes_back(versions: dict[str, Loaded]) -> None:
    model = entry(versions, "1")
    first = model.counts("1")("fake")
    seen = model.statuses()[1].counts
    assert model.counts("1")("torchscript") is not first
    assert model.counts("1")("fake") is first
    assert list(seen) == ["fake"], "what somebody has seen never changes"
    assert list(model.statuses()[1].counts) == ["fake", "torchscript"]


def test_the_counts_of_a_shadow_go_on_for_each_version_that_it_follows(versions: dict[str, Loaded]) -> None:
    model = entry(versions, "1", "2", "10", routes=Routes(shadow=Target(version=2), shadow_share=1))
    first = model.shadow_counts("2/fake")
    assert list(first) == ["1", "10"]
    assert model.shadow_counts("2/fake") == first
    assert model.shadow_counts("2/torchscript")["1"] is not first["1"]


@pytest.mark.parametrize("everything", [False, True])
def test_files_that_were_sent_stay_while_something_was_loaded_from_them(everything: bool, tmp_path: Path) -> None:
    used, left = (tmp_path / name for name in ("used", "left"))
    one = loaded(used)
    left.mkdir()
    model = ModelEntry("fake")
    model.entry("1").loaded = one
    model.keep(Override(one.request.repository))
    model.keep(Override(Repository(left)))
    model.tidy(everything=everything)
    assert [folder.exists() for folder in (used, left)] == [not everything, False]
    assert one.model.close(10)


@pytest.mark.parametrize(
    ("asked", "version"),
    [("", ""), ("1", "1"), ("007", "7"), ("0", "0"), ("1" * 18, "1" * 18)],
)
def test_a_version_as_a_client_may_name_it(asked: str, version: str) -> None:
    assert parse_version(asked) == version


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("one", "specified version string 'one', version should be an integral value > 0"),
        ("1.0", "version string '1.0'"),
        (" 1", "version string ' 1'"),
        ("\u0661", "version string '\u0661'"),  # a digit elsewhere
        ("9" * 19, f"version string '{'9' * 19}'"),
        ("a" * 100, f"version string '{'a' * 40}'"),
        ("-1", "invalid model version specified '-1'"),
        ("-", "version string '-'"),
    ],
)
def test_what_is_no_version(asked: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_version(asked)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([], ""),
        ([("LOADING", "")], " (LOADING)"),
        ([("UNAVAILABLE", "it is damaged"), ("LOADING", "")], " (UNAVAILABLE: it is damaged; LOADING)"),
        ([("UNAVAILABLE", "unloaded")] * 2, " (UNAVAILABLE: unloaded)"),
    ],
)
def test_the_sentence_about_what_cannot_answer(entries: Sequence[tuple[str, str]], told: str) -> None:
    assert because(*(VersionEntry(name="m", state=state, reason=why) for state, why in entries)) == told  # type: ignore[arg-type]
