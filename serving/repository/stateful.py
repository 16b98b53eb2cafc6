"""What makes a model stateful: `sequence_batching` of `config.pbtxt`, and the keys of `parameters` that say how sequences live.

    sequence_batching {}
    parameters { key: "max_sequences" value { string_value: "20000" } }

What the message leaves out is completed from the version's files (`serving.repository.state_layouts`). Its strategies say of a
batch what `dynamic_batching` says of other models, since any number of sequences shares one here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from protos import model_config_pb2 as pb
from serving.errors import ModelConfigError
from serving.repository.datatypes import from_schema, to_schema
from serving.sequences.policy import ON_REMOVAL, SECOND_NS, SequencePolicy
from serving.signature.controls import CORRID, END, KINDS, READY, START, ControlInput
from serving.signature.spec import ModelSpec

DEFAULTS = SequencePolicy()
MAX_SEQUENCES, MAX_STATE_BYTES = "max_sequences", "max_sequence_state_bytes"
WINDOW, TOMBSTONE = "sequence_window", "sequence_tombstone_seconds"
EVICTION, MIN_IDLE = "sequence_eviction", "sequence_min_idle_seconds"
START_TIMEOUT = "sequence_start_timeout_microseconds"
ON_GOING, DRAIN = "sequence_on_removal", "sequence_drain_seconds"
MAX_QUEUE_SIZE = "max_queue_size"
KEYS = (
    *(MAX_SEQUENCES, MAX_STATE_BYTES, WINDOW, TOMBSTONE, EVICTION, MIN_IDLE, START_TIMEOUT, ON_GOING, DRAIN),
    MAX_QUEUE_SIZE,
)  # of `parameters`; they say something of stateful models alone
NEVER, OLDEST_IDLE = "none", "oldest_idle"
MOST_SEQUENCES = 10**9
MOST_BYTES = 10**18
MOST_ANSWERS = 1000  # that are kept for one sequence
MOST_SECONDS = 10**9
MOST_WAITING = 2**31 - 1
FOR_EVER = 2**64 - 1  # microseconds; so does the schema's largest number say it
LONGEST_NS = 2**62  # what is longer is for ever

_KINDS = {
    pb.ModelSequenceBatching.Control.CONTROL_SEQUENCE_START: START,
    pb.ModelSequenceBatching.Control.CONTROL_SEQUENCE_END: END,
    pb.ModelSequenceBatching.Control.CONTROL_SEQUENCE_READY: READY,
    pb.ModelSequenceBatching.Control.CONTROL_SEQUENCE_CORRID: CORRID,
}
_BY_KIND = {ours: number for number, ours in _KINDS.items()}
_PAIRS = {"int32_false_true": "INT32", "fp32_false_true": "FP32", "bool_false_true": "BOOL"}
_FIELDS = {datatype: field for field, datatype in _PAIRS.items()}
_CALLED = {kind: kind for kind in KINDS} | {
    "correlationid": CORRID,
    "sequenceid": CORRID,
}  # as files name them, less signs
_IDS = ("UINT64", "INT64", "UINT32", "INT32", "BYTES")  # what an id may be told as
_IDS_TOLD = "TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 or TYPE_STRING"


def policy(written: pb.ModelConfig, where: str) -> SequencePolicy | None:
    """How sequences live; None for a stateless model. Raises `ModelConfigError`, for keys that then mean nothing too."""
    said = {key: written.parameters[key].string_value for key in KEYS if key in written.parameters}
    if not written.HasField("sequence_batching"):
        if said:
            raise ModelConfigError(_means_nothing(next(iter(said)), where))
        return None
    _check_states(written.sequence_batching, f"{where}: sequence_batching")

    def whole(key: str, default: int, least: int, most: int) -> int:
        return _whole(said[key], f"{where}: {key}", least, most) if key in said else default

    def nanoseconds(key: str, default: int) -> int:
        return _nanoseconds(said[key], f"{where}: {key}") if key in said else default

    idle_ns = written.sequence_batching.max_sequence_idle_microseconds * 1000 or DEFAULTS.idle_ns
    evicts = _one_of(said, EVICTION, NEVER, (NEVER, OLDEST_IDLE), where) == OLDEST_IDLE
    timeout = whole(START_TIMEOUT, DEFAULTS.start_timeout_ns // 1000, 0, MOST_SECONDS * 10**6)
    return SequencePolicy(
        idle_ns=idle_ns if idle_ns < LONGEST_NS else 0,
        max_sequences=whole(MAX_SEQUENCES, DEFAULTS.max_sequences, 1, MOST_SEQUENCES),
        max_state_bytes=whole(MAX_STATE_BYTES, DEFAULTS.max_state_bytes, 1, MOST_BYTES),
        window=whole(WINDOW, DEFAULTS.window, 1, MOST_ANSWERS),
        tombstone_ns=nanoseconds(TOMBSTONE, DEFAULTS.tombstone_ns),
        start_timeout_ns=timeout * 1000,
        evicts=evicts,
        min_idle_ns=nanoseconds(MIN_IDLE, DEFAULTS.min_idle_ns),
        on_removal=_one_of(said, ON_GOING, DEFAULTS.on_removal, ON_REMOVAL, where),
        drain_ns=nanoseconds(DRAIN, DEFAULTS.drain_ns),
    )


def parameters(of: SequencePolicy, max_queue_size: int) -> Mapping[str, str]:
    """The keys of `parameters` with what is in force, as `policy` reads them."""
    return {
        MAX_SEQUENCES: str(of.max_sequences),
        MAX_STATE_BYTES: str(of.max_state_bytes),
        WINDOW: str(of.window),
        TOMBSTONE: _seconds(of.tombstone_ns),
        EVICTION: OLDEST_IDLE if of.evicts else NEVER,
        MIN_IDLE: _seconds(of.min_idle_ns),
        START_TIMEOUT: str(of.start_timeout_ns // 1000),
        ON_GOING: of.on_removal,
        DRAIN: _seconds(of.drain_ns),
        MAX_QUEUE_SIZE: str(max_queue_size),
    }


def batching(written: pb.ModelConfig, where: str) -> pb.ModelDynamicBatching:
    """How its requests are batched: `dynamic_batching`, or in its place what the strategy of `sequence_batching` says.

    Raises `ModelConfigError` for a `max_queue_size` that is no number of requests.
    """
    if not written.HasField("sequence_batching"):
        return written.dynamic_batching
    direct, oldest = written.sequence_batching.direct, written.sequence_batching.oldest
    made = pb.ModelDynamicBatching(
        preferred_batch_size=oldest.preferred_batch_size,
        max_queue_delay_microseconds=oldest.max_queue_delay_microseconds or direct.max_queue_delay_microseconds,
        preserve_ordering=oldest.preserve_ordering,
    )
    if MAX_QUEUE_SIZE in written.parameters:
        said = written.parameters[MAX_QUEUE_SIZE].string_value
        made.default_queue_policy.max_queue_size = _whole(said, f"{where}: {MAX_QUEUE_SIZE}", 1, MOST_WAITING)
    return made


def controls(written: pb.ModelConfig, where: str) -> tuple[ControlInput, ...]:
    """The control inputs that the file names. Raises `ModelConfigError`."""
    found: list[ControlInput] = []
    for entry in written.sequence_batching.control_input:
        place = f"{where}: sequence_batching: control_input '{entry.name}'"
        if not entry.name:
            raise ModelConfigError(f"{place} has no name; it must be that of an input of the model's file")
        if len(entry.control) != 1:
            raise ModelConfigError(
                f"{place} has {len(entry.control)} controls; it must have one, as in control {{ kind: "
                "CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] }"
            )
        made = _control(entry.name, entry.control[0], place)
        for other in found:
            if other.input == made.input or other.kind == made.kind:
                what = "name" if other.input == made.input else "kind"
                raise ModelConfigError(
                    f"{place} has the same {what} as control_input '{other.input}'; each stands once"
                )
        found.append(made)
    return tuple(found)


def control_datatypes(written: pb.ModelConfig) -> Mapping[str, str]:
    """By control input its datatype as the file says it; empty for an id whose datatype is left to the model's file."""
    found = {}
    for entry in written.sequence_batching.control_input:
        for control in entry.control:
            pairs = [datatype for field, datatype in _PAIRS.items() if getattr(control, field)]
            found[entry.name] = pairs[0] if pairs else from_schema(control.data_type) if control.data_type else ""
    return found


