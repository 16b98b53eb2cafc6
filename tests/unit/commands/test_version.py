"""One place says the version, and an installation says the same; a checkout needs no installation to say it."""

from __future__ import annotations

import subprocess
import sys
import tomllib

from commands.version import VERSION
from tests.support.commands import ROOT

# As in a checkout that is on PYTHONPATH alone: nothing is known of a distribution of our name.
NOT_INSTALLED = """
import importlib.metadata, sys
from serving.__main__ import main
find = importlib.metadata.Distribution.from_name
def from_name(name):
    if name == "lstm-serving":
        raise importlib.metadata.PackageNotFoundError(name)
    return find(name)
importlib.metadata.Distribution.from_name = from_name
main(["--version"])
"""


def test_a_build_reads_it_where_everything_else_does() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    path = ROOT / project["tool"]["hatch"]["version"]["path"]
    assert f'\nVERSION = "{VERSION}"\n' in path.read_text()


def test_a_checkout_that_nobody_has_installed_says_it() -> None:
    done = subprocess.run([sys.executable, "-c", NOT_INSTALLED], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"lstm-serve {VERSION}\n", "")


def test_nobody_asks_what_is_installed_instead() -> None:
    asking = [
        str(path.relative_to(ROOT))
        for folder in ("admin", "commands", "export", "loadtest", "lstm_serving", "models", "serving")
        for path in (ROOT / folder).rglob("*.py")
        if 'version("lstm-serving")' in path.read_text(encoding="utf-8").replace("'", '"')
    ]
    assert asking == []
