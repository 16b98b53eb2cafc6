"""What a user's code can import: its own packages, whatever they are called, and nothing of ours."""

from __future__ import annotations

import ast
import os
import tomllib
from pathlib import Path

import pytest

from export.user_code import program
from export.user_code.asking import UserCode
from tests.support import user_projects
from tests.support.commands import ROOT

THEIRS = [f"{package}.of_the_user" for package in user_projects.PACKAGES]
FACTORY = "def build():\n    return lambda **arrays: 0\n"


def found(where: str, names: list[str]) -> dict[str, str]:
    """Where the child finds these modules."""
    with UserCode("fake", where) as code:
        made: dict[str, str] = code.ask("where", names=names).header["found"]
        return made


@pytest.mark.parametrize("marked", [True, False], ids=["packages", "namespaces"])
@pytest.mark.parametrize("named", [True, False], ids=["PYTHONPATH", "working directory"])
def test_the_users_packages_are_found_and_ours_are_not(
    marked: bool, named: bool, fake_part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although our folder stands before theirs on PYTHONPATH, and the interpreter has it from its environment."""
    project = tmp_path / "another" if named else fake_part
    user_projects.packages(project, marked=marked)
    (project / "models" / "made.py").write_text(FACTORY)
    path = [ROOT, project] if named else [ROOT]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, path)))
    ours = ["serving.signature.spec", "export.errors", "models.config", "commands.parser"]
    assert found("models.made:build", [*THEIRS, *ours]) == dict.fromkeys(THEIRS, str(project)) | dict.fromkeys(ours, "")


def test_the_working_directory_comes_first_then_pythonpath(
    fake_part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (fake_part, tmp_path / "on the path"):
        folder.mkdir(exist_ok=True)
        (folder / "both.py").write_text(f"HERE = {folder.name!r}\n{FACTORY}")
    (tmp_path / "on the path" / "there.py").write_text("HERE = 'on the path'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "on the path"))
    assert found("both:build", ["both", "there"]) == {"both": "project", "there": "on the path"}


def test_a_checkout_of_ours_as_the_working_directory(
    fake_part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in it beside our packages can be imported; our packages give way to the user's."""
    for package in ("serving/signature", "models"):
        (fake_part / package).mkdir(parents=True)
        (fake_part / package / "__init__.py").write_text("raise RuntimeError('ours')\n")
    (fake_part / "serving" / "signature" / "spec.py").touch()
    (fake_part / "beside.py").write_text(f"HERE = 'beside'\n{FACTORY}")
    (fake_part / "folder").mkdir()
    (fake_part / "folder" / "inside.py").write_text("HERE = 'inside'\n")
    user_projects.packages(tmp_path / "project of the user", marked=False)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "project of the user"))
    expected = {"beside": "beside", "folder.inside": "inside"} | dict.fromkeys(
        THEIRS, str(tmp_path / "project of the user")
    )
    assert found("beside:build", list(expected)) == expected


def test_nothing_of_ours_is_imported_in_the_child(fake_part: Path) -> None:
    (fake_part / "mine.py").write_text(FACTORY)
    with UserCode("fake", "mine:build") as code:
        assert {module.partition(".")[0] for module in code.facts["modules"]} & program.OURS == set()
        assert str(ROOT) not in code.facts["path"]


@pytest.mark.parametrize("file", ["program", "torch_part", "keras_part"])
def test_the_childs_files_import_nothing_of_ours(file: str) -> None:
    tree = ast.parse((ROOT / "export" / "user_code" / f"{file}.py").read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in names} & program.OURS == set()


def test_what_is_ours_is_known() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]) == program.OURS
