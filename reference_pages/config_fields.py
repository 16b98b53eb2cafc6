"""The page of config.pbtxt: which fields are served, which change nothing here, and which are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from protos import model_config_pb2 as pb
from reference_pages.markdown import code, page, table
from serving.repository import fields
from serving.repository.model_config import PARAMETERS

EXAMPLE = """\
max_batch_size: 32
dynamic_batching { max_queue_delay_microseconds: 500 }
backend: "onnxruntime"
parameters { key: "intra_op_thread_count" value { string_value: "2" } }"""
# The keys of `parameters`: an example, and what it does.
KEYS = {
    "version_labels": (
        "stable=1,canary=2",
        "a label is taken wherever a version is; who names no version gets `stable`",
    ),
    "canary_share": ("0.05", "so many of the requests that name no version go to `canary`"),
    "shadow": ("2/torchscript", "copies of requests go to that version or backend; nobody gets its answers"),
    "shadow_share": ("0.1", "of so many requests"),
    "fallback": ("torchscript,saved_model@cpu", "who takes over when a backend fails, in this order, at load too"),
    "intra_op_thread_count": ("2", "compute threads within a batch"),
    "max_queue_bytes": (
        "64000000",
        "the most bytes of requests that wait for the model; 268435456 (256 MiB) where it is left out",
    ),
    "max_padding_ratio": (
        "0.2",
        "the largest share of a batch of unequal lengths that may be padding; 0.5 where it is left out, 0 for equal lengths only",
    ),
    "max_queue_size": (
        "512",
        "of a stateful model, the most requests that wait; 1024 where it is left out (of others it stands in `dynamic_batching`)",
    ),
    "max_sequences": (
        "20000",
        "of a stateful model, the most sequences that live at once; 100000 where it is left out",
    ),
    "max_sequence_state_bytes": (
        "500000000",
        "the most bytes that their states take, kept answers not counted; 1073741824 (1 GiB) where it is left out",
    ),
    "sequence_window": (
        "8",
        "how many of the last answers of a numbered sequence are kept, to be given again; 5 where it is left out, at most 1000",
    ),
    "sequence_tombstone_seconds": ("10", "how long they are kept after its end; 60 where it is left out"),
    "sequence_eviction": (
        "oldest_idle",
        "in a full house the sequence that has been idle longest ends for a new one; `none`, where it is left out, never",
    ),
    "sequence_min_idle_seconds": ("120", "but only if it has been idle so long; 60 where it is left out"),
    "sequence_start_timeout_microseconds": (
        "500000",
        "how long a new sequence may wait in a full house; 0, where it is left out, for as long as it takes",
    ),
    "sequence_on_removal": (
        "carry_same_weights",
        "what becomes of the sequences of a version that goes: `drain`, where it is left out, lets them end, `restart` ends "
        "them, `carry_same_weights` and `carry_same_shapes` carry them over where weights or shapes agree",
    ),
    "sequence_drain_seconds": ("30", "how long it waits for them at most; 60 where it is left out"),
    "nonfinite": ("pass", "requests with NaN or infinity in a true step are computed; `refuse` refuses them"),
}
_TYPES = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_ENUM: "enum",
    FieldDescriptor.TYPE_MESSAGE: "message",
}


def page_text() -> str:
    """The whole page."""
    return page(
        "config.pbtxt",
        "`MODEL/config.pbtxt` says what the operator decides of a model. Triton reads the same file. Whatever it leaves out is "
        "completed from the model's files; a model needs none.",
        f"```text\n{EXAMPLE}\n```",
        "## Served",
        table(
            ("field", "type", "what it decides"),
            [(code(field), _type(field), meaning) for field, meaning in fields.SERVED.items()],
        ),
        "## Keys of `parameters`",
        table(
            ("key", "for example", "what it does"),
            [(code(key), code(KEYS[key][0]), KEYS[key][1]) for key in sorted(PARAMETERS)],
        ),
        "## Taken, and without effect",
        "These fields make Triton faster, or are for its own bookkeeping. The server takes them and says so once in its log. The "
        "answers are the same without them.",
        "\n".join(f"- {code(field)}" for field in fields.IDLE),
        "So it does with these keys of `parameters`, by which Triton's backends are tuned: "
        + ", ".join(code(key) for key in sorted(fields.IDLE_PARAMETERS))
        + ".",
        "## Refused",
        "A field that would change an answer, and is not served, is refused by its name. So is a key of `parameters` that is "
        "neither above nor the server's own (`lstm_serving.*`).",
        table(
            ("field", "why"), [(code(field), fields.why_not(field) or "nothing here does it") for field in refused()]
        ),
    )


def refused() -> list[str]:
    """The fields of the schema that are neither served nor taken; one name for a message of which nothing is."""
    return list(_refused(pb.ModelConfig.DESCRIPTOR, ""))


def _refused(message: Any, prefix: str) -> Iterator[str]:
    known = (*fields.SERVED, *fields.IDLE)
    for field in message.fields:
        name = f"{prefix}{field.name}"
        if name in known:
            continue
        if field.message_type and any(each.startswith(f"{name}.") for each in known):
            yield from _refused(field.message_type, f"{name}.")
        else:
            yield name


def _type(dotted: str) -> str:
    """The type of a field by its dotted name, a list with []."""
    *outer, last = dotted.split(".")
    message: Any = pb.ModelConfig.DESCRIPTOR
    for name in outer:
        message = message.fields_by_name[name].message_type
    field = message.fields_by_name[last]
    if field.message_type and field.message_type.GetOptions().map_entry:
        return "map"
    kind = _TYPES.get(field.type, "number")
    return f"{kind}[]" if field.is_repeated else kind
