"""Projects of users, whose packages are called as ours are: half of all training projects have a package `models`."""

from __future__ import annotations

from pathlib import Path

PACKAGES = ("models", "serving", "export", "protos", "utils", "commands", "admin", "loadtest")


def broken_packages(folder: Path, *, marked: bool) -> None:
    """Packages that raise when anything of them is imported; `marked` by an `__init__.py`, or without one."""
    for package in PACKAGES:
        (folder / package).mkdir(parents=True)
        files = (
            ("__init__", "__main__", "errors", "parser", "config")
            if marked
            else ("__main__", "errors", "parser", "config")
        )
        for name in files:
            (folder / package / f"{name}.py").write_text(f"raise RuntimeError('{package} is the user\\'s')\n")
