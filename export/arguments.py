"""The command line of `lstm-export`: what may be given, and the texts among it in the form in which they are used."""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Sequence
from pathlib import Path

from commands import version
from commands.parser import Parser
from export import formats
from export.errors import ExportError
from export.precision import FP32, PRECISIONS
from export.samples import NO_SAMPLES, UserSamples
from serving.signature.spec import PASS, REFUSE
from serving.signature.stated import Stated
from serving.signature.tensors import DTYPES
from serving.verification.hints import Hints

_EXPORTED = {
    "checkpoint": "run",
    "module": "factory",
    "keras": "model",
    "import": "file",
}  # by source, what it is given
TENSOR = "NAME:DTYPE[SIZES]"
_TENSOR = re.compile(r"(?P<name>[^:]+):(?P<datatype>[A-Z0-9]+)\[(?P<shape>[-0-9, ]*)\]")


def parser() -> argparse.ArgumentParser:
    """The command line; each kind of source is one subcommand, and its name is the option `source`."""
    root = Parser(prog="lstm-export", description="Writes a trained network into a model repository.")
    version.add_flag(root)
    subcommands = root.add_subparsers(dest="source", metavar="SOURCE", required=True)
    checkpoint = subcommands.add_parser("checkpoint", help="a run folder that lstm-train wrote")
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
    _add_keras(subcommands.add_parser("keras", help="a .keras file, or code that builds a model and its weights"))
    _add_import(
        subcommands.add_parser("import", help="a finished .onnx, TorchScript or SavedModel that someone else made")
    )
    return root


def _add_module(source: argparse.ArgumentParser) -> None:
    source.add_argument(
        "factory", metavar="MODULE:FACTORY", help="called without arguments, returns the torch.nn.Module"
    )
    source.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="its state dict, .safetensors or .pt; without it, what FACTORY gives",
    )
    add = functools.partial(source.add_argument, action="append", default=[])
    add("--input", metavar=TENSOR, help="an input, in order: x:FP32[-1,-1,40], -1 where free")
    _add_network(source)


def _add_keras(source: argparse.ArgumentParser) -> None:
    source.add_argument(
        "model",
        metavar="FILE|MODULE:FACTORY",
        help="what model.save wrote; or what returns the model, called without arguments",
    )
    source.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="for what FACTORY returns: .weights.h5, .h5 or .keras; without it, what FACTORY gives",
    )
    source.add_argument(
        "--lengths",
        action="store_true",
        help="of a model that masks a value (Masking, mask_zero): write it in every format as a network that is told the lengths "
        "of its rows; clients then send lengths, and the value means nothing any more",
    )
    _add_network(source)


def _add_network(source: argparse.ArgumentParser) -> None:
    """What `module` and `keras` have in common."""
    source.add_argument(
        "--output",
        metavar="NAME",
        action="append",
        default=[],
        help="the name of an output, in order (default: y, y1, ...)",
    )
    _add_format(source)
    _add_target(source)
    _add_hints(source)


def _add_format(source: argparse.ArgumentParser) -> None:
    known = ", ".join((*formats.names(), formats.ALL))
    source.add_argument("--format", metavar="F[,F...]", help=f"what to write: {known}")


def _add_import(source: argparse.ArgumentParser) -> None:
    source.add_argument("file", type=Path, metavar="FILE", help="an .onnx or .pt file, or a SavedModel folder")
    add = functools.partial(source.add_argument, action="append", default=[])
    add("--input", metavar=TENSOR, help="an input of a TorchScript file, in order: x:FP32[-1,-1,8], -1 where free")
    add("--output", metavar=TENSOR, help="an output of a TorchScript file, in order")
    source.add_argument(
        "--nonfinite",
        choices=(REFUSE, PASS),
        default=PASS,
        help="what the server does with requests that hold NaN or infinity; say refuse for a recurrent model, whose runtime may "
        "answer finite numbers that mean nothing (default %(default)s)",
    )
    _add_target(source)
    _add_hints(source)