def control_in_force(control: ControlInput, datatype: str) -> pb.ModelSequenceBatching.ControlInput:
    """One as the ModelConfig RPC shows it; `datatype` is that of the input."""
    made = pb.ModelSequenceBatching.ControlInput(name=control.input)
    kind = _BY_KIND[control.kind]
    if control.kind == CORRID:
        made.control.add(kind=kind, data_type=to_schema(datatype))
    else:
        field = next(field for field, held in _PAIRS.items() if held == datatype)
        getattr(made.control.add(kind=kind), field).extend([control.off, control.on])
    return made


def undeclared(spec: ModelSpec) -> str:
    """What to write where inputs are named as controls are, and nobody has said that they are some; empty where none is."""
    known = {*spec.state_inputs, *(control.input for control in spec.controls)}
    known |= {told.input for told in (spec.lengths, spec.masks) if told}
    found = []
    for tensor in spec.inputs:
        letters = re.sub("[^a-z]", "", tensor.name.lower())
        kind = _CALLED.get(re.sub("^(control)?(sequence)?(?=start|end|ready)", "", letters))
        if tensor.name in known or kind is None or tensor.shape[1:] not in ((), (1,)):
            continue
        if kind == CORRID and tensor.datatype in _IDS:
            holds = f"data_type: {to_schema(tensor.datatype)}"
        elif kind != CORRID and tensor.datatype in _FIELDS:
            holds = f"{_FIELDS[tensor.datatype]}: [ {'false, true' if tensor.datatype == 'BOOL' else '0, 1'} ]"
        else:
            continue
        said = pb.ModelSequenceBatching.Control.Kind.Name(_BY_KIND[kind])
        found.append(f"{{ name: '{tensor.name}' control {{ kind: {said} {holds} }} }}")
    return f"sequence_batching {{ control_input [ {', '.join(found)} ] }}" if found else ""


