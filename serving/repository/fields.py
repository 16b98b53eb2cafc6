"""Which fields of ModelConfig mean something here, which change no answer, and why the others are refused.

Users' files come from Triton, and hold first what makes Triton faster. That is taken as it is, and told in the log: the answers
are the same. What would make them others (another schedule of state, a batch of its own making, another file) is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from google.protobuf.message import Message

from protos import model_config_pb2 as pb
from serving.errors import ModelConfigError

# What is served, and what it decides here; docs/reference/config.md is made of it.
SERVED: Mapping[str, str] = {
    "name": "the model's name; it must be the folder's",
    "platform": "what computes, by Triton's older names, as onnxruntime_onnx",
    "backend": "what computes, by our names or Triton's; without it --backend decides",
    "default_model_filename": "the file's name within a version's folder; it must be the one that the backend reads",
    "max_batch_size": "the most rows in a batch; 64 where it is left out, and dims of a bare file then have the rows, too",
    "input.name": "an input's name, as the file has it",
    "input.data_type": "its datatype, as TYPE_FP32; it must be the file's",
    "input.format": "taken, and no more than a word: tensors travel as they are",
    "input.dims": "its sizes without the rows, -1 where free; without max_batch_size, a bare file's with them",
    "input.reshape.shape": "the sizes that the file wants where they are others than dims",
    "output.name": "an output's name, as the file has it",
    "output.data_type": "its datatype; it must be the file's",
    "output.dims": "its sizes without the rows, -1 where free; without max_batch_size, a bare file's with them",
    "output.reshape.shape": "the sizes that the file gives where they are others than dims",
    "output.label_filename": "a file in the model's folder with a class name on each line",
    "version_policy.latest.num_versions": "serve so many of the highest versions; 1 without a policy",
    "version_policy.all": "serve every version",
    "version_policy.specific.versions": "serve these versions",
    "dynamic_batching.preferred_batch_size": "rows at which a batch goes without waiting any longer",
    "dynamic_batching.max_queue_delay_microseconds": "how long a batch may wait for more rows; 0 where it is left out",
    "dynamic_batching.preserve_ordering": "answers leave in the order in which requests came into the queue",
    "dynamic_batching.priority_levels": "how many levels of priority there are; 1 is served first",
    "dynamic_batching.default_priority_level": "the level of requests that name none, or one that does not exist",
    "dynamic_batching.default_queue_policy.timeout_action": "what becomes of a request whose time in the queue is up: REJECT "
    "refuses it, DELAY puts it behind its level",
    "dynamic_batching.default_queue_policy.default_timeout_microseconds": "how long a request may wait; 0, as long as it takes",
    "dynamic_batching.default_queue_policy.allow_timeout_override": "whether a request may wait less, by its parameter timeout",
    "dynamic_batching.default_queue_policy.max_queue_size": "the most requests that wait; 1024 where it is left out",
    "dynamic_batching.priority_queue_policy": "such a policy for a level of its own, by the level's number; without one it has "
    "the default_queue_policy",
    "sequence_batching.max_sequence_idle_microseconds": "makes the model stateful, as `sequence_batching {}` does; how long a "
    "sequence may have no step before it ends: ten minutes where it is left out",
    "sequence_batching.state.input_name": "a state's input; left out, the pairs are the version's own",
    "sequence_batching.state.output_name": "the output that is its next value; paired by name, never by order",
    "sequence_batching.state.data_type": "its datatype; it must be the file's",
    "sequence_batching.state.dims": "its sizes without the rows; they must be the file's",
    "sequence_batching.state.initial_state.name": "taken, and no more than a word",
    "sequence_batching.state.initial_state.data_type": "the state's",
    "sequence_batching.state.initial_state.dims": "the state's",
    "sequence_batching.state.initial_state.zero_data": "a new sequence begins with zeros, as it does without initial_state",
    "sequence_batching.state.initial_state.data_file": "it begins with what that file in `initial_state` beside the versions "
    "holds: one row, raw little-endian",
    "sequence_batching.control_input.name": "an input by which the file is told about sequences; clients do not see it",
    "sequence_batching.control_input.control.kind": "of what it is told: CONTROL_SEQUENCE_START, _END, _READY or _CORRID",
    "sequence_batching.control_input.control.int32_false_true": "what the input holds where that is not so, and where it is",
    "sequence_batching.control_input.control.fp32_false_true": "the same for FP32",
    "sequence_batching.control_input.control.bool_false_true": "the same for BOOL",
    "sequence_batching.control_input.control.data_type": "the datatype of an id, for _CORRID",
    "sequence_batching.direct.max_queue_delay_microseconds": "as in dynamic_batching",
    "sequence_batching.oldest.preferred_batch_size": "as in dynamic_batching",
    "sequence_batching.oldest.max_queue_delay_microseconds": "as in dynamic_batching",
    "sequence_batching.oldest.preserve_ordering": "as in dynamic_batching",
    "instance_group.name": "taken, and no more than a word",
    "instance_group.kind": "KIND_CPU, KIND_GPU, or KIND_AUTO for what --device says",
    "instance_group.count": "how many instances compute side by side",
    "instance_group.gpus": "the GPUs that have so many instances each",
    "model_warmup.name": "a name for the log",
    "model_warmup.batch_size": "rows of this call",
    "model_warmup.inputs": "what each input holds: zero_data, random_data or input_data_file",
    "model_warmup.count": "how often it is called",
    "parameters": "texts by key; the keys are listed below",
}
# Taken, and told to change nothing here: how fast Triton is, what it counts, what it keeps. All that stands below them, too.
IDLE = (
    "optimization",
    "response_cache",
    "metric_tags",
    "model_metrics",
    "instance_group.rate_limiter",
    "instance_group.host_policy",
    "instance_group.profile",
    "sequence_batching.direct.minimum_slot_utilization",
    "sequence_batching.oldest.max_candidate_sequences",
    "sequence_batching.state.use_same_buffer_for_input_output",
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
    "sequence_batching.iterative_sequence": "a request is computed once, and its answer sent",
    "sequence_batching.state.use_growable_memory": "a state has one size",
    "ensemble_scheduling": "ensembles are not served: ask the models one after the other",
    "model_transaction_policy.decoupled": "a request has one answer here",
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
            why = f" ({said})" if (said := why_not(field)) else ""
            raise ModelConfigError(f"{where}: the field '{field}' is not served by this server{why}; remove it")
    parameters = [f"parameters.{key}" for key in sorted(set(written.parameters) & IDLE_PARAMETERS)]
    return (*sorted(found), *parameters)


def why_not(field: str) -> str:
    """Why a field that is refused is not served; empty where that goes without saying."""
    return next((said for start, said in _WHY.items() if _within(field, start)), "")


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
