"""Environments of the peers: made once, each in a folder of its own, and made anew when other packages are wanted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.errors import PeerError

_SECONDS = 900.0  # for one call of pip


def make(environment: Path, *calls: Sequence[str]) -> Path:
    """A virtual environment in which pip has installed what each of `calls` says; returns its interpreter.

    Raises `PeerError` with pip's last words where a package cannot be had.
    """
    wanted = "\n".join(" ".join(call) for call in calls)
    done, python = environment / ".done", environment / "bin/python"
    if done.is_file() and done.read_text() == wanted:
        return python
    shutil.rmtree(environment, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(environment)])
    for call in calls:
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *call])
    done.write_text(wanted)
    return python


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.CalledProcessError as error:
        raise PeerError(f"{' '.join(command)} has failed: {error.stderr[-1500:]}") from error
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"{' '.join(command)} took more than {_SECONDS:g} s") from error
