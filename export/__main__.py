"""`lstm-export`: brings a trained network into a model repository, in every format asked for, proven.

    lstm-export checkpoint runs/vowels-torch --format onnx,torchscript --name vowels
    lstm-export module my_project.networks:build --weights best.pt --input x:FP32[-1,-1,40] --format all --name mine
    lstm-export keras best.keras --format all --name mine
    lstm-export keras my_project.networks:build --weights best.weights.h5 --format all --name mine
    lstm-export import silero_vad.onnx --shape input:-1,576 --value sr=16000 --name voice

A version is tried through the server's own backends before it appears, so an export that succeeds has already been
served once.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from commands import extras
from commands.parser import INTERRUPTED, REFUSED
from commands.table import aligned
from export import disk, formats, progress, stateful
from export.arguments import hints, lacking, parser, samples, tensor
from export.errors import ExportError
from export.missing import Missing, command, flags_in
from export.versions import Rounding, Target, Version
from models import networks
from models.checkpoint import Checkpoint, CheckpointError
from serving.errors import StartupError
from serving.signature.spec import FILE_NAME, ModelSpec
from serving.verification.hints import Unclear

TERMINATED = 143  # what a shell reports for a program that was told to stop


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0, 2 when the export is refused or fails, 130 after Ctrl-C, 143 after SIGTERM."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments)
    networks.silence_tensorflow()
    previous = signal.signal(signal.SIGTERM, _stop)  # so that what is half written is taken away
    try:
        with progress.shown("lstm-export") if options.source != "checkpoint" else contextlib.nullcontext():
            return SOURCES[options.source](options)
    except ModuleNotFoundError as error:
        print(f"lstm-export: {extras.told(error)}", file=sys.stderr)
        return REFUSED
    except (Missing, Unclear) as error:
        print(f"lstm-export: {error}", file=sys.stderr)
        if flags := error.flags if isinstance(error, Missing) else flags_in(str(error)):
            print(f"run: {command(arguments, flags)}", file=sys.stderr)
        return REFUSED
    except (ExportError, CheckpointError, StartupError) as error:
        print(f"lstm-export: {error}", file=sys.stderr)
        return REFUSED
    except OSError as error:
        print(f"lstm-export: {disk.told(error, options.repository)}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("lstm-export: interrupted; nothing was published", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)


def _told_enough(options: argparse.Namespace, *more: Missing) -> None:
    """Raises `Missing` with all that is lacking: what every command needs, and `more`."""
    flags = lacking(options)
    too = ", too" if more else ""
    words = [" and ".join(flag for flag in flags if flag.startswith("--")) + f" must be said{too}"] if flags else []
    if flags or more:
        raise Missing("; ".join([*map(str, more), *words]), [*(flag for each in more for flag in each.flags), *flags])


def _export_checkpoint(options: argparse.Namespace) -> int:
    _told_enough(options)
    chosen = formats.parse(options.format)
    every = options.format == formats.ALL
    needs = extras.FRAMEWORKS.get(Checkpoint.framework_of(options.run), ())  # another framework is refused in a moment
    extras.require((extras.ARRAYS_ON_DISK, *needs, *(() if every else formats.needs(chosen))))
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
        every=every,
        stateful=options.stateful,
    )
    if version.rounding:
        _print_rounding(version.rounding, checkpoint)
    _print_written(version, options)
    return 0


def _export_module(options: argparse.Namespace) -> int:
    extras.require(extras.of_network("torch", options.weights))
    from export.sources.torch_modules import inputs_missing, publish_module
    from export.user_code.asking import UserCode

    if options.input:
        _told_enough(options)
    progress.stage(f"calling {options.factory}")
    with UserCode("torch", options.factory, options.weights) as code:
        if not options.input:
            _told_enough(options, inputs_missing(code))
        version, told = publish_module(
            code,
            inputs=dict(map(tensor, options.input)),
            outputs=options.output,
            chosen=None if options.format == formats.ALL else formats.parse(options.format),
            hints=hints(options),
            target=_target(options, module=options.factory, weights=options.weights.name if options.weights else None),
        )
    print(told)
    _print_written(version, options)
    _print_unweighted(options, options.factory)
    return 0


def _export_keras(options: argparse.Namespace) -> int:
    _told_enough(options)
    extras.require(extras.of_network("keras"))
    asked: dict[str, Any] = {
        "chosen": None if options.format == formats.ALL else formats.parse(options.format),
        "outputs": options.output,
        "hints": hints(options),
        "lengths": options.lengths,
    }
    if _names_code(options.model):
        from export.sources.keras_factories import publish_factory
        from export.user_code.asking import UserCode

        weights = options.weights.name if options.weights else None
        progress.stage(f"calling {options.model}")
        with UserCode("keras", options.model, options.weights) as code:
            version, told = publish_factory(
                code, **asked, target=_target(options, module=options.model, weights=weights)
            )
    elif options.weights:
        raise ExportError(
            f"--weights belong to MODULE:FACTORY, and {options.model} is a file; give the code that builds the model, as in "
            f"lstm-export keras my_project.networks:build --weights {options.weights}"
        )
    else:
        progress.stage(f"reading {options.model} with TensorFlow")
        from export.sources import keras_models

        file = Path(options.model)
        version, told = keras_models.publish_model(
            keras_models.load_model(file), **asked, target=_target(options, file=file.name)
        )
    print(told)
    _print_written(version, options)
    if _names_code(options.model):
        _print_unweighted(options, options.model)
    return 0


def _names_code(text: str) -> bool:
    """Whether this is MODULE:FACTORY rather than a file."""
    return re.fullmatch(r"[\w.]+:[\w.]+", text) is not None and not Path(text).exists()


def _print_unweighted(options: argparse.Namespace, factory: str) -> None:
    if options.weights is None:
        print(f"no --weights: the network keeps the values that {factory} has given it")


def _target(options: argparse.Namespace, **described: object) -> Target:
    return Target(
        repository=options.repository,
        name=options.name,
        version=options.version,
        tolerance=options.tolerance,
        described=described,
        samples=samples(options),
        stateful=options.stateful,
    )


def _import_file(options: argparse.Namespace) -> int:
    from export.sources import finished_files

    inputs, outputs = dict(map(tensor, options.input)), dict(map(tensor, options.output))
    finished_files.check_runtime(options.file)
    missing = [finished_files.unstated(options.file, inputs, outputs)]
    if lacking(options) or missing[0]:
        missing.append(finished_files.values_unstated(options.file, inputs, hints(options)))
    _told_enough(options, *filter(None, missing))
    version, spec = finished_files.publish_file(
        options.file,
        repository=options.repository,
        name=options.name,
        version=options.version,
        inputs=inputs,
        outputs=outputs,
        hints=hints(options),
        tolerance=options.tolerance,
        own=samples(options),
        nonfinite=options.nonfinite,
        stateful=options.stateful,
    )
    print(finished_files.described(spec))
    _print_written(version, options)
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


def _print_written(version: Version, options: argparse.Namespace) -> None:
    lines = [["format", "size", "largest difference"]]
    for written in version.written:
        lines.append([written.format, f"{written.size_bytes / 1024:.0f} KiB", f"{written.largest_difference:.2g}"])
    print("\n".join(aligned(lines, right=(1, 2))))
    for each in version.not_written:
        print(f"{each.format} is not written: {each.why}")
    spec = ModelSpec.read(version.path / FILE_NAME)
    if line := stateful.told(spec, version.path.parent, written=options.stateful):
        print(line)
    print(f"wrote {version.path}; serve it with: lstm-serve --model-repository {options.repository}")


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
