"""Which fields of ModelConfig mean something here, which change no answer, and why the others are refused.

Users' files come from Triton, and hold first what makes Triton faster. That is taken as it is, and told in the log: the answers
are the same. What would make them others (another schedule of state, a queue's timeout, another file) is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from google.protobuf.message import Message

from protos import model_config_pb2 as pb
from serving.errors import ModelConfigError

SERVED = frozenset(
    {
        "name",
        "platform",
        "backend",
        "default_model_filename",
        "max_batch_size",
        "input.name",
        "input.data_type",
        "input.format",
        "input.dims",
        "input.reshape.shape",
        "output.name",
        "output.data_type",
        "output.dims",
        "output.reshape.shape",
        "output.label_filename",
        "version_policy.latest.num_versions",
        "version_policy.all",
        "version_policy.specific.versions",
        "dynamic_batching.preferred_batch_size",
        "dynamic_batching.max_queue_delay_microseconds",
        "dynamic_batching.default_queue_policy.max_queue_size",
        "instance_group.name",
        "instance_group.kind",
        "instance_group.count",
        "instance_group.gpus",
        "model_warmup.name",
        "model_warmup.batch_size",
        "model_warmup.inputs",
        "model_warmup.count",
        "parameters",
    }
)
# Taken, and told to change nothing here: how fast Triton is, what it counts, what it keeps. All that stands below them, too.
IDLE = (
    "optimization",
    "response_cache",
    "metric_tags",
    "model_metrics",
    "dynamic_batching.preserve_ordering",
    "dynamic_batching.priority_levels",
    "dynamic_batching.default_priority_level",
    "instance_group.rate_limiter",
    "instance_group.host_policy",
    "instance_group.profile",
)
# Keys of `parameters` by which Triton's backends for these formats are made faster; Triton's documentation of each backend.
IDLE_PARAMETERS = frozenset(
    {
        "inter_op_thread_count",
        "execution_mode",
        "enable_mem_arena",
        "enable_mem_pattern",
        "memory.enable_memory_arena_shrinkage",
        "session.use_device_allocator_for_initializers",
        "cudnn_conv_algo_search",
        "gpu_mem_limit",
        "arena_extend_strategy",
        "do_copy_in_default_stream",
        "DISABLE_OPTIMIZED_EXECUTION",
        "INFERENCE_MODE",
        "DISABLE_CUDNN",
        "ENABLE_WEIGHT_SHARING",
        "ENABLE_CACHE_CLEANING",
        "ENABLE_JIT_PROFILING",
        "ENABLE_JIT_EXECUTOR",
        "ENABLE_TENSOR_FUSER",
        "INTER_OP_THREAD_COUNT",
        "INTRA_OP_THREAD_COUNT",
        "TF_NUM_INTRA_THREADS",
        "TF_NUM_INTER_THREADS",
        "TF_USE_PER_SESSION_THREADS",
    }
)
# What a refused field would need, for those that are met most.
_WHY = {
    "sequence_batching": "state is not kept by this server yet: a client sends it as inputs and gets it as outputs",
    "ensemble_scheduling": "ensembles are not served: ask the models one after the other",
    "model_transaction_policy.decoupled": "a request has one answer here",
    "dynamic_batching.default_queue_policy": "requests are taken off the queue by the client's own deadline",
    "dynamic_batching.priority_queue_policy": "requests are taken off the queue by the client's own deadline",
    "input.optional": "all inputs of a file have to be sent",
    "input.allow_ragged_batch": "rows of unequal length are padded, and told by an input of lengths",
    "batch_input": "rows of unequal length are padded, and told by an input of lengths",
    "runtime": "a backend has one runtime here; name it with backend",
}


def idle(written: pb.ModelConfig, where: str) -> tuple[str, ...]:
    """The fields that are set and change nothing here. Raises `ModelConfigError` for one that is not served, saying why."""
    found: dict[str, None] = {}
    for field in _set(written):
        if any(_within(field, taken) for taken in IDLE):
            found[field] = None
        elif field not in SERVED and not any(_within(served, field) for served in SERVED) and not _says_nothing(field):
            why = next((f" ({said})" for start, said in _WHY.items() if _within(field, start)), "")
            raise ModelConfigError(f"{where}: the field '{field}' is not served by this server{why}; remove it")
    parameters = [f"parameters.{key}" for key in sorted(set(written.parameters) & IDLE_PARAMETERS)]
    return (*sorted(found), *parameters)


def _within(field: str, of: str) -> bool:
    return field == of or field.startswith(f"{of}.")


def _says_nothing(field: str) -> bool:
    """A message whose only field is false, as `model_transaction_policy { decoupled: false }`, is set and empty."""
    return field == "model_transaction_policy"


def _set(message: Message, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields that are set, down to the leaves; an empty message that is set counts as a leaf."""
    for descriptor, value in message.ListFields():
        name = f"{prefix}{descriptor.name}"
        is_map = descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry
        if descriptor.message_type is None or is_map:
            yield name
            continue
        for part in value if isinstance(value, Sequence) else [value]:
            inner = list(_set(part, f"{name}."))
            yield from inner or [name]
