"""What the README shows works as pasted."""

from __future__ import annotations

import re
import subprocess

from serving.__main__ import parser
from serving.launch import LaunchedServer
from tests.support import trained
from tests.support.commands import ROOT
from tests.support.trained import Trained


def test_the_example_runs_in_the_clients_own_environment(vowels: Trained, client_python: str) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 10
    assert "127.0.0.1:8001" in example
    with LaunchedServer(vowels.repository) as server:
        pasted = example.replace("127.0.0.1:8001", server.address)
        done = subprocess.run([client_python, "-c", pasted], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip(" []\n").split()) == 9


def test_the_way_from_training_to_serving(vowels: Trained) -> None:
    """Its command has trained one of the models that all these tests share."""
    _, export, serve = trained.from_the_readme()
    trained.command(*export, folder=vowels.folder)
    asked = parser().parse_args(serve[1:])
    with LaunchedServer(vowels.folder / asked.model_repository[0], "--backend", asked.backend) as server:
        loaded = server.wait_for("loaded", 1)
        assert (loaded["model"], loaded["backend"]) == ("speakers", "saved_model")
