"""Projects of users, whose packages are called as ours are: half of all training projects have a package `models`."""

from __future__ import annotations

from pathlib import Path

PACKAGES = ("models", "serving", "export", "protos", "utils", "commands", "admin", "loadtest")


def broken_packages(folder: Path, *, marked: bool) -> None:
    """Packages that raise when anything of them is imported; `marked` by an `__init__.py`, or without one."""
    for package in PACKAGES:
        (folder / package).mkdir(parents=True)
        files = ("__init__", "__main__", "errors", "parser", "config")
        for name in files if marked else files[1:]:
            (folder / package / f"{name}.py").write_text(f"raise RuntimeError('{package} is the user\\'s')\n")


def packages(folder: Path, *, marked: bool) -> None:
    """Packages with a module `of_the_user` that says where it is; one imports all others as its own neighbours."""
    for package in PACKAGES:
        (folder / package).mkdir(parents=True)
        if marked:
            (folder / package / "__init__.py").touch()
        (folder / package / "of_the_user.py").write_text(f"HERE = {str(folder)!r}\n")
    imports = [f"from {package} import of_the_user as {package}_of_the_user" for package in PACKAGES]
    (folder / "models" / "net.py").write_text("\n".join(imports) + NETWORK)


NETWORK = """

import torch
from torch import nn

print("the user's code begins")  # answers go over the same pipe


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.norm, self.out = nn.LSTM(8, 16, batch_first=True), nn.BatchNorm1d(16), nn.Linear(16, 3)

    def forward(self, x):
        print("the user's network runs")
        return self.out(self.norm(self.rnn(x)[0][:, -1]))


def build():
    torch.manual_seed(3)
    return Net()
"""
