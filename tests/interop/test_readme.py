"""What the README shows works as pasted."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from serving.__main__ import parser
from serving.launch import LaunchedServer
from tests.support.commands import ROOT
from tests.support.trained import Trained

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_runs_in_the_clients_own_environment(vowels: Trained, client_python: str) -> None:
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line]) <= 10
    assert "127.0.0.1:8001" in example
    with LaunchedServer(vowels.repository) as server:
        pasted = example.replace("127.0.0.1:8001", server.address)
        done = subprocess.run([client_python, "-c", pasted], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip(" []\n").split()) == 9


def test_the_way_from_training_to_serving(tmp_path: Path) -> None:
    activate, *lines = blocks("bash")[1].splitlines()
    assert activate == ". .venv/bin/activate"
    train, export, serve = map(shlex.split, lines)
    for command in (train, export):
        done = subprocess.run(
            [str(Path(sys.executable).parent / command[0]), *command[1:]],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    asked = parser().parse_args(serve[1:])
    with LaunchedServer(tmp_path / asked.model_repository, "--backend", asked.backend) as server:
        loaded = server.wait_for("loaded", 1)
        assert (loaded["model"], loaded["backend"]) == ("speakers", "saved_model")


def test_every_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)\b", README, re.MULTILINE))
    assert named
    assert named <= targets


def test_every_file_that_is_named_exists() -> None:
    assert [link for link in re.findall(r"\]\((?!http)([^)]+)\)", README) if not (ROOT / link).exists()] == []
    named = set(re.findall(r"`((?:models|export|serving|protos)/[\w/]+\.py)`", README))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
