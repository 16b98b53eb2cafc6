"""`lstm-export`: brings a trained network into a model repository, in every format asked for, proven.

    lstm-export checkpoint runs/vowels-torch --format onnx,torchscript --name vowels

One fact that surprises: a version is tried through the server's own backends before it appears, so an export that
succeeds has already been served once.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from export import formats
from export.errors import ExportError
from models import networks
from models.checkpoint import Checkpoint, CheckpointError
from serving.errors import StartupError

REFUSED = 2
INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C has ended
TERMINATED = 143  # and for one that was told to stop


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(REFUSED, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The command line; each kind of source is one subcommand."""
    root = _Parser(prog="lstm-export", description="Writes a trained network into a model repository.")
    subcommands = root.add_subparsers(dest="source", metavar="SOURCE", required=True)
    checkpoint = subcommands.add_parser("checkpoint", help="a run folder that lstm-train wrote")
    checkpoint.add_argument("run", type=Path, metavar="RUN", help="the run folder")
    known = ", ".join((*formats.names(), formats.ALL))
    checkpoint.add_argument("--format", required=True, metavar="F[,F...]", help=f"what to write: {known}")
    checkpoint.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        metavar="DIR",
        help="the model repository (default %(default)s)",
    )
    checkpoint.add_argument("--name", required=True, help="the model's name, a folder of the repository")
    checkpoint.add_argument("--version", type=int, metavar="N", help="the version's number (default: the next one)")
    checkpoint.add_argument(
        "--tolerance",
        type=float,
        default=1e-5,
        metavar="T",
        help="refuse a file that differs from the trained model by more, as |a - b| / max(1, |b|) (default %(default)g)",
    )
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0, 2 when the export is refused or fails, 130 after Ctrl-C, 143 after SIGTERM."""
    options = parser().parse_args(arguments)
    networks.silence_tensorflow()
    previous = signal.signal(signal.SIGTERM, _stop)  # so that what is half written is taken away
    try:
        return _export(options)
    except ModuleNotFoundError as error:
        print(f"lstm-export: {formats.missing_package('this export', error)}", file=sys.stderr)
        return REFUSED
    except (ExportError, CheckpointError, StartupError, OSError) as error:
        print(f"lstm-export: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("lstm-export: interrupted; nothing was published", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)


def _export(options: argparse.Namespace) -> int:
    chosen = formats.parse(options.format)
    checkpoint = Checkpoint.load(options.run)
    from export.publish import publish

    version = publish(
        checkpoint,
        chosen=chosen,
        repository=options.repository,
        name=options.name,
        version=options.version,
        tolerance=options.tolerance,
    )
    print(f"{'format':<12} {'size':>10} {'largest difference':>20}")
    for written in version.written:
        print(f"{written.format:<12} {written.size_bytes / 1024:>6.0f} KiB {written.largest_difference:>20.2g}")
    print(f"wrote {version.path}; serve it with: lstm-serve --model-repository {options.repository}")
    return 0


def _stop(*_: object) -> None:
    raise SystemExit(TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
