"""Where every command begins: `lstm-serve` is `python -m lstm_serving serve`, and the others likewise.

Our packages have names that other projects have as well (`models`, `export`, `serving`). In a wheel they lie inside this
folder, where no import of anybody else's finds them; in a checkout they lie beside it. A command puts them first on its own
path, so that no package of a user's (in PYTHONPATH, the working directory or site-packages) is taken for one of ours.
"""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path

COMMANDS = {
    "train": "models.__main__",
    "export": "export.__main__",
    "serve": "serving.__main__",
    "admin": "admin.__main__",
    "loadtest": "loadtest.__main__",
    "healthcheck": "admin.healthcheck",
}


def run(name: str) -> int:
    """Runs a command out of `COMMANDS` with the process's arguments. Returns its exit code."""
    root = str(root_of(Path(__file__).parent))
    sys.path[:] = [root, *(entry for entry in sys.path if entry != root)]
    return int(importlib.import_module(COMMANDS[name]).main())


def root_of(here: Path) -> Path:
    """The folder that holds our packages, given this one: itself where it is installed, the one around it in a checkout."""
    return here if (here / "serving").is_dir() else here.parent


train = functools.partial(run, "train")
export = functools.partial(run, "export")
serve = functools.partial(run, "serve")
admin = functools.partial(run, "admin")
loadtest = functools.partial(run, "loadtest")
healthcheck = functools.partial(run, "healthcheck")

if __name__ == "__main__":
    usage = f"python -m lstm_serving: name one of {', '.join(COMMANDS)}, then its own arguments"
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(usage)
        sys.exit(0)
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(usage)
    sys.exit(run(sys.argv.pop(1)))
