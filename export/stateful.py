"""`sequence_batching {}`, the line of config.pbtxt by which a server keeps a model's state between requests: told, or written."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format

from export.errors import ExportError
from protos import model_config_pb2 as pb
from serving.signature import streaming
from serving.signature.spec import ModelSpec

CONFIG_FILE = "config.pbtxt"
SEQUENCE_BATCHING = "sequence_batching"
LINE = f"{SEQUENCE_BATCHING} {{}}"


def told(spec: ModelSpec, model: Path, *, written: bool) -> str:
    """What people are told of a version that could be served with its state kept, in the folder of its `model`; else empty."""
    if streaming.why_not(spec) or streaming.not_kept(spec):
        return ""
    path = model / CONFIG_FILE
    scheduling = "" if written else _scheduling(path)
    if written:
        line = f"stateful by {path}: {LINE}"
    elif scheduling == SEQUENCE_BATCHING:
        line = f"stateful by {path}, which has {SEQUENCE_BATCHING}"
    elif scheduling:
        line = f"to keep its state between requests, write into {path} in place of {scheduling}: {LINE}"
    else:
        line = f"to keep its state between requests, write into {path} (or export with --stateful): {LINE}"
    if doubt := streaming.not_proved(spec):
        pairs = ", ".join(f"{pair.input} goes on as {pair.output}" for pair in spec.state)
        line += f"\n{doubt}, so that there is no whole to compare with; {pairs}: see to it that this is so"
    return line


def check(spec: ModelSpec) -> None:
    """Raises `ExportError`, saying why, where a server could not keep the state of that version."""
    if why := streaming.why_not(spec) or streaming.not_kept(spec):
        file_of_others = not spec.state and "network" not in spec.source
        instead = f"{_which_pairs(spec)}, or " if file_of_others else ""
        raise ExportError(f"the model cannot be stateful: {why}; {instead}leave --stateful out")


def _which_pairs(spec: ModelSpec) -> str:
    told = streaming.which_pairs(spec)
    return f"{told} with {streaming.flags(spec)}" if streaming.may_go_on(spec) else told


def configuration(model: Path) -> str:
    """The text of the model's config.pbtxt with the line in it, whatever else it says.

    Raises `ExportError` where that does not parse, or says something that cannot stand beside it, and `OSError`.
    """
    path = model / CONFIG_FILE
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    try:
        said = text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        raise ExportError(
            f"{path} does not parse, so {LINE} cannot be written into it: line {error}; mend it, or leave --stateful out"
        ) from error
    scheduling = said.WhichOneof("scheduling_choice")
    if scheduling == SEQUENCE_BATCHING:
        return text
    if scheduling:
        raise ExportError(
            f"{path} has {scheduling}, which cannot stand beside sequence_batching: write sequence_batching {{ oldest {{ ... }} "
            "} in its place, with what it says of max_queue_delay_microseconds, preferred_batch_size and preserve_ordering"
        )
    return f"{text}\n{LINE}\n" if text and not text.endswith("\n") else f"{text}{LINE}\n"


def _scheduling(path: Path) -> str:
    """Which of the fields that say how requests are batched the file has; empty where it has none, or cannot be read."""
    try:
        said = text_format.Parse(path.read_text(encoding="utf-8"), pb.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError):
        return ""
    return said.WhichOneof("scheduling_choice") or ""
