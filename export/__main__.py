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
import functools
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.parser import INTERRUPTED, REFUSED, Parser
from commands.table import aligned
from export import formats
from export.errors import ExportError
from export.precision import FP32, PRECISIONS
from models import networks
from models.checkpoint import Checkpoint, CheckpointError
from serving.errors import StartupError
from serving.verification.inspection import Hints

if TYPE_CHECKING:
    from export.publish import Rounding, Version
    from export.sources.own_signature import Target

TENSOR = "NAME:DTYPE[SIZES]"
TERMINATED = 143  # what a shell reports for a program that was told to stop


def parser() -> argparse.ArgumentParser:
    """The command line; each kind of source is one subcommand."""
    root = Parser(prog="lstm-export", description="Writes a trained network into a model repository.")
    subcommands = root.add_subparsers(dest="source", metavar="SOURCE", required=True)
    checkpoint = subcommands.add_parser("checkpoint", help="a run folder that lstm-train wrote")
    checkpoint.set_defaults(carry_out=_export_checkpoint)
    checkpoint.add_argument("run", type=Path, metavar="RUN", help="the run folder")
    _add_format(checkpoint)
    checkpoint.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=FP32,
        help="how the weights are kept in the file; they are restored when it is loaded, and computed with in float32",
    )
    _add_target(checkpoint)
    _add_module(subcommands.add_parser("module", help="any torch.nn.Module and its state dict"))
    _add_keras(subcommands.add_parser("keras", help="a .keras file"))
    _add_import(
        subcommands.add_parser("import", help="a finished .onnx, TorchScript or SavedModel that someone else made")
    )
    return root


def _add_module(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(carry_out=_export_module)
    parser.add_argument(
        "factory", metavar="MODULE:FACTORY", help="called without arguments, returns the torch.nn.Module"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="its state dict, .safetensors or .pt; without it, what FACTORY gives",
    )
    add = functools.partial(parser.add_argument, action="append", default=[])
    add("--input", metavar=TENSOR, required=True, help="an input, in order: x:FP32[-1,-1,40], -1 where free")
    _add_network(parser)


def _add_keras(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(carry_out=_export_keras)
    parser.add_argument("file", type=Path, metavar="FILE.keras", help="what model.save wrote")
    _add_network(parser)


def _add_network(parser: argparse.ArgumentParser) -> None:
    """What `module` and `keras` have in common."""
    parser.add_argument(
        "--output",
        metavar="NAME",
        action="append",
        default=[],
        help="the name of an output, in order (default: y, y1, ...)",
    )
    _add_format(parser)
    _add_target(parser)
    _add_hints(parser)


def _add_format(parser: argparse.ArgumentParser) -> None:
    known = ", ".join((*formats.names(), formats.ALL))
    parser.add_argument("--format", required=True, metavar="F[,F...]", help=f"what to write: {known}")


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(carry_out=_import_file)
    parser.add_argument("file", type=Path, metavar="FILE", help="an .onnx or .pt file, or a SavedModel folder")
    add = functools.partial(parser.add_argument, action="append", default=[])
    add("--input", metavar=TENSOR, help="an input of a TorchScript file, in order: x:FP32[-1,-1,8], -1 where free")
    add("--output", metavar=TENSOR, help="an output of a TorchScript file, in order")
    _add_target(parser)
    _add_hints(parser)


def _add_hints(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where a choice is left")
    add = functools.partial(group.add_argument, action="append", default=[])
    add("--shape", metavar="NAME:SIZES", help="sizes that an input must have although they seem free: x:-1,576")
    add("--value", metavar="NAME=NUMBER", help="what an input holds wherever the model is tried: sr=16000")
    add("--rows", metavar="NAME=AXIS", help="the axis of the rows of an input, or none")
    add("--state", metavar="INPUT=OUTPUT", help="an output that is the next value of an input; none: there is none")


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        metavar="DIR",
        help="the model repository (default %(default)s)",
    )
    parser.add_argument("--name", required=True, help="the model's name, a folder of the repository")
    parser.add_argument("--version", type=int, metavar="N", help="the version's number (default: the next one)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-5,
        metavar="T",
        help="refuse a file whose answers differ from the model's by more, as |a - b| / max(1, |b|) (default %(default)g)",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0, 2 when the export is refused or fails, 130 after Ctrl-C, 143 after SIGTERM."""
    options = parser().parse_args(arguments)
    networks.silence_tensorflow()
    previous = signal.signal(signal.SIGTERM, _stop)  # so that what is half written is taken away
    try:
        carried_out: int = options.carry_out(options)
        return carried_out
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
    from export.sources import finished_files, torch_modules

    module = torch_modules.load_module(options.factory, options.weights)
    version, told = torch_modules.publish_module(
        module,
        inputs=dict(map(finished_files.tensor, options.input)),
        outputs=options.output,
        chosen=None if options.format == formats.ALL else formats.parse(options.format),
        hints=_hints(options),
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
        hints=_hints(options),
        target=_target(options, file=options.file.name),
    )
    print(told)
    _print_written(version, options.repository)
    return 0


def _target(options: argparse.Namespace, **described: object) -> Target:
    from export.sources.own_signature import Target

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
        inputs=dict(map(finished_files.tensor, options.input)),
        outputs=dict(map(finished_files.tensor, options.output)),
        hints=_hints(options),
        tolerance=options.tolerance,
    )
    print(finished_files.described(spec))
    _print_written(version, options.repository)
    return 0


def _hints(options: argparse.Namespace) -> Hints:
    from export.sources import finished_files

    return Hints(
        shapes={name: finished_files.sizes(text, name) for name, text in _pairs(options.shape, ":", "--shape")},
        values={name: _number(text, "--value") for name, text in _pairs(options.value, "=", "--value")},
        rows={
            name: None if text == "none" else int(_number(text, "--rows"))
            for name, text in _pairs(options.rows, "=", "--rows")
        },
        state={} if options.state == ["none"] else dict(_pairs(options.state, "=", "--state")) or None,
    )


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


def _pairs(texts: Sequence[str], between: str, flag: str) -> list[tuple[str, str]]:
    for text in texts:
        if between not in text:
            raise ExportError(f"{flag} {text!r} lacks the {between!r} between a name and what is said of it")
    return [(name, rest) for name, _, rest in (text.partition(between) for text in texts)]


def _number(text: str, flag: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ExportError(f"{flag}: {text!r} is no number") from error


def _stop(*_: object) -> None:
    raise SystemExit(TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
