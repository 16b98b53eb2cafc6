"""`sequence_batching {}`, the line of config.pbtxt by which a server keeps a model's state between requests: told, or written."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format

from export.errors import ExportError
from protos import model_config_pb2 as pb
from serving.signature import streaming
from serving.signature.spec import ModelSpec

CONFIG_FILE = "config.pbtxt"
LINE = "sequence_batching {}"


def told(spec: ModelSpec, model: Path, *, written: bool) -> str:
    """What people are told of a version that could be served with its state kept, in the folder of its `model`; else empty."""
    if streaming.why_not(spec) or streaming.not_kept(spec):
        return ""
    if written:
        return f"stateful by {model / CONFIG_FILE}: {LINE}"
    return f"to keep its state between requests, write into {model / CONFIG_FILE} (or export with --stateful): {LINE}"


def check(spec: ModelSpec) -> None:
    """Raises `ExportError`, saying why, where a server could not keep the state of that version."""
    if why := streaming.why_not(spec) or streaming.not_kept(spec):
        file_of_others = not spec.state and "network" not in spec.source
        instead = "say which with --state INPUT=OUTPUT, or " if file_of_others else ""
        raise ExportError(f"the model cannot be stateful: {why}; {instead}leave --stateful out")


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
    if scheduling == "sequence_batching":
        return text
    if scheduling:
        raise ExportError(
            f"{path} has {scheduling}, which cannot stand beside sequence_batching: write sequence_batching {{ oldest {{ ... }} "
            "} in its place, with what it says of max_queue_delay_microseconds, preferred_batch_size and preserve_ordering"
        )
    return f"{text}\n{LINE}\n" if text and not text.endswith("\n") else f"{text}{LINE}\n"
