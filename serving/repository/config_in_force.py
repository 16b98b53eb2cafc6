"""The configuration in force: what the operator chose, every default filled in, as the ModelConfig RPC shows it.

What is shown can be written back. An operator may start from the answer of the RPC, and a swap is that answer with
another backend in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from protos import model_config_pb2 as pb
from serving import backends
from serving.batching.policy import BatchPolicy
from serving.errors import ModelConfigError
from serving.machine.devices import CPU, cuda_index
from serving.repository import queue_policies, state_layouts, stateful
from serving.repository.datatypes import to_schema
from serving.repository.operator_config import OperatorConfig
from serving.signature.spec import LABELS_FILE, ModelSpec
from serving.signature.tensors import TensorSpec


def config_in_force(
    chosen: OperatorConfig, spec: ModelSpec, backend: str, device: str, *, labelled: Collection[str]
) -> pb.ModelConfig:
    """The configuration in force, every default filled in, as the ModelConfig RPC shows it.

    The outputs that are `labelled` have names for their classes. Raises `ModelConfigError` where the file's inputs or outputs
    contradict the artefact.
    """
    written, policy = chosen.written, policy_for(chosen, spec)
    _agree(written, spec)
    module = backends.module(backend)
    where = f"config.pbtxt of model '{written.name}'"
    asked = chosen.backend or backend  # not the one that stands in for it
    if written.default_model_filename not in ("", expected := backends.module(asked).FILE_NAME):
        raise ModelConfigError(
            f"{where}: default_model_filename is '{written.default_model_filename}', but {asked} reads {expected}"
        )
    inputs = {tensor.name: tensor for tensor in written.input}
    label_files = {tensor.name: tensor.label_filename for tensor in written.output}
    config = pb.ModelConfig(
        name=written.name,
        backend=module.TRITON_NAMES[0],
        platform=module.TRITON_NAMES[-1],
        default_model_filename=module.FILE_NAME,
        max_batch_size=policy.max_rows if spec.batched else 0,
        input=[_input(tensor, spec, inputs.get(tensor.name)) for tensor in spec.advertised_inputs],
        output=[
            pb.ModelOutput(
                name=t.name,
                data_type=to_schema(t.datatype),
                dims=_dims(t, spec),
                reshape=_reshape(t, spec),
                label_filename=label_files.get(t.name) or (LABELS_FILE if t.name in labelled else ""),
            )
            for t in spec.advertised_outputs
        ],
    )
    config.version_policy.CopyFrom(written.version_policy)
    if not config.version_policy.WhichOneof("policy_choice"):
        config.version_policy.latest.num_versions = 1
    batching = queue_policies.in_force(policy)
    if chosen.sequences:
        config.sequence_batching.CopyFrom(state_layouts.in_force(spec, chosen, batching))
    elif policy.dynamic:
        config.dynamic_batching.CopyFrom(batching)
    name = written.instance_group[0].name if written.instance_group else ""
    group = config.instance_group.add(
        name=name or f"{written.name}_0", count=chosen.count, kind=pb.ModelInstanceGroup.KIND_CPU
    )
    if device != CPU:
        group.kind = pb.ModelInstanceGroup.KIND_GPU
        group.gpus.extend(cuda_index(each) or 0 for each in dict.fromkeys(chosen.devices(device)))
    config.model_warmup.extend(written.model_warmup)
    for key, parameter in written.parameters.items():
        config.parameters[key].CopyFrom(parameter)
    config.parameters[queue_policies.MAX_QUEUE_BYTES].string_value = str(policy.max_queue_bytes)
    config.parameters[queue_policies.MAX_PADDING_RATIO].string_value = f"{policy.max_padding_ratio:g}"
    if chosen.sequences:
        for key, value in stateful.parameters(chosen.sequences, policy.queue.max_requests).items():
            config.parameters[key].string_value = value
    return config


def policy_for(chosen: OperatorConfig, spec: ModelSpec, *, alone: bool = False) -> BatchPolicy:
    """How requests to this model are batched: as the operator chose, and not at all where it takes one row at a time.

    With `alone` each request is computed by itself, whatever was chosen. Raises `ModelConfigError` where batching is asked of
    a model without rows.
    """
    if spec.batched:
        return dataclasses.replace(chosen.policy, dynamic=False, max_delay_ns=0) if alone else chosen.policy
    written = chosen.written
    if written.max_batch_size or written.HasField("dynamic_batching"):
        raise ModelConfigError(
            f"config.pbtxt of model '{written.name}': max_batch_size and dynamic_batching ask for batches, but the model "
            "has no axis of rows: leave both out"
        )
    return dataclasses.replace(chosen.policy, max_rows=1, dynamic=False)


def _dims(tensor: TensorSpec, spec: ModelSpec) -> tuple[int, ...]:
    """The shape without the rows, as the file is written."""
    shape = spec.shown_shape(tensor)
    return shape[1:] if spec.batched else shape


def _input(tensor: TensorSpec, spec: ModelSpec, written: pb.ModelInput | None) -> pb.ModelInput:
    made = pb.ModelInput(
        name=tensor.name, data_type=to_schema(tensor.datatype), dims=_dims(tensor, spec), reshape=_reshape(tensor, spec)
    )
    if written:
        made.format = written.format
    return made


def _reshape(tensor: TensorSpec, spec: ModelSpec) -> pb.ModelTensorReshape | None:
    """What is computed with, where clients see something else; clients send one element where the file takes a scalar.

    Without rows Triton knows no empty reshape: there one element stands for a scalar by itself.
    """
    scalar = not tensor.file_shape
    if (tensor.shown is None and not scalar) or (scalar and not spec.batched):
        return None
    return pb.ModelTensorReshape(shape=tensor.shape[1:])


def _agree(written: pb.ModelConfig, spec: ModelSpec) -> None:
    """Tensors that the file names must be the artefact's own, all of them, with the same type and dims."""
    sides = (("input", written.input, spec.advertised_inputs), ("output", written.output, spec.advertised_outputs))
    hidden = spec.inputs_by_name if written.HasField("sequence_batching") else {}
    for side, listed, facts in sides:
        where = f"config.pbtxt of model '{written.name}': {side}"
        known = {tensor.name: tensor for tensor in facts}
        if side == "input":  # of a stateful model the file may still name what clients do not see any more
            known |= {t.name: hidden[t.name] for t in listed if t.name in hidden and t.name in spec.filled_in}
        names = [tensor.name for tensor in listed]
        if listed and sorted(names) != sorted(known):
            raise ModelConfigError(f"{where}s are {names}; the model's are {sorted(known)}: list all of them or none")
        for tensor in listed:
            fact = known[tensor.name]
            asked = pb.DataType.Name(tensor.data_type)
            if asked != to_schema(fact.datatype):
                raise ModelConfigError(f"{where} '{tensor.name}' is {asked}; the model's is {to_schema(fact.datatype)}")
            if tuple(tensor.dims) != _dims(fact, spec):
                raise ModelConfigError(
                    f"{where} '{tensor.name}' has dims {list(tensor.dims)}; the model's are {list(_dims(fact, spec))} "
                    "(the rows are left out)"
                )
