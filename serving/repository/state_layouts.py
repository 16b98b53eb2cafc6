"""A stateful model's specification: `sequence_batching` completed from the version's files, and held to them.

State is paired by name, as the files say or as was proved, never by order. What is kept has one size for each row, and a fresh
sequence begins with zeros, or with what a file beside the versions holds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protos import model_config_pb2 as pb
from serving.errors import ModelConfigError
from serving.repository import stateful
from serving.repository.datatypes import from_schema, to_schema
from serving.repository.operator_config import OperatorConfig
from serving.sequences.policy import StateLayout, StateTensor
from serving.signature import streaming
from serving.signature.controls import CORRID, ControlInput
from serving.signature.spec import ModelSpec, StatePair
from serving.signature.stated import Stated
from serving.signature.tensors import TensorSpec

FOLDER = "initial_state"  # beside the versions, as Triton has it
IDS = ("UINT64", "INT64", "UINT32", "INT32", "BYTES")

Side = Mapping[str, Stated]


def made_stateful(
    spec: ModelSpec, config: OperatorConfig, model_folder: Path, digest: str = ""
) -> tuple[ModelSpec, StateLayout]:
    """The specification with the state and the controls hidden from clients, and what is kept of each sequence.

    `digest` is that of the weights where the specification has none. Made of its own result it is the same. Raises
    `ModelConfigError`, saying why, for a model that cannot be stateful, and for what contradicts its files.
    """
    where = f"config.pbtxt of model '{config.written.name}': sequence_batching"
    written = config.written.sequence_batching
    pairs = _pairs(spec, written, where)
    if why := streaming.why_not(spec):
        declare = stateful.undeclared(dataclasses.replace(spec, controls=config.controls))
        raise ModelConfigError(
            f"{where}: the model cannot be stateful: {why}; take sequence_batching out (or --stateful), or {_what_to_do(spec)}"
            + (
                f"; its inputs are named as controls are: if they are some, declare them by {declare}"
                if declare
                else ""
            )
        )
    if why := streaming.not_kept(spec):
        raise ModelConfigError(f"{where}: {why}")
    states = {state.input_name: state for state in written.state}
    layout = StateLayout(
        tuple(_tensor(spec, pair, states.get(pair.input), where, model_folder) for pair in pairs),
        spec.weights_sha256 or digest,
    )
    most = config.sequences.max_state_bytes if config.sequences else 0
    if layout.bytes_each > most:
        raise ModelConfigError(
            f"{where}: the state of one sequence has {layout.bytes_each} bytes, and {stateful.MAX_STATE_BYTES} is {most}: no "
            "sequence could ever start; raise it"
        )
    for control in config.controls:
        _check_control(spec, control, stateful.control_datatypes(config.written)[control.input], where)
    return _hidden(spec, config, where), layout


def trial_hints(
    spec: ModelSpec, config: OperatorConfig
) -> tuple[dict[str, int | None], dict[str, float | str], dict[str, str] | None]:
    """What the configuration says of a bare file that is about to be tried: where rows are, what an input holds, its state.

    Controls hold what they hold at rest, and lie along the rows; state is what the file says, None where that is left to names.
    Raises `ModelConfigError` where it names what the file does not have.
    """
    where, written = f"config.pbtxt of model '{config.written.name}': sequence_batching", config.written
    inputs, outputs = spec.inputs_by_name, spec.outputs_by_name
    rows: dict[str, int | None] = {}
    values: dict[str, float | str] = {}
    for control in config.controls:
        shape = _known(control.input, inputs, f"{where}: control_input", "input").file_shape
        rows[control.input] = shape.index(-1) if -1 in shape else None
        values[control.input] = control.resting
    for state in written.sequence_batching.state:
        _known(state.input_name, inputs, f"{where}: state", "input")
        _known(state.output_name, outputs, f"{where}: state", "output")
    pairs = {state.input_name: state.output_name for state in written.sequence_batching.state}
    if written.input and not written.max_batch_size:  # the file says that there are no rows, of these too
        rows |= dict.fromkeys((*rows, *pairs))
    return rows, values, pairs or None


def with_hidden(said: tuple[Side, Side], own: tuple[Side, Side], config: OperatorConfig) -> tuple[Side, Side]:
    """What the file says of the tensors, with those of the state and the controls, which stand in no `input` and `output`.

    They are as the version's file states them, else as `sequence_batching` does. Where that leaves the state to the file, all
    that the file has is taken.
    """
    batching, rows = config.written.sequence_batching, (-1,) if config.written.max_batch_size else ()
    inputs, outputs = dict(said[0]), dict(said[1])

    def add(side: dict[str, Stated], of_file: Side, name: str, otherwise: Stated) -> None:
        datatype, shape = of_file.get(name, (None, None))
        side.setdefault(name, (datatype or otherwise[0], otherwise[1] if shape is None else shape))

    for state in batching.state:
        datatype = from_schema(state.data_type) if state.data_type else None
        otherwise = datatype, (*rows, *state.dims) if datatype else None
        add(inputs, own[0], state.input_name, otherwise)
        add(outputs, own[1], state.output_name, otherwise)
    for name, datatype in stateful.control_datatypes(config.written).items():
        add(inputs, own[0], name, (datatype or None, (*rows, 1)))
    if not batching.state:
        inputs, outputs = {**own[0], **inputs}, {**own[1], **outputs}
    return _as_in_file(inputs, own[0]), _as_in_file(outputs, own[1])


def in_force(spec: ModelSpec, config: OperatorConfig, batching: pb.ModelDynamicBatching) -> pb.ModelSequenceBatching:
    """What the ModelConfig RPC shows of a stateful model, and reads as the same; `batching` is what holds for its batches."""
    written, policy = config.written.sequence_batching, config.sequences
    idle_ns = policy.idle_ns if policy else 0
    made = pb.ModelSequenceBatching(max_sequence_idle_microseconds=idle_ns // 1000 if idle_ns else stateful.FOR_EVER)
    states = {state.input_name: state for state in written.state}
    for pair in spec.state:
        tensor = spec.inputs_by_name[pair.input]
        kind, dims = to_schema(tensor.datatype), tensor.shape[1:]
        shown = made.state.add(input_name=pair.input, output_name=pair.output, data_type=kind, dims=dims)
        said = states[pair.input].initial_state if pair.input in states else ()
        initial = shown.initial_state.add(data_type=kind, dims=dims, name=said[0].name if said else pair.input)
        if said and said[0].data_file:
            initial.data_file = said[0].data_file
        else:
            initial.zero_data = True
    for control in spec.controls:
        made.control_input.append(stateful.control_in_force(control, spec.inputs_by_name[control.input].datatype))
    if written.HasField("direct"):
        made.direct.max_queue_delay_microseconds = batching.max_queue_delay_microseconds
    else:
        made.oldest.preferred_batch_size.extend(batching.preferred_batch_size)
        made.oldest.max_queue_delay_microseconds = batching.max_queue_delay_microseconds
        made.oldest.preserve_ordering = batching.preserve_ordering
    return made


def files(config: OperatorConfig, model_folder: Path) -> tuple[Path, ...]:
    """The files of initial state that the configuration names, be they there or not."""
    return tuple(
        model_folder / FOLDER / initial.data_file
        for state in config.written.sequence_batching.state
        for initial in state.initial_state
        if initial.data_file
    )


def _as_in_file(side: Mapping[str, Stated], own: Side) -> dict[str, Stated]:
    """In the order of the file, as far as it states one."""
    order = {name: place for place, name in enumerate(own)}
    return dict(sorted(side.items(), key=lambda item: order.get(item[0], len(order))))


def _pairs(spec: ModelSpec, written: pb.ModelSequenceBatching, where: str) -> tuple[StatePair, ...]:
    """The pairs that are known of the version, none of which `written` may contradict."""
    known = {pair.input: pair.output for pair in spec.state}
    for state in written.state:
        _known(state.input_name, spec.inputs_by_name, f"{where}: state", "input")
        _known(state.output_name, spec.outputs_by_name, f"{where}: state", "output")
        if known.get(state.input_name) == state.output_name:
            continue
        said = f"{where}: state '{state.input_name}' is said to go on as '{state.output_name}'"
        if state.input_name in known:
            raise ModelConfigError(
                f"{said}; the model's goes on as '{known[state.input_name]}': write that, or leave state out, which completes it"
            )
        raise ModelConfigError(
            f"{said}, which nobody has proved: {spec.written_in} knows "
            f"{', '.join(f'{a} -> {b}' for a, b in known.items()) or 'no state'}; bring the file in again with "
            f"lstm-export import FILE --state {state.input_name}={state.output_name}, which tries it"
        )
    return spec.state


def _known(name: str, tensors: Mapping[str, TensorSpec], where: str, side: str) -> TensorSpec:
    if name not in tensors:
        raise ModelConfigError(
            f"{where} names the {side} '{name}', which the model has not; it has {', '.join(tensors)}"
        )
    return tensors[name]


def _what_to_do(spec: ModelSpec) -> str:
    if spec.state or "network" in spec.source:
        return "serve a network that can be fed in pieces: of one direction, without anything taken over all steps"
    told = streaming.which_pairs(spec)
    if not streaming.may_go_on(spec):
        return told
    if spec.weights_sha256:  # described: it is the exporter that proves pairs
        return f"{told} when the version is exported, by {streaming.flags(spec)}"
    pairs = streaming.suggested(spec) or {"INPUT": "OUTPUT"}
    states = ", ".join(f"{{ input_name: '{a}' output_name: '{b}' }}" for a, b in pairs.items())
    return (
        f"{told}: in config.pbtxt by sequence_batching {{ state [ {states} ] }}, or with lstm-export import FILE "
        f"{streaming.flags(spec)}"
    )


def _tensor(
    spec: ModelSpec, pair: StatePair, said: pb.ModelSequenceBatching.State | None, where: str, model_folder: Path
) -> StateTensor:
    place = f"{where}: state '{pair.input}'"
    before = spec.inputs_by_name[pair.input]
    shape = before.shape[1:]
    initial = np.zeros(shape, before.dtype)
    if said is not None:
        _agrees(said.data_type, said.dims, before, place)
        for entry in said.initial_state:
            _agrees(entry.data_type, entry.dims, before, f"{place}: its initial_state")
            if entry.data_file:
                initial = _from_file(entry.data_file, before, f"{place}: its initial_state", model_folder)
    initial.flags.writeable = False
    return StateTensor(pair.input, pair.output, before.dtype, shape, initial)


def _agrees(data_type: int, dims: Any, tensor: TensorSpec, where: str) -> None:
    """Raises `ModelConfigError` where a datatype or dims are said that are not the file's."""
    if data_type and from_schema(data_type) != tensor.datatype:
        raise ModelConfigError(f"{where} is {pb.DataType.Name(data_type)}; the model's is {to_schema(tensor.datatype)}")
    own = tensor.shape[1:]
    if dims and (len(dims) != len(own) or any(size not in (-1, fixed) for size, fixed in zip(dims, own, strict=True))):
        raise ModelConfigError(f"{where} has dims {list(dims)}; the model's are {list(own)} (the rows are left out)")


