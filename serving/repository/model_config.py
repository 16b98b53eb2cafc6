"""What the operator decides about a model: `config.pbtxt`, read with the real ModelConfig schema and checked in full.

A field that would change an answer and is not served is refused by name, an unknown one with its line; one that changes none
is taken and told (`serving.repository.fields`). What the file leaves out is completed from the artefact. proto3 cannot tell
`max_batch_size: 0` from its absence, and both mean "complete it", here as in Triton.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
from collections.abc import Collection, Iterable
from typing import Any

from google.protobuf import json_format, text_format

from protos import model_config_pb2 as pb
from serving import backends
from serving.errors import BackendUnavailable, ModelConfigError
from serving.machine.devices import CPU, cuda, cuda_index
from serving.repository import fields, queue_policies, reshapes, routes, stateful
from serving.repository.datatypes import from_schema
from serving.repository.operator_config import OperatorConfig
from serving.signature.spec import PASS, REFUSE
from serving.signature.stated import Stated

MAX_INSTANCES = 64
THREADS = "intra_op_thread_count"  # as Triton's ONNX Runtime backend calls it
FALLBACK = "fallback"
NONFINITE = "nonfinite"
PARAMETERS = (
    THREADS,
    FALLBACK,
    NONFINITE,
    queue_policies.MAX_QUEUE_BYTES,
    queue_policies.MAX_PADDING_RATIO,
    *stateful.KEYS,
    *routes.KEYS,
)  # the keys of `parameters` that mean something here
TOLD = "lstm_serving."  # how the parameters begin by which the server tells of a model


@functools.lru_cache(maxsize=256)
def parse(text: str | None, name: str) -> OperatorConfig:
    """Reads and checks the text of a `config.pbtxt`; None stands for a model without one. The same text is read once.

    Raises `ModelConfigError`, naming the field or the line, its value, and what is allowed.
    """
    if text and text.startswith("\ufeff"):
        raise ModelConfigError(
            f"config.pbtxt of model '{name}' does not parse: it begins with a byte order mark (BOM), as editors on Windows "
            "write; save it as UTF-8 without BOM"
        )
    try:
        written = text_format.Parse(text or "", pb.ModelConfig())
    except text_format.ParseError as error:
        raise ModelConfigError(f"config.pbtxt of model '{name}' does not parse: line {error}") from error
    return check(written, name)


def parse_json(text: str, name: str) -> OperatorConfig:
    """The same for the JSON form, as clients send it to replace the file. Raises `ModelConfigError`."""
    where = f"the configuration sent for model '{name}'"
    try:
        sent = json.loads(text)
        if not isinstance(sent, dict):
            raise ModelConfigError(f"{where} does not parse: it must be a JSON object, a ModelConfig")
        written = json_format.ParseDict(sent, pb.ModelConfig())
    except (json_format.ParseError, ValueError, RecursionError) as error:
        raise ModelConfigError(f"{where} does not parse: {error}") from error
    return check(written, name, where)


def check(written: pb.ModelConfig, name: str, where: str = "") -> OperatorConfig:
    """Checks a configuration in full. Raises `ModelConfigError`."""
    where = where or f"config.pbtxt of model '{name}'"
    for key in [key for key in written.parameters if key.startswith(TOLD)]:
        del written.parameters[key]  # what the server has said of the model, in a configuration that comes back
    idle = fields.idle(written, where)
    if written.name and written.name != name:
        raise ModelConfigError(f"{where}: name is '{written.name}', but the folder is called '{name}'; they must agree")
    written.name = name
    _check_datatypes(written, where)
    return OperatorConfig(
        written=written,
        policy=queue_policies.batch_policy(written, where),
        backend=_backend(written, where),
        **_placed(written, where),
        **_parameters(written, where),
        idle=(*idle, *queue_policies.idle(written)),
        sequences=stateful.policy(written, where),
        controls=stateful.controls(written, where),
    )


def as_stateful(config: OperatorConfig, names: Collection[str]) -> OperatorConfig:
    """The same with `sequence_batching {}` where the model is among `names`, those of --stateful, and has none.

    Raises `ModelConfigError` where `dynamic_batching` says something that would have no place then.
    """
    name = config.written.name
    if config.sequences or name not in names:
        return config
    if config.written.dynamic_batching.ListFields():
        raise ModelConfigError(
            f"config.pbtxt of model '{name}': --stateful {name} makes it stateful, but it has dynamic_batching, which cannot "
            "stand beside sequence_batching: write sequence_batching { oldest { ... } } in its place, with what it says of "
            "max_queue_delay_microseconds, preferred_batch_size and preserve_ordering, and max_queue_size as a key of parameters"
        )
    written = pb.ModelConfig()
    written.CopyFrom(config.written)
    written.sequence_batching.SetInParent()
    where = f"config.pbtxt of model '{name}'"
    return dataclasses.replace(
        config,
        written=written,
        policy=queue_policies.batch_policy(written, where),
        sequences=stateful.policy(written, where),
    )


def _check_datatypes(written: pb.ModelConfig, where: str) -> None:
    """Raises `ModelConfigError` for a number that is no datatype; as proto3 has open enums, the schema takes any."""
    named = [(f"input '{tensor.name}'", tensor.data_type) for tensor in written.input]
    named += [(f"output '{tensor.name}'", tensor.data_type) for tensor in written.output]
    for state in written.sequence_batching.state:
        named.append((f"sequence_batching: state '{state.input_name}'", state.data_type))
        named += [(f"initial_state of state '{state.input_name}'", each.data_type) for each in state.initial_state]
    for control in written.sequence_batching.control_input:
        named += [(f"control_input '{control.name}'", each.data_type) for each in control.control]
    for entry in written.model_warmup:
        named += [(f"model_warmup '{entry.name}': input '{key}'", each.data_type) for key, each in entry.inputs.items()]
    for what, value in named:
        if value not in pb.DataType.values():
            raise ModelConfigError(f"{where}: {what} has data_type {value}, which is none; write it as TYPE_FP32")


def stated(config: OperatorConfig) -> tuple[dict[str, Stated], dict[str, Stated]] | None:
    """What the file says of the inputs and outputs, the rows in front if it sets `max_batch_size`; None if it says nothing."""
    written = config.written
    if not (written.input and written.output):
        return None
    rows = (-1,) if written.max_batch_size else ()

    def side(listed: Iterable[pb.ModelInput] | Iterable[pb.ModelOutput]) -> dict[str, Stated]:
        return {tensor.name: (from_schema(tensor.data_type), (*rows, *reshapes.computed(tensor))) for tensor in listed}

    return side(written.input), side(written.output)


def may_be_scalars(config: OperatorConfig) -> set[str]:
    """The tensors of which the file says one element, which it may mean of a scalar."""
    tensors: list[pb.ModelInput | pb.ModelOutput] = [*config.written.input, *config.written.output]
    return {tensor.name for tensor in tensors if not tensor.HasField("reshape") and reshapes.ones(tensor.dims)}


def rows(config: OperatorConfig) -> dict[str, int | None]:
    """Where the rows are in the inputs that the file names: in front if it sets `max_batch_size`, else nowhere."""
    return {tensor.name: 0 if config.written.max_batch_size else None for tensor in config.written.input}


def _backend(written: pb.ModelConfig, where: str) -> str | None:
    chosen = set()
    for field, value in (("backend", written.backend), ("platform", written.platform)):
        if not value:
            continue
        name = backends.named(value)
        if name is None:
            called = [dict.fromkeys((known, *backends.module(known).TRITON_NAMES)) for known in backends.names()]
            known = ", ".join("/".join(names) for names in called)
            raise ModelConfigError(f"{where}: {field} is '{value}', which this server does not have; known are {known}")
        chosen.add(name)
    if len(chosen) > 1:
        raise ModelConfigError(
            f"{where}: backend '{written.backend}' and platform '{written.platform}' contradict each other"
        )
    return chosen.pop() if chosen else None


def _placed(written: pb.ModelConfig, where: str) -> dict[str, Any]:
    """`device`, `count` and `gpus` of the instances."""
    groups = written.instance_group
    if not groups:
        return {"device": None}
    if len(groups) > 1:
        raise ModelConfigError(
            f"{where}: there are {len(groups)} instance groups; one is served, with any count and gpus"
        )
    group = groups[0]
    if group.count < 0 or any(gpu < 0 for gpu in group.gpus):
        raise ModelConfigError(f"{where}: instance_group has a negative count or GPU")
    count, gpus = group.count or 1, tuple(dict.fromkeys(group.gpus))
    if count * max(1, len(gpus)) > MAX_INSTANCES:
        raise ModelConfigError(
            f"{where}: instance_group asks for {count * max(1, len(gpus))} instances; at most {MAX_INSTANCES} are served"
        )
    if group.kind == pb.ModelInstanceGroup.KIND_CPU:
        if gpus:
            raise ModelConfigError(
                f"{where}: instance_group is KIND_CPU and names GPUs {list(group.gpus)}; drop one of them"
            )
        return {"device": CPU, "count": count}
    if group.kind == pb.ModelInstanceGroup.KIND_GPU or gpus:
        return {"device": cuda(gpus[0] if gpus else 0), "count": count, "gpus": gpus}
    if group.kind == pb.ModelInstanceGroup.KIND_AUTO:
        return {"device": None, "count": count}
    kind = "KIND_MODEL" if group.kind == pb.ModelInstanceGroup.KIND_MODEL else group.kind
    raise ModelConfigError(f"{where}: instance_group kind {kind} is not served; use KIND_AUTO, KIND_CPU or KIND_GPU")


def _parameters(written: pb.ModelConfig, where: str) -> dict[str, Any]:
    """`threads`, `fallback` and `routes`, from the free-form parameters. Raises `ModelConfigError` for any other key."""
    said = {key: parameter.string_value for key, parameter in written.parameters.items()}
    if unknown := sorted(set(said) - set(PARAMETERS) - fields.IDLE_PARAMETERS):
        raise ModelConfigError(
            f"{where}: parameters has {unknown[0]!r}; known are {', '.join(PARAMETERS)}{_meant(unknown[0])}"
        )
    if said.get(NONFINITE, PASS) not in (REFUSE, PASS):
        raise ModelConfigError(
            f"{where}: {NONFINITE} is {said[NONFINITE]!r}; it must be {REFUSE} or {PASS}, which is what happens to requests "
            "with NaN or infinity in a true step"
        )
    threads = said.get(THREADS, "")
    if threads and not (threads.isascii() and threads.isdigit() and len(threads) < 9 and int(threads) <= 1024):
        raise ModelConfigError(
            f"{where}: {THREADS} is {threads!r}; it must be a whole number, 0 leaves it to the server"
        )
    try:
        chosen = routes.parse(said, backends.named)
    except ValueError as error:
        raise ModelConfigError(f"{where}: {error}") from error
    if chosen.shadow and chosen.shadow.device:
        _check_device(chosen.shadow.device, f"{where}: shadow")
    fallback = None
    if FALLBACK in said:
        fallback = tuple(_place(entry.strip(), where) for entry in said[FALLBACK].split(",") if entry.strip())
    return {
        "threads": int(threads or 0) or None,
        "fallback": fallback,
        "routes": chosen,
        "nonfinite": said.get(NONFINITE, ""),
    }


def _meant(key: str) -> str:
    """What a key may be meant to be that is none, for people; empty where nothing is near."""
    if key in pb.ModelSequenceBatching.DESCRIPTOR.fields_by_name:
        return f"; {key} is a field: write it into sequence_batching {{ {key}: ... }}"
    near = difflib.get_close_matches(key, PARAMETERS, 1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _place(entry: str, where: str) -> tuple[str, str | None]:
    """`torchscript@cpu` -> a backend and a device."""
    backend, _, device = entry.partition("@")
    name = backends.named(backend)
    if name is None:
        raise ModelConfigError(f"{where}: {FALLBACK} names {backend!r}; known are {', '.join(backends.names())}")
    if device:
        _check_device(device, f"{where}: {FALLBACK}")
    return name, device or None


def _check_device(device: str, where: str) -> None:
    try:
        cuda_index(device)
    except BackendUnavailable as error:
        raise ModelConfigError(f"{where}: {error}") from error
