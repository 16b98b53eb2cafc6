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
