"""`lstm-export`: brings a trained network into a model repository, in every format asked for, proven.

    lstm-export checkpoint runs/vowels-torch --format onnx,torchscript --name vowels
    lstm-export module my_project.networks:build --weights best.pt --input x:FP32[-1,-1,40] --format all --name mine
    lstm-export keras best.keras --format all --name mine
    lstm-export import silero_vad.onnx --shape input:-1,576 --value sr=16000 --name voice

A version is tried through the server's own backends before it appears, so an export that succeeds has already been
served once.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from commands.parser import INTERRUPTED, REFUSED
from commands.table import aligned
from export import formats
from export.arguments import hints, parser, tensor
from export.errors import ExportError
from export.versions import Rounding, Target, Version
from models import networks
from models.checkpoint import Checkpoint, CheckpointError
from serving.errors import StartupError

TERMINATED = 143  # what a shell reports for a program that was told to stop


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0, 2 when the export is refused or fails, 130 after Ctrl-C, 143 after SIGTERM."""
    options = parser().parse_args(arguments)
    networks.silence_tensorflow()
    previous = signal.signal(signal.SIGTERM, _stop)  # so that what is half written is taken away
    try:
        return SOURCES[options.source](options)
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


def _export_checkpoint(options: argparse.Namespace) -> int:
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
        precision=options.precision,
    )
    if version.rounding:
        _print_rounding(version.rounding, checkpoint)
    _print_written(version, options.repository)
    return 0


def _export_module(options: argparse.Namespace) -> int:
    from export.sources import torch_modules

    module = torch_modules.load_module(options.factory, options.weights)
    version, told = torch_modules.publish_module(
        module,
        inputs=dict(map(tensor, options.input)),
        outputs=options.output,
        chosen=None if options.format == formats.ALL else formats.parse(options.format),
        hints=hints(options),
        target=_target(options, module=options.factory, weights=options.weights.name if options.weights else None),
    )
    print(told)
    _print_written(version, options.repository)
    if options.weights is None:
        print(f"no --weights: the module keeps the values that {options.factory} has given it")
    return 0


def _export_keras(options: argparse.Namespace) -> int:
    from export.sources import keras_models

    version, told = keras_models.publish_model(
        keras_models.load_model(options.file),
        chosen=None if options.format == formats.ALL else formats.parse(options.format),
        outputs=options.output,
        hints=hints(options),
        target=_target(options, file=options.file.name),
    )
    print(told)
    _print_written(version, options.repository)
    return 0


def _target(options: argparse.Namespace, **described: object) -> Target:
    return Target(
        repository=options.repository,
        name=options.name,
        version=options.version,
        tolerance=options.tolerance,
        described=described,
    )


def _import_file(options: argparse.Namespace) -> int:
    from export.sources import finished_files

    version, spec = finished_files.publish_file(
        options.file,
        repository=options.repository,
        name=options.name,
        version=options.version,
        inputs=dict(map(tensor, options.input)),
        outputs=dict(map(tensor, options.output)),
        hints=hints(options),
        tolerance=options.tolerance,
        nonfinite=options.nonfinite,
    )
    print(finished_files.described(spec))
    _print_written(version, options.repository)
    return 0


def _print_rounding(rounding: Rounding, checkpoint: Checkpoint) -> None:
    print(
        f"weights kept as {rounding.precision}: answers at most {rounding.largest_difference:.2g} from the trained network's"
    )
    trained = dict(_numbers(checkpoint.training["scores"]))
    for name, score in _numbers(rounding.scores):
        print(f"{name}: {score:.4g}, trained {trained[name]:.4g}")
    if not rounding.scores:
        print("the score is not measured again: the run does not hold its test part; train it again to have it")


def _numbers(scores: Mapping[str, Any], of: str = "") -> Iterator[tuple[str, float]]:
    """Every score by its name; one that is split, as by column and day, once for each of its parts."""
    for name, score in scores.items():
        if isinstance(score, Mapping):
            yield from _numbers(score, f"{of}{name} ")
        else:
            yield f"{of}{name}", score


def _print_written(version: Version, repository: Path) -> None:
    lines = [["format", "size", "largest difference"]]
    for written in version.written:
        lines.append([written.format, f"{written.size_bytes / 1024:.0f} KiB", f"{written.largest_difference:.2g}"])
    print("\n".join(aligned(lines, right=(1, 2))))
    print(f"wrote {version.path}; serve it with: lstm-serve --model-repository {repository}")


def _stop(*_: object) -> None:
    raise SystemExit(TERMINATED)


SOURCES = {
    "checkpoint": _export_checkpoint,
    "module": _export_module,
    "keras": _export_keras,
    "import": _import_file,
}

if __name__ == "__main__":
    sys.exit(main())
