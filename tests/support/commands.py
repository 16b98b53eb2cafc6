"""The command lines, as processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def administer(url: str, *line: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "admin", "--url", url, *map(str, line)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def export(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "export", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def look_after(where: str | Path, *line: object) -> subprocess.CompletedProcess[str]:
    """`lstm-admin` on the socket of a server, or with a HOST:PORT on the operator's port."""
    named = ("--socket", where) if isinstance(where, Path) else ("--url", where)
    command = [sys.executable, "-m", "admin", *map(str, named), *map(str, line)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
