"""Wheels and source archives of this checkout, made by the build backend alone, which fetches nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.commands import ROOT


def build(target: str, into: Path, source: Path = ROOT) -> Path:
    """A "wheel" or an "sdist" of the project in `source`, in the folder `into`."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(into)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = into.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return made
