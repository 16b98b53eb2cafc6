"""The version of this product, the one place that says it: pyproject.toml reads it from here when it builds.

Asking `importlib.metadata` would fail in a checkout that nobody has installed, and say another one's version where two meet.
"""

from __future__ import annotations

import argparse

VERSION = "0.1.0"


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--version`, which says the command's name and this version."""
    parser.add_argument("--version", action="version", version=f"{parser.prog} {VERSION}")
