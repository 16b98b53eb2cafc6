"""What counts as a model and a version on disk, and what is said of a folder that is neither."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from serving.errors import RepositoryError
from serving.repository.folders import MAX_TEXT_BYTES, Repository
from tests.support import fake_models


def test_models_and_versions(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        fake_models.write(tmp_path, "b", version)
    fake_models.write(tmp_path, "a")
    for stray in ("b/.3.tmp", "b/007", "b/latest", "b/0", ".hidden", "bad\udcff"):
        (tmp_path / stray).mkdir()
    (tmp_path / "README").write_text("a file is no model")
    repository = Repository(tmp_path)
    assert repository.models() == ["a", "b"]
    assert [version.number for version in repository.versions("b")] == [1, 2, 10]
    assert repository.versions("a")[0].formats() == ("fake",)
    assert repository.config_text("a") is None


def test_a_fingerprint_changes_with_every_file_but_those_that_are_being_written(tmp_path: Path) -> None:
    version = fake_models.write(tmp_path / "there")
    repository = Repository(tmp_path / "there")
    looks = [repository.fingerprint("fake")]

    def changed() -> bool:
        looks.append(repository.fingerprint("fake"))
        return looks[-1] != looks[-2]

    assert not changed()
    (version / "model.savedmodel" / "variables").mkdir(parents=True)
    assert not changed(), "an empty folder holds nothing"
    for path in (version / "model.savedmodel" / "variables" / "data", version.parent / "config.pbtxt"):
        path.write_text("a")
        assert changed()
        path.write_text("b, and longer")
        assert changed()
    version.rename(version.with_name(".1.old"))
    assert changed()
    (version.with_name(".1.old") / "model.onnx").touch()
    assert not changed()
    for target in ("here", "elsewhere"):
        (tmp_path / "link").symlink_to(tmp_path / target)
        (tmp_path / "link").rename(version)
        assert changed(), "a link was turned"


def test_a_fingerprint_follows_links_to_files(tmp_path: Path) -> None:
    """As in Kubernetes, where a ConfigMap is a link to a link that is turned: neither the file nor its link changes."""
    model = fake_models.write(tmp_path / "repository").parent
    repository = Repository(tmp_path / "repository")
    for name in ("..first", "..second"):
        (model / name).mkdir()
        (model / name / "config.pbtxt").write_text("max_batch_size: 4")
        os.utime(model / name / "config.pbtxt", ns=(0, 0))
    (model / "..data").symlink_to("..first")
    (model / "config.pbtxt").symlink_to("..data/config.pbtxt")
    before = repository.fingerprint("fake")
    assert repository.fingerprint("fake") == before
    (model / "turned").symlink_to("..second")
    (model / "turned").rename(model / "..data")
    turned = repository.fingerprint("fake")
    assert turned != before
    (model / "..second" / "config.pbtxt").write_text("max_batch_size: 8")
    assert repository.fingerprint("fake") != turned
    (model / "..second" / "config.pbtxt").unlink()
    assert repository.fingerprint("fake") != turned, "a link to nothing is something too"


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="does not exist; name one with --model-repository"):
        Repository(tmp_path / "nowhere")


def test_a_model_without_versions(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(RepositoryError, match="holds no version: a version is a folder named by a whole number"):
        Repository(tmp_path).versions("m")


def test_texts_are_small_plain_files(tmp_path: Path) -> None:
    fake_models.write(tmp_path, "m")
    repository = Repository(tmp_path)
    assert repository.labels("m", "labels.txt") == ()
    (tmp_path / "m" / "labels.txt").write_text("cold\nvery warm\n\u2028odd\n")
    assert repository.labels("m", "labels.txt") == ("cold", "very warm", "\u2028odd")
    os.mkfifo(tmp_path / "m" / "config.pbtxt")
    with pytest.raises(RepositoryError, match=r"config.pbtxt is a named pipe, no plain file"):
        repository.config_text("m")
    (tmp_path / "m" / "config.pbtxt").unlink()
    (tmp_path / "m" / "config.pbtxt").write_text(" " * (MAX_TEXT_BYTES + 1))
    with pytest.raises(RepositoryError, match=f"has {MAX_TEXT_BYTES + 1} bytes; at most"):
        repository.config_text("m")
    (tmp_path / "m" / "config.pbtxt").write_text("max_batch_size: 8", encoding="utf-16")
    with pytest.raises(
        RepositoryError, match=r"cannot be read: .* at byte 0, so it is no UTF-8; save it as UTF-8 without BOM"
    ):
        repository.config_text("m")


def test_links_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    """Whoever made them meant something; as if nothing were there, an older version would be served without a word."""
    folder = fake_models.write(tmp_path, "m")
    (tmp_path / "gone").symlink_to("nowhere")
    repository = Repository(tmp_path)
    assert (repository.models(), repository.has("gone"), repository.has("nothing")) == (["gone", "m"], True, False)
    with pytest.raises(RepositoryError, match="gone is a symbolic link to nowhere, which is not there"):
        repository.versions("gone")
    for name, look in {
        "2": lambda: repository.versions("m"),
        "config.pbtxt": lambda: repository.config_text("m"),
        "labels.txt": lambda: repository.labels("m", "labels.txt"),
        "1/spec.json": repository.versions("m")[0].spec,
        "1/golden.npz": repository.versions("m")[0].samples,
    }.items():
        link = folder.parent / name
        link.unlink(missing_ok=True)
        link.symlink_to("nowhere")
        with pytest.raises(RepositoryError, match=f"{name} is a symbolic link to nowhere, which is not there"):
            look()
        link.unlink()


def test_a_link_that_cannot_be_followed_is_the_trouble_of_its_model_alone(tmp_path: Path) -> None:
    folder = fake_models.write(tmp_path, "m")
    (tmp_path / "endless").symlink_to("a" * 300)
    repository = Repository(tmp_path)
    before = repository.fingerprint("m")
    assert repository.models() == ["endless", "m"]
    assert repository.has("endless")
    assert repository.fingerprint("endless") == ()
    with pytest.raises(
        RepositoryError, match=r"endless is a symbolic link to aaa.* cannot be looked at: File name too long"
    ):
        repository.versions("endless")
    (folder / "labels.txt").symlink_to("a" * 300)
    assert repository.fingerprint("m") != before
    with pytest.raises(RepositoryError, match=r"labels\.txt cannot be looked at: File name too long"):
        repository.versions("m")[0].check()
    (folder.parent / "2").symlink_to("a" * 300)
    with pytest.raises(RepositoryError, match=r"2 is a symbolic link to aaa.* cannot be looked at: File name too long"):
        repository.versions("m")


def test_whatever_lies_in_a_version_must_be_a_plain_file(tmp_path: Path) -> None:
    folder = fake_models.write(tmp_path, "m")
    (version,) = Repository(tmp_path).versions("m")
    (folder / "model.savedmodel" / "variables").mkdir(parents=True)
    (folder / "link").symlink_to("model.savedmodel")
    version.check()
    os.mkfifo(folder / "model.savedmodel" / "variables" / "data")
    with pytest.raises(RepositoryError, match="variables/data is a named pipe, no plain file"):
        version.check()


def test_a_version_that_may_not_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_models.write(tmp_path, "m")
    (version,) = Repository(tmp_path).versions("m")

    def refused(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refused)  # for root nothing is forbidden
    with pytest.raises(RepositoryError, match="m/1 cannot be read: Permission denied"):
        version.check()


@pytest.mark.parametrize("name", ["model.onnx", "model.savedmodel", "spec.json"])
def test_a_version_or_a_model_in_place_of_the_repository_is_told(name: str, tmp_path: Path) -> None:
    version = tmp_path / "r" / "m" / "1"
    version.mkdir(parents=True)
    (version / name).mkdir()
    with pytest.raises(RepositoryError) as of_version:
        Repository(version)
    assert str(of_version.value) == (
        f"the model repository {version} holds {name} itself: it is a version; name the folder that holds the models, "
        f"--model-repository {tmp_path / 'r'}"
    )
    with pytest.raises(RepositoryError) as of_model:
        Repository(version.parent).versions("1")
    assert str(of_model.value).endswith(
        f"{version} is a version, not a model: it holds {name}; name the folder that holds the models, "
        f"--model-repository {tmp_path / 'r'}"
    )


def test_files_beside_where_versions_stand_are_told_where_to_go(tmp_path: Path) -> None:
    (tmp_path / "r" / "m").mkdir(parents=True)
    (tmp_path / "r" / "m" / "model.onnx").touch()
    with pytest.raises(RepositoryError, match=r"holds no version: .*, like .*/r/m/1; put model\.onnx into it$"):
        Repository(tmp_path / "r").versions("m")
    with pytest.raises(RepositoryError, match=r"r/m holds model\.onnx itself: .* put it into .*/r/m/MODEL/1$"):
        Repository(tmp_path / "r" / "m")
