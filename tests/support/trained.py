"""The demonstration's models, trained on real data and exported as a user would (half a minute)."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import ROOT
from tests.support.pages import blocks

GETTING_STARTED = ROOT / "docs/getting-started.md"
MODELS = ("vowels_torch", "vowels_keras")


@dataclass(frozen=True)
class Trained:
    """A folder with both Vowels models: a repository with all formats, and the runs that they come from, by the model's name."""

    folder: Path

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    @property
    def runs(self) -> dict[str, Path]:
        return {"vowels_torch": self.folder / "torch", "vowels_keras": self.folder / from_getting_started()[0][-1]}


def from_getting_started() -> list[list[str]]:
    """The commands of docs/getting-started.md that train, export and serve, in this order."""
    block = next(block for block in blocks(GETTING_STARTED, "bash") if "lstm-train" in block)
    activate, *lines = block.splitlines()
    assert activate == ". .venv/bin/activate"
    train, export, serve = map(shlex.split, lines)
    assert train[-2] == "--out"
    return [train, export, serve]


def train(folder: Path) -> None:
    """Fills the folder of a `Trained`. The Keras model is the one of getting started, trained by its very command.

    Nobody asks how well the other one has learnt, only whether everybody answers as it does.
    """
    made = Trained(folder)
    command("lstm-train", "vowels", "--framework", "torch", "--epochs", "5", "--out", "torch", folder=folder)
    command(*from_getting_started()[0], folder=folder)
    for model in MODELS:
        flags = ("--format", "all", "--repository", str(made.repository), "--name", model)
        command("lstm-export", "checkpoint", str(made.runs[model]), *flags, folder=folder)


def command(name: str, *arguments: str, folder: Path) -> None:
    """Runs an installed command in a folder."""
    program = Path(sys.executable).parent / name
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{name} {' '.join(arguments)} failed:\n{done.stderr}"