def _from_file(name: str, tensor: TensorSpec, where: str, model_folder: Path) -> npt.NDArray[Any]:
    """One row, from raw little-endian numbers, row by row."""
    folder = model_folder / FOLDER
    try:
        path = (folder / name).resolve()
        there = path.is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, or links that lead in a circle
        there = False
    if not there:
        raise ModelConfigError(f"{where}: there is no file '{name}' in the folder {FOLDER} beside the versions")
    shape = tensor.shape[1:]
    needed, found = math.prod(shape) * tensor.dtype.itemsize, path.stat().st_size
    if found != needed:
        rows = found // needed if found and not found % needed else 0
        more = f": that is {rows} rows, and a sequence is one" if rows else ""
        raise ModelConfigError(
            f"{where}: {name} has {found} bytes, and {needed} are needed: one row of {tensor.datatype} {list(shape)}, as raw "
            f"little-endian numbers{more}"
        )
    return np.frombuffer(path.read_bytes(), tensor.dtype).reshape(shape).copy()


def _check_control(spec: ModelSpec, control: ControlInput, datatype: str, where: str) -> None:
    place = f"{where}: control_input"
    tensor = _known(control.input, spec.inputs_by_name, place, "input")
    place += f" '{control.input}'"
    if control.input in spec.state_inputs or (spec.lengths and spec.lengths.input == control.input):
        what = "state" if control.input in spec.state_inputs else "lengths"
        raise ModelConfigError(f"{place} is the input of the model's {what}; no control can be told by it")
    if (datatype and tensor.datatype != datatype) or (control.kind == CORRID and tensor.datatype not in IDS):
        asked = to_schema(datatype) if datatype else f"one of {', '.join(map(to_schema, IDS))}"
        raise ModelConfigError(f"{place} holds {asked}; the model's input is {to_schema(tensor.datatype)}")
    if spec.batched and tensor.rows_axis is None:
        raise ModelConfigError(
            f"{place} has no axis of rows: all rows of a batch would share it; it must be [rows] or [rows, 1]"
        )
    if tensor.shape[1:] not in ((), (1,)):
        raise ModelConfigError(
            f"{place} is {list(tensor.shape)} in the model; it must be [rows] or [rows, 1], one number for each row"
        )


def _hidden(spec: ModelSpec, config: OperatorConfig, where: str) -> ModelSpec:
    listed = {output.name for output in config.written.output}
    controls = tuple(_of_file(control, spec) for control in config.controls)
    masks = spec.masks if spec.masks and spec.masks.input not in {one.input for one in controls} else None
    made = dataclasses.replace(
        spec,
        state_advertised=False,
        controls=controls,
        masks=masks,
        state_shown=tuple(pair.output for pair in spec.state if pair.output in listed),
    )
    if not made.advertised_inputs:
        raise ModelConfigError(f"{where}: the model takes state and controls alone, so that a step would bring nothing")
    if not made.advertised_outputs:
        raise ModelConfigError(
            f"{where}: the model gives state alone, which clients do not see: name the output that they get in output of "
            "config.pbtxt"
        )
    return made


def _of_file(control: ControlInput, spec: ModelSpec) -> ControlInput:
    """With the empty id of the file's own datatype."""
    if control.kind != CORRID:
        return control
    empty: float | str = "" if spec.inputs_by_name[control.input].datatype == "BYTES" else 0
    return dataclasses.replace(control, off=empty, on=empty)
