"""The names of classes: whose they are, and from which file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from serving.errors import RepositoryError
from serving.repository import labels, model_config
from serving.repository.folders import Repository
from tests.support.fake_models import spec

CLASSES = dataclasses.replace(spec(), labels_of="y")


def output(name: str, file: str) -> str:
    return f'output {{ name: "{name}" data_type: TYPE_FP32 dims: 2 label_filename: "{file}" }} '


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    (tmp_path / "m" / "inside").mkdir(parents=True)
    for name, text in {"labels.txt": "a\nb\n", "mine.txt": "c\nd", "inside/e.txt": "e\n", "empty.txt": ""}.items():
        (tmp_path / "m" / name).write_text(text)
    (tmp_path / "outside.txt").write_text("x")
    return Repository(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", {"y": ("a", "b")}),
        (output("y", "labels.txt"), {"y": ("a", "b")}),
        (output("y", "mine.txt"), {"y": ("c", "d")}),
        (output("z", "inside/e.txt"), {"z": ("e",), "y": ("a", "b")}),
    ],
)
def test_names_by_output(text: str, told: dict[str, tuple[str, ...]], repository: Repository) -> None:
    read = labels.read(repository, model_config.parse(text, "m"))
    assert labels.of_outputs(read, CLASSES) == told
    assert labels.of_outputs(read, spec()) == {name: names for name, names in told.items() if f'"{name}"' in text}


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("none.txt", "label_filename of output 'y' is 'none.txt', and .*m/none.txt holds no labels: write one a line"),
        ("empty.txt", "holds no labels"),
        ("../outside.txt", "it must be a file in the folder of the model"),
        ("/etc/hostname", "it must be a file in the folder of the model"),
        ("inside", "is a folder, no plain file"),
    ],
)
def test_files_that_hold_none(file: str, said: str, repository: Repository) -> None:
    with pytest.raises(RepositoryError, match=said):
        labels.read(repository, model_config.parse(output("y", file), "m"))


def test_without_any(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    assert labels.read(Repository(tmp_path), model_config.parse(None, "m")) == {}


@pytest.mark.parametrize(
    ("named", "shape", "said"),
    [
        ({"y": ("a", "b")}, (-1, 2), []),
        ({"y": ("a", "b", "c")}, (-1, 2), ["there are 3 labels for the 2 places of output 'y'"]),
        ({"y": ("a",)}, (-1, 2, 3), ["there are 1 labels for the 6 places of output 'y'"]),
        ({"y": ("a",)}, (-1, -1, 2), []),  # nobody knows how many places
        ({"z": ("a",)}, (-1, 2), []),
    ],
)
def test_another_number_of_names_than_places_is_told(
    named: dict[str, tuple[str, ...]], shape: tuple[int, ...], said: list[str]
) -> None:
    y, *others = spec().outputs
    changed = dataclasses.replace(spec(), outputs=(dataclasses.replace(y, shape=shape), *others))
    told = labels.miscounted(named, changed)
    assert [sentence.split(":")[0] for sentence in told] == said
