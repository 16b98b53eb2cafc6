"""The commands of the README, in their order, with files such as it speaks of: from a Keras 2 file to a swap under load."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import torch

from serving.__main__ import parser
from serving.launch import LaunchedServer
from tests.support import artefacts, trained
from tests.support.commands import ROOT
from tests.support.pages import commands

NETWORK = """
import torch


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(40, 8, batch_first=True)
        self.head = torch.nn.Linear(8, 2)

    def forward(self, x):
        steps, _ = self.lstm(x)
        return self.head(steps[:, -1])


def build():
    return Network()
"""


def files(folder: Path) -> None:
    """What a user has: `best.h5`, `my_project/networks.py` with `best.pt`, and `finished.onnx`."""
    with tarfile.open(ROOT / "tests/data/keras2/models.tar.xz") as archive:
        archive.extract("sequential.h5", folder, filter="data")
    (folder / "sequential.h5").rename(folder / "best.h5")
    (folder / "my_project").mkdir()
    (folder / "my_project" / "networks.py").write_text(NETWORK)
    names: dict[str, type[torch.nn.Module]] = {}
    exec(NETWORK, names)  # noqa: S102 - our own text
    torch.save(names["Network"]().state_dict(), folder / "best.pt")
    config = artefacts.CONFIGS[0]
    artefacts.make("onnx_runtime", config, artefacts.weights(config), folder).rename(folder / "finished.onnx")


def started(command: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """One of our commands, running."""
    program = Path(sys.executable).parent / command[0]
    return subprocess.Popen(
        [program, *command[1:]], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    shown = [shlex.split(line) for line in commands(ROOT / "README.md") if line.startswith("lstm-")]
    *exports, serve, index, load, swap = shown
    assert [line[0] for line in (serve, index, load, swap)] == [
        "lstm-serve",
        "lstm-admin",
        "lstm-loadtest",
        "lstm-admin",
    ]
    files(tmp_path)
    for line in exports:
        trained.command(*line, folder=tmp_path)
    asked = parser().parse_args(serve[1:])
    mode = ("--model-control-mode", asked.model_control_mode, "--load-model", *asked.load_model)
    with LaunchedServer(tmp_path / asked.model_repository[0], "--backend", "onnx_runtime", *mode) as server:
        here = {"127.0.0.1:8001": server.address}
        index, load, swap = ([here.get(word, word) for word in line] for line in (index, load, swap))
        with started(index, tmp_path) as listed:
            said, _ = listed.communicate()
        assert (listed.returncode, said.count(" READY ")) == (0, len(exports)), said
        load[load.index("--duration") + 1] = "5"
        with started(load, tmp_path) as loaded, started(swap, tmp_path) as swapped:
            told, _ = swapped.communicate()
            report, _ = loaded.communicate()
        assert (swapped.returncode, loaded.returncode) == (0, 0), told + report
        assert "onnxruntime on cpu -> pytorch on cpu" in told
        assert ", 0 failed" in report