def _control(name: str, control: pb.ModelSequenceBatching.Control, place: str) -> ControlInput:
    if control.kind not in _KINDS:
        raise ModelConfigError(f"{place} is of kind {control.kind}; it must be one of {', '.join(_kind_names())}")
    ours, said_kind = _KINDS[control.kind], pb.ModelSequenceBatching.Control.Kind.Name(control.kind)
    pairs = {field: list(getattr(control, field)) for field in _PAIRS if getattr(control, field)}
    if ours == CORRID:
        if pairs:
            raise ModelConfigError(
                f"{place} is {said_kind}, which holds the sequence's id: it takes data_type, and no {next(iter(pairs))}"
            )
        if control.data_type and from_schema(control.data_type) not in _IDS:
            raise ModelConfigError(
                f"{place} has data_type {pb.DataType.Name(control.data_type)}; an id may be {_IDS_TOLD}"
            )
        empty: float | str = "" if control.data_type == pb.DataType.TYPE_STRING else 0
        return ControlInput(name, ours, empty, empty)
    if len(pairs) != 1 or control.data_type:
        raise ModelConfigError(
            f"{place} is {said_kind}, and must say what it holds where that is not so and where it is, by one of "
            f"{', '.join(_PAIRS)}, as in fp32_false_true: [ 0, 1 ]"
        )
    ((field, values),) = pairs.items()
    if len(values) != 2 or values[0] == values[1] or not all(math.isfinite(value) for value in values):
        raise ModelConfigError(f"{place}: {field} is {values}; it must hold two numbers that differ, as in [ 0, 1 ]")
    return ControlInput(name, ours, *values)


def _kind_names() -> list[str]:
    return [pb.ModelSequenceBatching.Control.Kind.Name(number) for number in _KINDS]


def _check_states(written: pb.ModelSequenceBatching, where: str) -> None:
    """Raises `ModelConfigError` for what is wrong with `state`, whatever the model is."""
    for side in ("input_name", "output_name"):
        names = [getattr(state, side) for state in written.state]
        if "" in names:
            other = "output_name" if side == "input_name" else "input_name"
            beside = getattr(written.state[names.index("")], other)
            raise ModelConfigError(
                f"{where}: a state has no {side} (its {other} is '{beside}'): state is paired by name, never by order, so it "
                "needs both"
            )
        if twice := [name for name in names if names.count(name) > 1]:
            raise ModelConfigError(f"{where}: two states have the {side} '{twice[0]}'; each stands in one alone")
    for state in written.state:
        place = f"{where}: state '{state.input_name}'"
        if len(state.initial_state) > 1:
            raise ModelConfigError(f"{place} has {len(state.initial_state)} initial_states; a sequence begins with one")
        for initial in state.initial_state:
            if initial.WhichOneof("state_data") == "data_file" and not initial.data_file:
                raise ModelConfigError(f"{place}: data_file of its initial_state is empty; it must be a file's name")


def _means_nothing(key: str, where: str) -> str:
    instead = ""
    if key == MAX_QUEUE_SIZE:
        instead = "; for a stateless model it is max_queue_size in default_queue_policy of dynamic_batching"
    return (
        f"{where}: parameters has {key!r}, which says something of a stateful model alone: add sequence_batching {{}} to make "
        f"the model stateful, or take the key out{instead}"
    )


def _one_of(said: Mapping[str, str], key: str, default: str, allowed: tuple[str, ...], where: str) -> str:
    if (value := said.get(key, default)) not in allowed:
        raise ModelConfigError(f"{where}: {key} is {value!r}; it must be one of {', '.join(allowed)}")
    return value


def _whole(text: str, where: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise ModelConfigError(f"{where} is {text!r}; it must be a whole number from {least} to {most}")
    return int(text)


def _nanoseconds(text: str, where: str) -> int:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_SECONDS:
        raise ModelConfigError(f"{where} is {text!r}; it must be a number of seconds from 0 to {MOST_SECONDS}")
    return round(seconds * SECOND_NS)


def _seconds(nanoseconds: int) -> str:
    whole, rest = divmod(nanoseconds, SECOND_NS)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")