def _add_hints(source: argparse.ArgumentParser) -> None:
    group = source.add_argument_group("where a choice is left")
    add = functools.partial(group.add_argument, action="append", default=[])
    add("--shape", metavar="NAME:SIZES", help="sizes that an input must have although they seem free: x:-1,576")
    add("--value", metavar="NAME=VALUE", help="what an input holds wherever the model is tried: sr=16000")
    add("--rows", metavar="NAME=AXIS", help="the axis of the rows of an input, or none")
    add("--state", metavar="INPUT=OUTPUT", help="an output that is the next value of an input; none: there is none")
    group.add_argument(
        "--samples",
        type=Path,
        metavar="FILE.npz",
        help="inputs as they are in use, and their answers if they are known: arrays by the names of inputs and outputs (several "
        "samples: 0/in/x, 0/out/y, 1/in/x, ...); the version is proved on them too",
    )


def _add_target(source: argparse.ArgumentParser) -> None:
    source.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        metavar="DIR",
        help="the model repository (default %(default)s)",
    )
    source.add_argument("--name", help="the model's name, a folder of the repository")
    source.add_argument("--version", type=int, metavar="N", help="the version's number (default: the next one)")
    source.add_argument(
        "--tolerance",
        type=float,
        default=1e-5,
        metavar="T",
        help="refuse a file whose answers differ from the model's by more, as |a - b| / max(1, |b|) (default %(default)g, at "
        "most 0.1)",
    )
    source.add_argument(
        "--stateful",
        action="store_true",
        help="have the server keep its state between requests: sequence_batching {} in the model's config.pbtxt",
    )


def tensor(text: str) -> tuple[str, Stated]:
    """Name, datatype and shape of `NAME:DATATYPE[SIZES]`, as in `x:FP32[-1,-1,8]`. Raises `ExportError`."""
    found = _TENSOR.fullmatch(text.strip())
    if found is None or found["datatype"] not in DTYPES:
        raise ExportError(
            f"{text!r} is no tensor: write NAME:DATATYPE[SIZES], as in x:FP32[-1,-1,8], with one of {', '.join(DTYPES)}"
        )
    return found["name"], (found["datatype"], sizes(found["shape"], text))


def sizes(text: str, where: str) -> tuple[int, ...]:
    """Comma-separated sizes, -1 where free. Raises `ExportError`."""
    try:
        found = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ExportError(f"{where!r} holds sizes that are no whole numbers") from error
    if any(size < 1 and size != -1 for size in found):
        raise ExportError(f"{where!r} holds a size that is neither positive nor -1 (free)")
    return found


def hints(options: argparse.Namespace) -> Hints:
    """What a person says of the inputs where a choice is left. Raises `ExportError`."""
    return Hints(
        shapes={name: sizes(text, name) for name, text in _pairs(options.shape, ":", "--shape")},
        values={name: _value(text) for name, text in _pairs(options.value, "=", "--value")},
        rows={
            name: None if text == "none" else int(_number(text, "--rows"))
            for name, text in _pairs(options.rows, "=", "--rows")
        },
        state={} if options.state == ["none"] else dict(_pairs(options.state, "=", "--state")) or None,
    )


def lacking(options: argparse.Namespace) -> list[str]:
    """The flags that every command of this kind needs and that were not given; a name is made of what is exported."""
    flags = []
    if options.name is None:
        flags += ["--name", _name_from(str(vars(options)[_EXPORTED[options.source]]))]
    if "format" in options and options.format is None:
        flags += ["--format", formats.ALL]
    return flags


def _name_from(what: str) -> str:
    """A name that a model may have, from that of a file, a folder or a factory."""
    module, _, factory = what.partition(":")
    stem = module.rpartition(".")[2] if factory else Path(what).stem
    words = re.sub(r"[^A-Za-z0-9._-]+", "_", stem)
    return re.sub(r"^[^A-Za-z0-9]+", "", words)[:128] or "NAME"


def samples(options: argparse.Namespace) -> UserSamples:
    """What is in the file of --samples. Raises `ExportError`."""
    return UserSamples.read(options.samples) if options.samples else NO_SAMPLES


def _pairs(texts: Sequence[str], between: str, flag: str) -> list[tuple[str, str]]:
    for text in texts:
        if between not in text:
            raise ExportError(f"{flag} {text!r} lacks the {between!r} between a name and what is said of it")
    return [(name, rest) for name, _, rest in (text.partition(between) for text in texts)]


def _value(text: str) -> float | str:
    """A number, or a text for an input of strings."""
    try:
        return float(text)
    except ValueError:
        return text


def _number(text: str, flag: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ExportError(f"{flag}: {text!r} is no number") from error
