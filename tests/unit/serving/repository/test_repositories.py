"""Several repositories served as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import NotInRepository, RepositoryError
from serving.repository.repositories import Repositories


@pytest.fixture
def two(tmp_path: Path) -> Repositories:
    for name in ("a/one", "a/both", "b/both", "b/two", "b/.hidden"):
        (tmp_path / name).mkdir(parents=True)
    return Repositories([tmp_path / "a", tmp_path / "b"])


def test_a_model_is_found_wherever_it_lies(two: Repositories, tmp_path: Path) -> None:
    assert two.models() == ["both", "one", "two"]
    assert [two.holding(name).path for name in ("one", "two")] == [tmp_path / "a", tmp_path / "b"]
    assert str(two) == f"{tmp_path / 'a'}, {tmp_path / 'b'}"


def test_a_name_in_two_of_them_means_neither(two: Repositories, tmp_path: Path) -> None:
    assert [two.appears_twice(name) for name in two.models()] == [True, False, False]
    with pytest.raises(
        RepositoryError, match=r"failed to load 'both'.*in two or more repositories: .*a/both and .*b/both"
    ):
        two.holding("both")
    before = two.fingerprint("both")
    (tmp_path / "b" / "both").rmdir()
    assert two.holding("both").path == tmp_path / "a"
    assert two.fingerprint("both") != before


@pytest.mark.parametrize("name", ["three", "", ".hidden", "a/one", "..", "one\n"])
def test_what_lies_nowhere(two: Repositories, name: str) -> None:
    with pytest.raises(NotInRepository, match=r"failed to poll from model repository"):
        two.holding(name)


@pytest.mark.parametrize(
    ("name", "said"), [("bth", "; did you mean 'both'?"), ("tow", "; did you mean 'two'?"), ("weather", "")]
)
def test_what_is_missing_is_told_with_the_nearest_name(name: str, said: str, two: Repositories, tmp_path: Path) -> None:
    assert two.lacks(name) == f"there is no folder '{name}' in {tmp_path / 'a'}, {tmp_path / 'b'}{said}"


def test_a_folder_named_twice_is_one(tmp_path: Path) -> None:
    (tmp_path / "a" / "one").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert Repositories([tmp_path / "a", tmp_path / "link", tmp_path / "a"]).holding("one").path == tmp_path / "a"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"nowhere does not exist; name one with --model-repository DIR"):
        Repositories([tmp_path, tmp_path / "nowhere"])
